"""Tables on a terminal: numbers to the right, nothing cut off."""

from __future__ import annotations

from collections.abc import Sequence

GAP = "  "
"""Between columns."""


def format_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    text_columns: int = 1,
    footer: Sequence[str] | None = None,
) -> str:
    """Return lines of aligned columns.

    Args:
        header: Name of each column.
        rows: As many cells each.
        text_columns: How many columns, from the left, are text; the others are numbers.
        footer: A last row under a line.
    """
    everything = [header, *rows, *([footer] if footer else [])]
    widths = [max(len(row[column]) for row in everything) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return GAP.join(padded).rstrip()

    rule = GAP.join("-" * width for width in widths)
    lines = [line(header), rule, *(line(row) for row in rows)]
    if footer:
        lines += [rule, line(footer)]
    return "\n".join(lines)
