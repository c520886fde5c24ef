"""Price documents: every problem at once, each with its place."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from trierarch.core.usage import ServiceTier
from trierarch.cost.documents import parse_price_document
from trierarch.cost.prices import ANY_REGION, CapacityType

PRICE = {
    "accelerator": "H200",
    "capacity_type": "Spot",
    "usd_per_accelerator_hour": "3.41",
    "effective_from": date(2026, 4, 18),
}
RATE = {
    "model": "m",
    "usd_per_million_input_tokens": "1",
    "usd_per_million_cached_tokens": "0",
    "usd_per_million_output_tokens": 4,
    "effective_from": date(2026, 1, 1),
}


def problems(document):
    return [f"{problem.place}: {problem.message}" for problem in parse_price_document(document)[1]]


def test_document_is_read():
    document, found = parse_price_document(
        {"price": [PRICE], "rate": [RATE], "tier_factors": {"flex": "0.5"}, "currency": "USD"}
    )
    assert found == []
    (price,) = document.prices
    assert price.key.capacity_type is CapacityType.SPOT
    assert price.key.region == ANY_REGION
    assert price.effective_from_unix_seconds == datetime(2026, 4, 18, tzinfo=UTC).timestamp()
    assert document.rates[0].usd_per_million_output_tokens == Decimal(4)
    assert document.tier_factors == {ServiceTier.FLEX: Decimal("0.5")}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"usd_per_accelerator_hour": "-1"}, "must be from 0 to 1000000, got -1"),
        ({"usd_per_accelerator_hour": "cheap"}, "'cheap' is not a number"),
        ({"usd_per_accelerator_hour": 3.41}, 'write the number as text, for example "2.95"'),
        ({"usd_per_accelerator_hour": True}, 'write the number as text, for example "2.95"'),
        ({"usd_per_accelerator_hour": Decimal("NaN")}, "must be from 0 to 1000000, got NaN"),
        ({"usd_per_accelerator_hour": "9e99"}, "must be from 0 to 1000000, got 9E+99"),
        (
            {"usd_per_accelerator_hour": "0.0000000000001"},
            "has more than 12 digits after the point: 1E-13",
        ),
        ({"usd_per_accelerator_hour": []}, 'must be a number such as "2.95", not list'),
    ],
)
def test_price_must_be_an_exact_number(change, line):
    assert problems({"price": [PRICE | change]}) == [f"price 1, usd_per_accelerator_hour: {line}"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (datetime(2026, 1, 1), "time zone"),  # noqa: DTZ001
        ("2026-13-01", "is no date"),
        (7, "must be a date"),
    ],
)
def test_date_must_be_a_date(value, says):
    (line,) = problems({"price": [PRICE | {"effective_from": value}]})
    assert line.startswith("price 1, effective_from: ")
    assert says in line


@pytest.mark.parametrize(
    "value",
    [date(2026, 4, 18), datetime(2026, 4, 18, tzinfo=UTC), "2026-04-18", "2026-04-18T00:00:00Z"],
    ids=["date", "instant", "date-as-text", "instant-as-text"],
)
def test_dates_may_be_written_in_four_ways(value):
    document, found = parse_price_document({"price": [PRICE | {"effective_from": value}]})
    assert found == []
    assert document.prices[0].effective_from_unix_seconds == 1_776_470_400.0


def test_all_problems_are_found_at_once():
    document = {
        "price": [
            PRICE | {"capacity_type": "spot", "zone": "a"},
            {key: PRICE[key] for key in PRICE if key != "accelerator"},
            "text",
        ],
        "rate": [RATE, RATE, RATE | {"tier": "gold", "model": " m"}],
        "tier_factors": {"gold": "1", "flex": "half"},
        "currency": "EUR",
        "prices": [],
    }
    assert problems(document) == [
        "prices: is not known here",
        "currency: must be USD",
        "price 1, capacity_type: must be 'OnDemand', 'Spot' or 'Reserved', not 'spot'",
        "price 1, zone: is not a field of this table",
        "price 2, accelerator: is missing",
        "price 3: must be a table",
        "rate 2: begins together with rate 1; keep one",
        "rate 3, model: must be a name without spaces around it",
        "rate 3, tier: must be 'priority', 'default' or 'flex', not 'gold'",
        "tier_factors, gold: is no tier; tiers are priority, default, flex",
        "tier_factors, flex: 'half' is not a number",
    ]


def test_overlaps_and_gaps_are_problems_of_the_later_entry():
    early = PRICE | {"effective_until": date(2026, 5, 1)}
    late = PRICE | {"effective_from": date(2026, 6, 1)}
    (line,) = problems({"price": [late, early]})
    assert line.startswith("price 1: no price of H200 Spot in any region holds from 2026-05-01")


def test_price_that_ends_before_it_begins_is_a_problem_with_its_place():
    (line,) = problems({"price": [PRICE | {"effective_until": date(2026, 1, 1)}]})
    assert line == "price 1: a price of H200 Spot in any region ends before it begins"


@pytest.mark.parametrize("document", [{}, {"price": []}, {"currency": "USD"}])
def test_document_that_says_nothing_is_a_problem(document):
    assert ": holds no [[price]] and no [[rate]]" in problems(document)


@pytest.mark.parametrize(
    ("document", "line"),
    [
        ({"price": {"H200": 1}}, "price: must be a list of [[price]] tables"),
        ({"price": [PRICE], "tier_factors": 3}, "tier_factors: must be a table"),
    ],
)
def test_tables_must_be_tables(document, line):
    assert line in problems(document)
