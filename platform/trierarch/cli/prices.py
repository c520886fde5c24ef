"""``trierarch prices``: show, check and import prices and rates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trierarch.adapters.price_files import load_default_prices, read_price_file
from trierarch.cli.ledger_options import (
    actor,
    format_instant,
    ledger_options,
    open_ledger,
    parse_instant,
)
from trierarch.cli.tables import format_table
from trierarch.core.clock import SystemClock, utc_datetime
from trierarch.core.errors import InvalidInput
from trierarch.settings.paths import default_data_dir, ledger_path

if TYPE_CHECKING:
    from trierarch.cost.prices import PriceBook, PriceEntry
    from trierarch.cost.rates import RateCard, RateEntry

PRICE_HEADER = ("accelerator", "capacity", "region", "$/accelerator-hour", "from", "source")
RATE_HEADER = ("model", "tier", "input $/M", "cached $/M", "output $/M", "from", "source")


@click.group()
def prices() -> None:
    """Show, check and import prices and rates.

    Prices are what capacity costs you (dollars per accelerator-hour). Rates are what
    requests are charged (dollars per million tokens). Both hold from a date on; the
    package brings defaults, and your own entries go on top of them.
    """


def _current(
    book: PriceBook, card: RateCard, at_unix_seconds: float, history: bool
) -> tuple[list[PriceEntry], list[RateEntry]]:
    if history:
        return list(book), list(card)
    price_entries: dict[object, PriceEntry] = {}
    for price in book:
        if price.effective_from_unix_seconds <= at_unix_seconds:
            price_entries[price.key] = price
    rate_entries: dict[object, RateEntry] = {}
    for rate in card:
        if rate.effective_from_unix_seconds <= at_unix_seconds:
            rate_entries[rate.model, rate.tier] = rate
    return list(price_entries.values()), list(rate_entries.values())


@prices.command()
@click.option(
    "--at", "at", default=None, metavar="TIME", help="Show what held then.  [default: now]"
)
@click.option("--history", is_flag=True, help="Show every entry, also past and future ones.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@ledger_options
def show(
    at: str | None,
    history: bool,
    as_json: bool,
    data_dir: Path | None,
    ledger_address: str | None,
) -> None:
    """Show the prices and rates in force, each with its source."""
    now = SystemClock().unix_seconds()
    at_unix_seconds = now if at is None else parse_instant(at, now)
    if ledger_address is None and not ledger_path(data_dir or default_data_dir()).exists():
        defaults = load_default_prices()
        book, card = defaults.price_book(), defaults.rate_card()
    else:
        with open_ledger(data_dir, ledger_address, create=False) as ledger:
            book, card = ledger.price_book(), ledger.rate_card()
    price_entries, rate_entries = _current(book, card, at_unix_seconds, history)
    if as_json:
        click.echo(json.dumps(_as_json(price_entries, rate_entries, card), indent=2))
        return
    ended = [
        entry
        for entry in price_entries
        if entry.effective_until_unix_seconds is not None
        and entry.effective_until_unix_seconds <= at_unix_seconds
    ]
    price_rows = [
        (
            entry.key.accelerator,
            entry.key.capacity_type.value,
            entry.key.region,
            f"{entry.usd_per_accelerator_hour:f}",
            f"{utc_datetime(entry.effective_from_unix_seconds):%Y-%m-%d}",
            entry.source if entry not in ended else f"ENDED, last known: {entry.source}",
        )
        for entry in price_entries
    ]
    rate_rows = [
        (
            entry.model,
            entry.tier.value if entry.tier else "(any)",
            *(f"{rate:f}" for rate in entry.rates),
            f"{utc_datetime(entry.effective_from_unix_seconds):%Y-%m-%d}",
            entry.source,
        )
        for entry in rate_entries
    ]
    when = "all entries" if history else f"at {format_instant(at_unix_seconds)}"
    click.echo(f"Prices, {when}: what capacity costs (for CPU an accelerator is one vCPU)")
    click.echo(format_table(PRICE_HEADER, price_rows, text_columns=len(PRICE_HEADER)))
    click.echo(f"\nRates, {when}: what requests are charged, per million tokens")
    click.echo(format_table(RATE_HEADER, rate_rows, text_columns=len(RATE_HEADER)))
    factors = ", ".join(f"{tier} x {factor:f}" for tier, factor in card.tier_factors.items())
    click.echo(f"\nFactors for rates that hold in any tier: {factors}")


def _as_json(
    price_entries: list[PriceEntry], rate_entries: list[RateEntry], card: RateCard
) -> dict[str, object]:
    return {
        "prices": [
            {
                "accelerator": entry.key.accelerator,
                "capacity_type": entry.key.capacity_type.value,
                "region": entry.key.region,
                "usd_per_accelerator_hour": f"{entry.usd_per_accelerator_hour:f}",
                "effective_from_unix_seconds": entry.effective_from_unix_seconds,
                "effective_until_unix_seconds": entry.effective_until_unix_seconds,
                "source": entry.source,
            }
            for entry in price_entries
        ],
        "rates": [
            {
                "model": entry.model,
                "tier": entry.tier.value if entry.tier else None,
                "usd_per_million_input_tokens": f"{entry.usd_per_million_input_tokens:f}",
                "usd_per_million_cached_tokens": f"{entry.usd_per_million_cached_tokens:f}",
                "usd_per_million_output_tokens": f"{entry.usd_per_million_output_tokens:f}",
                "effective_from_unix_seconds": entry.effective_from_unix_seconds,
                "source": entry.source,
            }
            for entry in rate_entries
        ],
        "tier_factors": {tier.value: f"{f:f}" for tier, f in card.tier_factors.items()},
    }


@prices.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_context
def check(context: click.Context, file: Path) -> None:
    """Check FILE and print every problem in one line with its place.

    FILE is TOML with [[price]] and [[rate]] entries; the package's own
    default_prices.toml is an example. Exit code 1 if there is a problem.
    """
    document, problems = read_price_file(file)
    for problem in problems:
        click.echo(problem)
    if problems:
        context.exit(1)
    click.echo(f"{file}: {len(document.prices)} prices and {len(document.rates)} rates, no problem")


@prices.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@ledger_options
def import_file(file: Path, data_dir: Path | None, ledger_address: str | None) -> None:
    """Add the prices and rates of FILE; running gateways use them within seconds.

    An entry replaces one for the same thing with the same date; nothing else is
    removed. A price that comes late does not change what was already paid.
    """
    document, problems = read_price_file(file)
    if problems:
        more = f" (and {len(problems) - 1} more: prices check)" if len(problems) > 1 else ""
        raise InvalidInput(f"{problems[0]}{more}")
    with open_ledger(data_dir, ledger_address, create=True) as ledger:
        ledger.import_prices(document, actor=actor(), source=str(file))
    click.echo(f"Imported {len(document.prices)} prices and {len(document.rates)} rates.")
