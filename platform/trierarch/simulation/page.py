"""A comparison as one HTML page that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Sequence

from trierarch.simulation.comparison import Comparison
from trierarch.simulation.plots import pareto_figure, timeline_figure, to_svg

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
tr.ours { font-weight: 600; }
svg { max-width: 100%; height: auto; }
"""


def render_page(
    comparison: Comparison,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    sentences: Sequence[str],
) -> str:
    """Return the page.

    Args:
        comparison: What the pictures show.
        header: Of the table.
        rows: Of the table, the first cell is the policy.
        sentences: What it comes to.
    """
    title = f"{comparison.scenario.trace.name}: {comparison.scenario.setup.name} fleet"
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(_row(cells) for cells in rows)
    text = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1>{text}"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"{to_svg(pareto_figure(comparison))}{to_svg(timeline_figure(comparison))}</body></html>\n"
    )


def _row(cells: Sequence[str]) -> str:
    is_ours = cells[0].lstrip("* ").startswith("trierarch")
    kind = " class='ours'" if is_ours else ""
    return f"<tr{kind}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
