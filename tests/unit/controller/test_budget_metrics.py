"""What alerts on tenants' budgets are made from."""

from __future__ import annotations

from decimal import Decimal

import pytest

from trierarch.controller.telemetry import ControllerMetrics
from trierarch.core.identifiers import TenantId
from trierarch.cost.budgets import Budget, Period, TenantTerms, day_of
from trierarch.ports import TenantBook

MIDNIGHT = 86_400.0 * 20_000
NOON = MIDNIGHT + 43_200.0
A, FREE = TenantId("a"), TenantId("free")


def book(spent: str, *budgets: Budget) -> TenantBook:
    days = {day_of(NOON): Decimal(spent)}
    return TenantBook({A: TenantTerms(A, budgets=budgets), FREE: TenantTerms(FREE)}, {A: days})


def read(metrics: ControllerMetrics, name: str, tenant: str = "a") -> float | None:
    return metrics.registry.get_sample_value(f"trierarch_cost_budget_{name}", {"tenant": tenant})


@pytest.mark.parametrize(
    ("spent", "now", "remaining", "burn_rate"),
    [
        ("5", NOON, 5.0, 1.0),
        ("10", NOON, 0.0, 2.0),
        ("12", NOON, -2.0, 2.4),
        ("0", NOON, 10.0, 0.0),
        # Two requests in the first minute are no trend.
        ("0.1", MIDNIGHT + 60.0, 9.9, 0.24),
    ],
)
def test_speed_is_spent_over_what_the_time_allows(
    spent: str, now: float, remaining: float, burn_rate: float
) -> None:
    metrics = ControllerMetrics()
    metrics.set_budgets(book(spent, Budget(Period.DAY, Decimal(10))), now)
    assert read(metrics, "remaining_usd") == pytest.approx(remaining)
    assert read(metrics, "burn_rate") == pytest.approx(burn_rate)
    assert read(metrics, "remaining_usd", "free") is None


def test_the_tightest_budget_is_told_and_one_that_is_gone_is_not() -> None:
    metrics = ControllerMetrics()
    budgets = (Budget(Period.MONTH, Decimal(100)), Budget(Period.DAY, Decimal(10)))
    metrics.set_budgets(book("4", *budgets), NOON)
    assert read(metrics, "remaining_usd") == 6.0
    metrics.set_budgets(book("4"), NOON)
    assert read(metrics, "remaining_usd") is None
