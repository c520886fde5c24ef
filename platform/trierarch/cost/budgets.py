"""What tenants may spend and use: terms, periods, and what is left of a budget.

Periods are calendar days and months in UTC. Amounts are dollars, exact.
"""

from __future__ import annotations

import calendar
import dataclasses
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from trierarch.core.clock import utc_datetime
from trierarch.core.identifiers import ModelName, TenantId

SECONDS_PER_DAY = 86_400
_SECONDS_PER_HOUR = 3600.0

THROTTLE_FROM_RATIO = Decimal("0.8")
"""Share of a budget from which ``Throttle`` paces spending, so that it lasts until its end."""

NOTHING = Decimal(0)


class Period(StrEnum):
    """When spending starts from zero again."""

    DAY = "Day"
    MONTH = "Month"


class Action(StrEnum):
    """What happens when a budget is used up."""

    BLOCK = "Block"
    THROTTLE = "Throttle"
    DOWNGRADE = "Downgrade"


@dataclasses.dataclass(frozen=True, slots=True)
class Budget:
    """One spending limit.

    Attributes:
        period: In which the amount may be spent.
        amount_usd: Dollars.
        action: What happens then.
        downgrade_to: Model that answers then, for ``Downgrade``.
    """

    period: Period
    amount_usd: Decimal
    action: Action = Action.BLOCK
    downgrade_to: ModelName | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class TenantTerms:
    """What a tenant may do; None limits nothing.

    Attributes:
        tenant: Whose keys they hold for.
        allowed_models: None allows all.
        priority: Whose requests go first inside a tier: higher first.
        budgets: All of them hold.
    """

    tenant: TenantId
    allowed_models: frozenset[ModelName] | None = None
    priority: int = 0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    parallel_requests: int | None = None
    budgets: tuple[Budget, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """Return the terms as JSON values."""
        record: dict[str, Any] = _TERMS.dump_python(self, mode="json")
        if self.allowed_models is not None:
            record["allowed_models"] = sorted(self.allowed_models)
        return record

    @staticmethod
    def from_record(record: object) -> TenantTerms:
        """Return the terms that ``as_record`` wrote.

        Raises:
            ValueError: If the record is not one.
        """
        return _TERMS.validate_python(record)


_TERMS = TypeAdapter(TenantTerms)


def day_of(unix_seconds: float) -> int:
    """Return the calendar day in UTC as a number that grows by one a day."""
    return int(unix_seconds // SECONDS_PER_DAY)


def first_day(period: Period, day: int) -> int:
    """Return the first day of the period that a day is in."""
    if period is Period.DAY:
        return day
    return day - (utc_datetime(day * SECONDS_PER_DAY).day - 1)


def end_of(period: Period, day: int) -> float:
    """Return the instant at which the period of a day ends."""
    days = 1
    if period is Period.MONTH:
        date = utc_datetime(day * SECONDS_PER_DAY)
        days = calendar.monthrange(date.year, date.month)[1]
    return float((first_day(period, day) + days) * SECONDS_PER_DAY)


def spent_in(period: Period, spent_by_day: Mapping[int, Decimal], day: int) -> Decimal:
    """Return what was spent in the period of a day, up to that day."""
    first = first_day(period, day)
    return sum((usd for d, usd in spent_by_day.items() if first <= d <= day), NOTHING)


def hourly_allowance(
    budget: Budget, spent_usd: Decimal, now_unix_seconds: float
) -> tuple[Decimal, float]:
    """Return what is left of a budget, and what that is per hour until its period ends.

    In the last hour it is what is left: more capacity for less time would outlive the period.
    """
    remaining = max(NOTHING, budget.amount_usd - spent_usd)
    end = end_of(budget.period, day_of(now_unix_seconds))
    hours = max(1.0, (end - now_unix_seconds) / _SECONDS_PER_HOUR)
    return remaining, float(remaining) / hours
