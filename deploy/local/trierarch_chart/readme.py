"""The chart's README: its own words from a template, and a table of every value."""

from __future__ import annotations

import json

from trierarch_chart.values import Value, leaves

MARK = "{{ values }}"
"""Where the table goes in the template."""

_TOO_LONG = 60


def build_readme(template: str, values: tuple[Value, ...]) -> str:
    """Return the README.

    Raises:
        ValueError: If the template has no place for the table.
    """
    if template.count(MARK) != 1:
        raise ValueError(f"the template needs one {MARK}")
    return template.replace(MARK, "\n".join(_build_table(values)))


def _build_table(values: tuple[Value, ...]) -> list[str]:
    rows = ["| value | default | what it is for |", "|---|---|---|"]
    for value in leaves(values):
        sentence = value.sentence.replace("|", "\\|")
        rows.append(f"| `{value.name}` | {_show_default(value)} | {sentence} |")
    return rows


def _show_default(value: Value) -> str:
    text = json.dumps(value.default, ensure_ascii=False)
    return f"`{text}`" if len(text) <= _TOO_LONG else "see values.yaml"
