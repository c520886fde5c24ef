"""``trierarch report``: spend, tokens and unit cost from the ledger."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trierarch.cli.ledger_options import (
    format_instant,
    ledger_options,
    open_ledger,
    parse_instant,
)
from trierarch.cli.tables import format_table
from trierarch.core.clock import SystemClock
from trierarch.core.quantities import Money
from trierarch.cost.allocation import Part
from trierarch.cost.focus import COLUMNS, billing_periods, focus_row
from trierarch.cost.report import Report, ReportBy, ReportRow, Subject
from trierarch.cost.unit_cost import UnitCost

if TYPE_CHECKING:
    from trierarch.adapters.ledger import Ledger

PLATFORM_NAME = "(platform)"
"""Who bears cost that no tenant pays."""

SHOWN_DECIMALS = Decimal("0.000001")
"""Tables round to a millionth of a dollar; the other formats have every digit."""

SUBJECT_COLUMNS = {
    ReportBy.TENANT: ("tenant",),
    ReportBy.MODEL: ("model",),
    ReportBy.VARIANT: ("model", "variant"),
}

NUMBER_HEADER = (
    "requests",
    "input",
    "cached",
    "output",
    "charged $",
    "actual $",
    "serving $",
    "idle $",
    "warm-up $",
    "drain $",
    "failed $",
    "variance $",
    "$/M tokens",
)


@click.command()
@click.option(
    "--by",
    default=ReportBy.TENANT.value,
    show_default=True,
    type=click.Choice([by.value for by in SUBJECT_COLUMNS]),
    help="What a row stands for.",
)
@click.option("--since", metavar="TIME", help="Start: 2026-11-01, 24h, 7d ...  [default: all]")
@click.option("--until", metavar="TIME", help="End, written likewise.  [default: now]")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["table", "csv", "json", "focus"]),
    default="table",
    show_default=True,
    help="focus is CSV by the FinOps specification FOCUS 1.2, by tenant, model and variant.",
)
@click.option("--json", "as_json", is_flag=True, help="Same as --format json.")
@ledger_options
def report(
    by: str,
    since: str | None,
    until: str | None,
    format_name: str,
    as_json: bool,
    data_dir: Path | None,
    ledger_address: str | None,
) -> None:
    """Show what was charged, what it cost, and how many tokens it bought.

    "charged" is by the rate card, request by request. "actual" is what the capacity
    cost: serving, plus idle (ready without a request), warm-up, drain and failed.
    Their difference is the variance. All parts add up to the capacity cost; the line
    below the table says so to the last digit.
    """
    now = SystemClock().unix_seconds()
    until_unix_seconds = now if until is None else parse_instant(until, now)
    since_unix_seconds = None if since is None else parse_instant(since, now)
    with open_ledger(data_dir, ledger_address, create=False) as ledger:
        if format_name == "focus" and not as_json:
            click.echo(_focus(ledger, since_unix_seconds, until_unix_seconds), nl=False)
            return
        result = ledger.report(
            ReportBy(by),
            since_unix_seconds=since_unix_seconds,
            until_unix_seconds=until_unix_seconds,
        )
    if as_json or format_name == "json":
        click.echo(json.dumps(report_as_json(result), indent=2))
    elif format_name == "csv":
        click.echo(_csv(result), nl=False)
    else:
        click.echo(report_as_table(result))


def _names(subject: Subject, by: ReportBy) -> list[str]:
    names = []
    for column in SUBJECT_COLUMNS[by]:
        name = getattr(subject, column)
        names.append(PLATFORM_NAME if column == "tenant" and name == "" else name or "(none)")
    return names


def _dollars(money: Money) -> str:
    return f"{money.amount.quantize(SHOWN_DECIMALS):f}"


def _unit_cost(row: ReportRow) -> str:
    cost = row.unit_cost()
    if isinstance(cost, UnitCost):
        return f"{cost.usd_per_million_tokens:.4f}"
    return "-"


def _numbers(row: ReportRow) -> list[str]:
    tokens = row.tokens
    return [
        str(row.requests),
        str(tokens.input_tokens),
        str(tokens.cached_tokens),
        str(tokens.output_tokens),
        _dollars(row.charged),
        _dollars(row.actual),
        *(_dollars(row.part(part)) for part in Part),
        _dollars(row.variance),
        _unit_cost(row),
    ]


def report_as_table(result: Report) -> str:
    """Return a report for a terminal."""
    columns = SUBJECT_COLUMNS[result.by]
    footer = ["total", *[""] * (len(columns) - 1), *_numbers(result.total)]
    lines = [
        f"{format_instant(result.since_unix_seconds)} to"
        f" {format_instant(result.until_unix_seconds)}, dollars",
        format_table(
            [*columns, *NUMBER_HEADER],
            [[*_names(row.subject, result.by), *_numbers(row)] for row in result.rows],
            text_columns=len(columns),
            footer=footer,
        ),
        f"capacity cost {result.capacity_cost}, allocated {result.total.actual},"
        f" unallocated drift {_plain(result.unallocated_drift)}",
    ]
    if not result.rows:
        lines.append("The ledger holds nothing for this time.")
    return "\n".join(lines)


def _plain(money: Money) -> str:
    return "0" if money.amount == 0 else str(money)


def _fields(row: ReportRow) -> dict[str, Any]:
    cost, charge = row.unit_cost(), row.unit_charge()
    tokens = row.tokens
    return {
        "requests": row.requests,
        "input_tokens": tokens.input_tokens,
        "cached_tokens": tokens.cached_tokens,
        "output_tokens": tokens.output_tokens,
        "reasoning_tokens": tokens.reasoning_tokens,
        "charged_usd": str(row.charged),
        "actual_usd": str(row.actual),
        **{f"{part.value}_usd": str(row.part(part)) for part in Part},
        "variance_usd": str(row.variance),
        "usd_per_million_tokens": (
            f"{cost.usd_per_million_tokens:f}" if isinstance(cost, UnitCost) else None
        ),
        "usd_per_million_weighted_tokens": (
            f"{cost.usd_per_million_weighted_tokens:f}" if isinstance(cost, UnitCost) else None
        ),
        "charged_usd_per_million_tokens": (
            f"{charge.usd_per_million_tokens:f}" if isinstance(charge, UnitCost) else None
        ),
    }


def _subject_fields(row: ReportRow, by: ReportBy) -> dict[str, Any]:
    return {column: getattr(row.subject, column) for column in SUBJECT_COLUMNS[by]}


def report_as_json(result: Report) -> dict[str, Any]:
    """Return a report for a program: money as text, a missing unit cost as null."""
    return {
        "by": result.by.value,
        "since_unix_seconds": result.since_unix_seconds,
        "until_unix_seconds": result.until_unix_seconds,
        "currency": result.capacity_cost.currency,
        "rows": [_subject_fields(row, result.by) | _fields(row) for row in result.rows],
        "total": _fields(result.total),
        "capacity_cost_usd": str(result.capacity_cost),
        "unallocated_drift_usd": _plain(result.unallocated_drift),
    }


def _csv(result: Report) -> str:
    text = io.StringIO()
    columns = [*SUBJECT_COLUMNS[result.by], *_fields(result.total)]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_subject_fields(row, result.by) | _fields(row) for row in result.rows)
    return text.getvalue()


def _focus(ledger: Ledger, since_unix_seconds: float | None, until_unix_seconds: float) -> str:
    whole = ledger.report(
        ReportBy.CHARGE,
        since_unix_seconds=since_unix_seconds,
        until_unix_seconds=until_unix_seconds,
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for start, end in billing_periods(whole.since_unix_seconds, until_unix_seconds):
        period = ledger.report(ReportBy.CHARGE, since_unix_seconds=start, until_unix_seconds=end)
        writer.writerows(focus_row(period, row) for row in period.rows)
    return text.getvalue()
