"""The status of a Tenant: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from trierarch.cost.budgets import NOTHING, TenantTerms, day_of, end_of, spent_in
from trierarch_operators.conditions import Finding, build_conditions, timestamp

_CENT_OF_A_CENT = Decimal("0.0001")


def find_conditions(
    terms: TenantTerms, spent_by_day: Mapping[int, Decimal] | None, now_unix_seconds: float
) -> list[Finding]:
    """Return what is said of a tenant whose terms are in force.

    Args:
        terms: What is in force.
        spent_by_day: Charges; None while no ledger tells them.
        now_unix_seconds: Of the present periods.
    """
    if spent_by_day is None:
        message = "the operator has no ledger, so no gateway hears of limits or budgets"
        return [Finding("Ready", "False", "LedgerMissing", message)]
    ready = Finding("Ready", "True", "InForce", "gateways enforce it within about a second")
    if not terms.budgets:
        return [ready, Finding("WithinBudget", "True", "NoBudget", "no budget limits it")]
    day = day_of(now_unix_seconds)
    used_up = [
        f"{budget.amount_usd:f} USD per {budget.period.value.lower()} ({budget.action.value})"
        for budget in terms.budgets
        if spent_in(budget.period, spent_by_day, day) >= budget.amount_usd
    ]
    if used_up:
        message = f"used up: {', '.join(used_up)}"
        return [ready, Finding("WithinBudget", "False", "BudgetUsedUp", message)]
    return [ready, Finding("WithinBudget", "True", "BudgetLeft", "every budget has something left")]


def build_status(
    terms: TenantTerms | None,
    findings: Sequence[Finding],
    spent_by_day: Mapping[int, Decimal] | None,
    existing: Mapping[str, Any],
    generation: int,
    now_unix_seconds: float,
) -> dict[str, Any]:
    """Return the whole status.

    Args:
        terms: What is in force; None if the object does not count.
        findings: Conditions.
        spent_by_day: Charges; None while no ledger tells them.
        existing: For the times of transitions.
        generation: Of the object.
        now_unix_seconds: Of the present periods.
    """
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "conditions": build_conditions(
            findings, existing.get("conditions", ()), generation, now_unix_seconds
        ),
    }
    if terms is None or spent_by_day is None or not terms.budgets:
        return status
    day = day_of(now_unix_seconds)
    budgets = []
    for budget in terms.budgets:
        spent = spent_in(budget.period, spent_by_day, day)
        budgets.append(
            {
                "period": budget.period.value,
                "action": budget.action.value,
                "spent": _money(spent),
                "remaining": _money(max(NOTHING, budget.amount_usd - spent)),
                "endsAt": timestamp(end_of(budget.period, day)),
            }
        )
    tightest = min(budgets, key=lambda entry: Decimal(entry["remaining"]))
    return status | {
        "budgets": budgets,
        "spent": tightest["spent"],
        "remaining": tightest["remaining"],
    }


def _money(amount: Decimal) -> str:
    # What is left is never rounded up, and all digits are in the ledger.
    return f"{amount.quantize(_CENT_OF_A_CENT, rounding=ROUND_FLOOR):f}"
