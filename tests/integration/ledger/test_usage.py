"""Usage: each request counts once, exactly."""

from decimal import Decimal

import pytest
from sqlalchemy import text

from trierarch.core.errors import InvalidInput
from trierarch.core.quantities import Money, TokenCounts


def test_same_request_never_counts_twice(ledger, usage):
    assert ledger.record_usage([usage("q1"), usage("q2"), usage("q1")]) == 2
    assert ledger.record_usage([usage("q2"), usage("q3")]) == 1
    total = ledger.tenant_usage("a")
    assert total.requests == 3
    assert total.tokens == TokenCounts(300, 30, 60, 15)
    assert total.spend == Money.of("0.003")


def test_first_record_of_a_request_counts(ledger, usage):
    ledger.record_usage([usage("q1", charge="0.001"), usage("q1", charge="9")])
    ledger.record_usage([usage("q1", charge="7")])
    assert ledger.tenant_usage("a").spend == Money.of("0.001")


def test_tenants_are_kept_apart(ledger, usage):
    ledger.record_usage([usage("q1", tenant="a"), usage("q2", tenant="b", charge="5")])
    assert ledger.tenant_usage("a").spend == Money.of("0.001")
    assert ledger.tenant_usage("b").spend == Money.of(5)


def test_tenant_without_requests_has_used_nothing(ledger):
    assert ledger.tenant_usage("nobody").requests == 0
    assert ledger.tenant_usage("nobody").spend == Money.of(0)


def test_more_records_than_one_statement_takes(ledger, usage):
    records = [usage(f"q{number}") for number in range(1201)]
    assert ledger.record_usage(records) == 1201
    assert ledger.record_usage(records) == 0
    assert ledger.tenant_usage("a").requests == 1201


def test_nothing_to_record_is_fine(ledger):
    assert ledger.record_usage([]) == 0


@pytest.mark.parametrize(
    ("charge", "total"),
    [
        ("0.1", Decimal("0.100000000001")),
        ("0.000002635375", Decimal("0.000002635376")),
        ("12345678901234567.000000000001", Decimal("12345678901234567.000000000002")),
    ],
)
def test_charges_come_back_to_the_last_digit(ledger, usage, charge, total):
    ledger.record_usage([usage("q1", charge=charge), usage("q2", charge="0.000000000001")])
    with ledger._database.read() as connection:
        stored = connection.execute(
            text("SELECT charge FROM usage WHERE request_id = 'q1'")
        ).scalar_one()
    assert stored == charge, "text, not a float"
    assert ledger.tenant_usage("a").spend.amount == total


def test_other_currency_is_refused(ledger, usage):
    import dataclasses

    record = dataclasses.replace(usage(), charge=Money(Decimal(1), "EUR"))
    with pytest.raises(InvalidInput, match="keeps USD, not EUR"):
        ledger.record_usage([record])


@pytest.mark.parametrize(
    "bad",
    [{"tokens": TokenCounts(2**70)}, {"model": "broken \ud800 text"}],
    ids=["number-beyond-64-bits", "broken-text"],
)
def test_record_the_database_refuses_spoils_nothing(ledger, usage, bad):
    with pytest.raises(InvalidInput, match="refused an entry"):
        ledger.record_usage([usage("q1"), usage("bad", **bad)])
    assert ledger.tenant_usage("a").requests == 0
