"""Periods of budgets, what is left of them, and terms that survive a record."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from trierarch.core.identifiers import ModelName, TenantId
from trierarch.cost.budgets import (
    Action,
    Budget,
    Period,
    TenantTerms,
    day_of,
    end_of,
    first_day,
    hourly_allowance,
    spent_in,
)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("now", "period", "begins", "ends"),
    [
        ("2026-03-14T15:09:26", Period.DAY, "2026-03-14", "2026-03-15"),
        ("2026-03-14T15:09:26", Period.MONTH, "2026-03-01", "2026-04-01"),
        ("2026-03-01T00:00:00", Period.MONTH, "2026-03-01", "2026-04-01"),
        ("2026-12-31T23:59:59", Period.MONTH, "2026-12-01", "2027-01-01"),
        ("2028-02-29T12:00:00", Period.MONTH, "2028-02-01", "2028-03-01"),
        ("2026-12-31T23:59:59", Period.DAY, "2026-12-31", "2027-01-01"),
    ],
)
def test_periods_are_calendar_days_and_months_in_utc(
    now: str, period: Period, begins: str, ends: str
) -> None:
    day = day_of(at(now))
    assert first_day(period, day) == day_of(at(begins))
    assert end_of(period, day) == at(ends)


def test_only_the_present_period_counts() -> None:
    day = day_of(at("2026-03-14"))
    spent = {day - 14: Decimal(100), day - 13: Decimal(1), day - 1: Decimal(2), day: Decimal("0.5")}
    spent[day + 1] = Decimal(7)
    assert spent_in(Period.DAY, spent, day) == Decimal("0.5")
    assert spent_in(Period.MONTH, spent, day) == Decimal("3.5")


def test_what_is_left_is_spread_over_the_rest_of_the_period() -> None:
    budget = Budget(Period.DAY, Decimal(24))
    assert hourly_allowance(budget, Decimal(0), at("2026-03-14")) == (Decimal(24), 1.0)
    assert hourly_allowance(budget, Decimal(12), at("2026-03-14T18:00:00")) == (Decimal(12), 2.0)
    # In the last hour it is what is left, and not sixty times that in the last minute.
    assert hourly_allowance(budget, Decimal(23), at("2026-03-14T23:59:00")) == (Decimal(1), 1.0)
    assert hourly_allowance(budget, Decimal(30), at("2026-03-14")) == (Decimal(0), 0.0)


def test_terms_survive_their_record() -> None:
    terms = TenantTerms(
        TenantId("a"),
        allowed_models=frozenset({ModelName("x"), ModelName("y")}),
        priority=-3,
        requests_per_minute=5,
        parallel_requests=2,
        budgets=(
            Budget(Period.DAY, Decimal("0.10")),
            Budget(Period.MONTH, Decimal("1e3"), Action.DOWNGRADE, ModelName("x")),
        ),
    )
    assert TenantTerms.from_record(json.loads(json.dumps(terms.as_record()))) == terms
    bare = TenantTerms(TenantId("b"))
    assert TenantTerms.from_record(json.loads(json.dumps(bare.as_record()))) == bare
