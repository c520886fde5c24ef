"""The price book: found, stale, missing and zero are four different facts."""

from decimal import Decimal

import pytest

from trierarch.cost.prices import (
    CapacityType,
    PriceBook,
    PriceEntry,
    PriceKey,
    PriceMissing,
    PriceMissingReason,
    ProblemKind,
    StalePrice,
)

SPOT = PriceKey("H200", CapacityType.SPOT, "eu-west")
ANYWHERE = PriceKey("H200", CapacityType.SPOT)


def price(usd, start, until=None, key=SPOT):
    return PriceEntry(key, Decimal(usd), start, until)


def test_price_holds_from_its_first_instant_until_the_next_one_begins():
    book = PriceBook([price("2", 200.0), price("1", 100.0)])
    first, second = book.find(SPOT, 100.0), book.find(SPOT, 200.0)
    assert isinstance(first, PriceEntry)
    assert first.usd_per_accelerator_hour == Decimal(1)
    assert isinstance(second, PriceEntry)
    assert second.usd_per_accelerator_hour == Decimal(2)
    assert book.find(SPOT, 199.999) == first


def test_before_the_first_price_there_is_none_and_the_message_says_when_it_begins():
    missing = PriceBook([price("1", 86_400.0)]).find(SPOT, 86_399.0)
    assert isinstance(missing, PriceMissing)
    assert missing.reason is PriceMissingReason.BEFORE_FIRST_PRICE
    assert "1970-01-02T00:00:00Z" in missing.message


def test_ended_price_is_stale_and_keeps_its_last_value():
    found = PriceBook([price("1", 100.0, 150.0)]).find(SPOT, 150.0)
    assert isinstance(found, StalePrice)
    assert found.entry.usd_per_accelerator_hour == Decimal(1)
    assert found.ended_unix_seconds == 150.0


def test_price_of_zero_is_a_price():
    found = PriceBook([price("0", 100.0)]).find(SPOT, 100.0)
    assert isinstance(found, PriceEntry)
    assert found.usd_per_accelerator_hour == 0


def test_region_of_its_own_comes_before_any_region():
    book = PriceBook([price("1", 0.0), price("9", 0.0, key=ANYWHERE)])
    here = book.find(SPOT, 1.0)
    elsewhere = book.find(PriceKey("H200", CapacityType.SPOT, "us"), 1.0)
    assert isinstance(here, PriceEntry)
    assert here.usd_per_accelerator_hour == Decimal(1)
    assert isinstance(elsewhere, PriceEntry)
    assert elsewhere.usd_per_accelerator_hour == Decimal(9)


def test_any_region_holds_where_the_region_itself_has_ended():
    book = PriceBook([price("1", 0.0, 10.0), price("9", 0.0, key=ANYWHERE)])
    found = book.find(SPOT, 10.0)
    assert isinstance(found, PriceEntry)
    assert found.usd_per_accelerator_hour == Decimal(9)


@pytest.mark.parametrize(
    ("key", "reason", "says"),
    [
        (
            PriceKey("H2OO", CapacityType.SPOT, "eu-west"),
            PriceMissingReason.UNKNOWN_ACCELERATOR,
            "no accelerator 'H2OO'; it knows H200",
        ),
        (
            PriceKey("H200", CapacityType.RESERVED, "eu-west"),
            PriceMissingReason.UNKNOWN_CAPACITY_TYPE,
            "H200 as Spot, not as Reserved",
        ),
        (
            PriceKey("H200", CapacityType.SPOT, "mars"),
            PriceMissingReason.UNKNOWN_REGION,
            "in eu-west, not in 'mars'",
        ),
    ],
    ids=["accelerator", "capacity-type", "region"],
)
def test_unknown_key_says_what_is_known(key, reason, says):
    missing = PriceBook([price("1", 0.0)]).find(key, 1.0)
    assert isinstance(missing, PriceMissing)
    assert missing.reason is reason
    assert says in missing.message


def test_empty_book_knows_nothing_and_says_so():
    missing = PriceBook().find(SPOT, 0.0)
    assert isinstance(missing, PriceMissing)
    assert "it knows none" in missing.message


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        ([price("1", 0.0), price("2", 0.0)], ProblemKind.OVERLAP),
        ([price("1", 0.0, 20.0), price("2", 10.0)], ProblemKind.OVERLAP),
        ([price("1", 0.0, 10.0), price("2", 20.0)], ProblemKind.GAP),
    ],
    ids=["same-start", "ends-after-the-next-begins", "ends-before-the-next-begins"],
)
def test_entries_that_do_not_fit_are_problems(entries, kind):
    (problem,) = PriceBook(entries).problems()
    assert problem.kind is kind
    assert problem.entry == entries[1]
    assert "H200 Spot in eu-west" in problem.message


@pytest.mark.parametrize("until", [None, 10.0], ids=["open", "ends-as-the-next-begins"])
def test_entries_that_fit_are_no_problem(until):
    assert PriceBook([price("1", 0.0, until), price("2", 10.0)]).problems() == []


def test_overlay_adds_and_wins_only_for_the_same_key_and_start():
    book = PriceBook([price("1", 0.0), price("2", 10.0)]).overlay([price("3", 10.0)])
    assert [entry.usd_per_accelerator_hour for entry in book] == [Decimal(1), Decimal(3)]


def test_next_change_sees_starts_and_ends_of_region_and_any_region():
    book = PriceBook([price("1", 0.0, 30.0), price("9", 20.0, key=ANYWHERE)])
    assert book.next_change_unix_seconds(SPOT, 0.0) == 20.0
    assert book.next_change_unix_seconds(SPOT, 20.0) == 30.0
    assert book.next_change_unix_seconds(SPOT, 30.0) is None


@pytest.mark.parametrize("usd", ["-0.01", "NaN", "Infinity"])
def test_price_that_is_no_price_is_refused(usd):
    with pytest.raises(ValueError, match="zero or more"):
        price(usd, 0.0)


def test_price_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValueError, match="ends before"):
        price("1", 10.0, 10.0)
