"""What tenants' budgets leave for the capacity of their model deployments: pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from decimal import Decimal

from trierarch.autoscaling.signals import HourlyBudget
from trierarch.cost.budgets import NOTHING, Period, TenantTerms, hourly_allowance
from trierarch_operators.object_cache import Key


@dataclasses.dataclass(frozen=True, slots=True)
class PaidDeployment:
    """A model deployment that a tenant pays for.

    Attributes:
        terms: The tenant's.
        usd_per_hour: Of all its groups that exist, starting and draining ones too; None where
            a price is missing.
        spent_usd: What it has cost, by the period that began last.
    """

    key: Key
    terms: TenantTerms
    usd_per_hour: Decimal | None
    spent_usd: Mapping[Period, Decimal]


def build_allowances(
    paid: Sequence[PaidDeployment], now_unix_seconds: float
) -> dict[Key, tuple[HourlyBudget, ...]]:
    """Return what each deployment may cost per hour until its tenant's periods end.

    A budget is shared: what the tenant's other deployments cost now is not there for this one.
    A cost that nobody knows leaves nothing.
    """
    return {
        one.key: tuple(
            _allow(one, [p for p in paid if _pays(p, one)], index, now_unix_seconds)
            for index in range(len(one.terms.budgets))
        )
        for one in paid
    }


def _pays(other: PaidDeployment, one: PaidDeployment) -> bool:
    return (other.key.namespace, other.terms.tenant) == (one.key.namespace, one.terms.tenant)


def _allow(
    one: PaidDeployment, own: Sequence[PaidDeployment], index: int, now_unix_seconds: float
) -> HourlyBudget:
    budget = one.terms.budgets[index]
    spent = sum((p.spent_usd[budget.period] for p in own), NOTHING)
    _, usd_per_hour = hourly_allowance(budget, spent, now_unix_seconds)
    for other in own:
        if other.key == one.key:
            continue
        taken = float("inf") if other.usd_per_hour is None else float(other.usd_per_hour)
        usd_per_hour = max(0.0, usd_per_hour - taken)
    return HourlyBudget(f"{one.terms.tenant} per {budget.period.value.lower()}", usd_per_hour)
