"""Price documents: prices and rates as people write them, checked in full.

A document is a mapping, as a TOML file gives it. Every problem is found in one pass
and said in one line with its place, so that a file is corrected once and not ten times.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Annotated, Any

import pydantic

from trierarch.core.usage import ServiceTier
from trierarch.cost.prices import ANY_REGION, CapacityType, PriceBook, PriceEntry, PriceKey
from trierarch.cost.rates import RateCard, RateEntry

PRICE_TABLE = "price"
"""Name of the array of price entries."""

RATE_TABLE = "rate"
"""Name of the array of rate entries."""

MAX_USD = Decimal(1_000_000)
"""Above any price per hour or per million tokens; catches a misplaced decimal point."""

MAX_DECIMALS = 12
"""Digits after the point that a price may have."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where in a document something stands.

    Attributes:
        table: ``price``, ``rate``, another top-level name, or empty for the document.
        number: Position in the table, counted from 1; 0 outside of tables.
        field: Field in the entry, or empty.
    """

    table: str = ""
    number: int = 0
    field: str = ""

    def __str__(self) -> str:
        """Return the place as a person says it, for example ``price 3, region``."""
        entry = f"{self.table} {self.number}" if self.number else self.table
        return ", ".join(word for word in (entry, self.field) if word)


@dataclasses.dataclass(frozen=True, slots=True)
class DocumentProblem:
    """One thing that is wrong in a document."""

    place: Place
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class PriceDocument:
    """A document that has been read.

    Attributes:
        prices: In the order of the document.
        rates: In the order of the document.
        tier_factors: Factor per tier, for rates that name no tier.
    """

    prices: tuple[PriceEntry, ...] = ()
    rates: tuple[RateEntry, ...] = ()
    tier_factors: Mapping[ServiceTier, Decimal] = dataclasses.field(default_factory=dict)

    def price_book(self) -> PriceBook:
        """Return the prices as a book."""
        return PriceBook(self.prices)

    def rate_card(self) -> RateCard:
        """Return the rates as a card."""
        return RateCard(self.rates, self.tier_factors)


def _exact_number(value: object) -> Decimal:
    if isinstance(value, bool | float):
        raise ValueError('write the number as text, for example "2.95"')
    if not isinstance(value, str | int | Decimal):
        raise ValueError(f'must be a number such as "2.95", not {type(value).__name__}')
    try:
        number = Decimal(value)
    except ArithmeticError:
        raise ValueError(f"'{value}' is not a number") from None
    if not number.is_finite() or not 0 <= number <= MAX_USD:
        raise ValueError(f"must be from 0 to {MAX_USD}, got {number}")
    exponent = number.normalize().as_tuple().exponent
    if isinstance(exponent, int) and -exponent > MAX_DECIMALS:
        raise ValueError(f"has more than {MAX_DECIMALS} digits after the point: {number}")
    return number


def _instant(value: object) -> float:
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"'{value}' is no date such as 2026-05-20") from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"give {value} a time zone, for example {value.isoformat()}Z")
        return value.timestamp()
    if isinstance(value, date):
        return datetime.combine(value, time(), tzinfo=UTC).timestamp()
    raise ValueError(f"must be a date such as 2026-05-20, not {value!r}")


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or value != value.strip():
        raise ValueError("must be a name without spaces around it")
    return value


_Number = Annotated[Decimal, pydantic.BeforeValidator(_exact_number)]
_Instant = Annotated[float, pydantic.BeforeValidator(_instant)]
_Name = Annotated[str, pydantic.BeforeValidator(_name)]


class _Row(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    effective_from: _Instant
    source: str = ""


class _PriceRow(_Row):
    accelerator: _Name
    capacity_type: CapacityType
    region: _Name = ANY_REGION
    usd_per_accelerator_hour: _Number
    effective_until: _Instant | None = None

    def entry(self) -> PriceEntry:
        return PriceEntry(
            PriceKey(self.accelerator, self.capacity_type, self.region),
            self.usd_per_accelerator_hour,
            self.effective_from,
            self.effective_until,
            self.source,
        )


class _RateRow(_Row):
    model: _Name
    tier: ServiceTier | None = None
    usd_per_million_input_tokens: _Number
    usd_per_million_cached_tokens: _Number
    usd_per_million_output_tokens: _Number

    def entry(self) -> RateEntry:
        return RateEntry(
            self.model,
            self.tier,
            self.usd_per_million_input_tokens,
            self.usd_per_million_cached_tokens,
            self.usd_per_million_output_tokens,
            self.effective_from,
            self.source,
        )


def _problems_of(error: pydantic.ValidationError, place: Place) -> list[DocumentProblem]:
    found: list[DocumentProblem] = []
    for detail in error.errors():
        field = str(detail["loc"][0]) if detail["loc"] else ""
        if detail["type"] == "extra_forbidden":
            message = "is not a field of this table"
        elif detail["type"] == "missing":
            message = "is missing"
        elif detail["type"] == "model_type":
            message = "must be a table"
        elif detail["type"] == "enum":
            message = f"must be {detail['ctx']['expected']}, not {detail['input']!r}"
        else:
            message = detail["msg"].removeprefix("Value error, ")
        found.append(DocumentProblem(dataclasses.replace(place, field=field), message))
    return found


def _rows(document: Mapping[str, Any], table: str) -> tuple[list[Any], list[DocumentProblem]]:
    rows = document.get(table, [])
    if isinstance(rows, list):
        return rows, []
    return [], [DocumentProblem(Place(table), f"must be a list of [[{table}]] tables")]


def _parse_prices(
    document: Mapping[str, Any],
) -> tuple[list[PriceEntry], dict[int, Place], list[DocumentProblem]]:
    rows, problems = _rows(document, PRICE_TABLE)
    entries: list[PriceEntry] = []
    places: dict[int, Place] = {}
    for number, row in enumerate(rows, start=1):
        place = Place(PRICE_TABLE, number)
        try:
            entry = _PriceRow.model_validate(row).entry()
        except pydantic.ValidationError as error:
            problems += _problems_of(error, place)
        except ValueError as error:
            problems.append(DocumentProblem(place, str(error)))
        else:
            entries.append(entry)
            places[id(entry)] = place
    return entries, places, problems


def _parse_rates(document: Mapping[str, Any]) -> tuple[list[RateEntry], list[DocumentProblem]]:
    rows, problems = _rows(document, RATE_TABLE)
    entries: list[RateEntry] = []
    first_at: dict[tuple[str, ServiceTier | None, float], int] = {}
    for number, row in enumerate(rows, start=1):
        place = Place(RATE_TABLE, number)
        try:
            entry = _RateRow.model_validate(row).entry()
        except pydantic.ValidationError as error:
            problems += _problems_of(error, place)
            continue
        key = (entry.model, entry.tier, entry.effective_from_unix_seconds)
        if key in first_at:
            text = f"begins together with {RATE_TABLE} {first_at[key]}; keep one"
            problems.append(DocumentProblem(place, text))
            continue
        first_at[key] = number
        entries.append(entry)
    return entries, problems


def _parse_factors(
    document: Mapping[str, Any],
) -> tuple[dict[ServiceTier, Decimal], list[DocumentProblem]]:
    table = document.get("tier_factors", {})
    if not isinstance(table, Mapping):
        return {}, [DocumentProblem(Place("tier_factors"), "must be a table")]
    factors: dict[ServiceTier, Decimal] = {}
    problems: list[DocumentProblem] = []
    for name, value in table.items():
        place = Place("tier_factors", field=str(name))
        try:
            factors[ServiceTier(name)] = _exact_number(value)
        except ValueError as error:
            known = ", ".join(ServiceTier)
            text = str(error) if name in list(ServiceTier) else f"is no tier; tiers are {known}"
            problems.append(DocumentProblem(place, text))
    return factors, problems


def parse_price_document(
    document: Mapping[str, Any],
) -> tuple[PriceDocument, list[DocumentProblem]]:
    """Return what a document says and everything that is wrong with it.

    Only a document without problems should be used; what it says is returned in any
    case, without the entries that could not be read.

    Args:
        document: Arrays ``price`` and ``rate``, tables ``tier_factors``, ``currency``.
    """
    problems = [
        DocumentProblem(Place(str(name)), "is not known here")
        for name in document
        if name not in {PRICE_TABLE, RATE_TABLE, "tier_factors", "currency"}
    ]
    if document.get("currency", "USD") != "USD":
        problems.append(DocumentProblem(Place("currency"), "must be USD"))
    if not document.get(PRICE_TABLE) and not document.get(RATE_TABLE):
        problems.append(DocumentProblem(Place(), "holds no [[price]] and no [[rate]]"))
    prices, places, price_problems = _parse_prices(document)
    rates, rate_problems = _parse_rates(document)
    factors, factor_problems = _parse_factors(document)
    problems += price_problems + rate_problems + factor_problems
    problems += [
        DocumentProblem(places[id(problem.entry)], problem.message)
        for problem in PriceBook(prices).problems()
    ]
    return PriceDocument(tuple(prices), tuple(rates), factors), problems
