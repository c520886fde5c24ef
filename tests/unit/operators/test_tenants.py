"""Tenants: which object counts, what it asks for, what its status says, what capacity it pays."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from trierarch.api.v1alpha1.tenant import Tenant, TenantStatus
from trierarch.autoscaling.signals import HourlyBudget
from trierarch.core.identifiers import TenantId
from trierarch.cost.budgets import Action, Budget, Period, TenantTerms, day_of
from trierarch_operators.conditions import holds
from trierarch_operators.object_cache import Key
from trierarch_operators.runbook import PAGES
from trierarch_operators.tenants.allowances import PaidDeployment, build_allowances
from trierarch_operators.tenants.status import build_status, find_conditions
from trierarch_operators.tenants.terms import read_tenants

NOON = 86_400.0 * 20_000 + 43_200.0
TODAY = day_of(NOON)
FULL = {
    "allowedModels": ["m"],
    "priority": 5,
    "limits": {"requestsPerMinute": 6, "tokensPerMinute": 7, "parallelRequests": 8},
    "budgets": [
        {"period": "Month", "amount": "100.00", "action": "Throttle"},
        {"period": "Day", "amount": "9", "action": "Downgrade", "downgradeTo": "small"},
    ],
}


def tenant(name: str = "acme", namespace: str = "a", **fields: Any) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": namespace,
        "creationTimestamp": fields.pop("created", "2026-01-01T00:00:00Z"),
        **fields.pop("metadata", {}),
    }
    return {
        "apiVersion": "trierarch.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": metadata,
        "spec": fields,
    }


def test_every_field_reaches_the_terms() -> None:
    [reading] = read_tenants([tenant(**FULL)])
    assert reading.terms == TenantTerms(
        TenantId("acme"),
        allowed_models=frozenset({"m"}),  # type: ignore[arg-type]
        priority=5,
        requests_per_minute=6,
        tokens_per_minute=7,
        parallel_requests=8,
        budgets=(
            Budget(Period.MONTH, Decimal("100.00"), Action.THROTTLE),
            Budget(Period.DAY, Decimal(9), Action.DOWNGRADE, "small"),  # type: ignore[arg-type]
        ),
    )


def test_an_empty_spec_limits_nothing() -> None:
    [reading] = read_tenants([tenant()])
    assert reading.terms == TenantTerms(TenantId("acme"))


def test_of_two_objects_with_one_name_the_older_counts() -> None:
    younger = tenant(namespace="a", created="2026-02-01T00:00:00Z")
    older = tenant(namespace="b", created="2026-01-01T00:00:00Z")
    first, second = read_tenants([younger, older])
    assert (first.found, first.problem) == (older, None)
    assert (second.found, second.terms) == (younger, None)
    assert second.problem is not None
    assert second.problem.reason == "TenantNameTaken"
    assert "b/acme" in second.problem.message


def test_the_younger_one_takes_over_when_the_older_is_deleted() -> None:
    older = tenant(namespace="b", metadata={"deletionTimestamp": "2026-03-01T00:00:00Z"})
    younger = tenant(namespace="a", created="2026-02-01T00:00:00Z")
    [reading] = read_tenants([younger, older])
    assert reading.terms is not None


def test_an_object_that_cannot_be_read_says_so_and_stops_no_other() -> None:
    broken = tenant("broken", budgets=[{"period": "Week", "amount": "1"}])
    first, second = read_tenants([broken, tenant("other")])
    assert first.problem is not None
    assert first.problem.reason == "InvalidSpec"
    assert second.terms is not None


def status(
    spent: dict[int, Decimal] | None, existing: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    [reading] = read_tenants([tenant(**(fields or FULL))])
    assert reading.terms is not None
    findings = find_conditions(reading.terms, spent, NOON)
    assert {finding.reason for finding in findings} <= PAGES.keys()
    return build_status(reading.terms, findings, spent, existing or {}, 3, NOON)


def test_the_status_tells_each_budget_and_the_tightest() -> None:
    found = status({TODAY: Decimal("2.00005"), TODAY - 1: Decimal(96)})
    Tenant.model_validate({"spec": FULL, "status": found})
    assert found["observedGeneration"] == 3
    assert [(b["period"], b["spent"], b["remaining"]) for b in found["budgets"]] == [
        ("Month", "98.0000", "1.9999"),
        ("Day", "2.0000", "6.9999"),
    ]
    assert (found["spent"], found["remaining"]) == ("98.0000", "1.9999")
    assert {c["type"]: (c["status"], c["reason"]) for c in found["conditions"]} == {
        "Ready": ("True", "InForce"),
        "WithinBudget": ("True", "BudgetLeft"),
    }


def test_a_budget_that_is_used_up_is_named() -> None:
    found = status({TODAY: Decimal(9)})
    [within] = [c for c in found["conditions"] if c["type"] == "WithinBudget"]
    assert (within["status"], within["reason"]) == ("False", "BudgetUsedUp")
    assert "9 USD per day (Downgrade)" in within["message"]


def test_without_a_budget_and_without_a_ledger_no_figure_is_made_up() -> None:
    free = status({}, limits={"parallelRequests": 1})
    assert "budgets" not in free
    assert free["conditions"][1]["reason"] == "NoBudget"
    blind = status(None)
    assert blind.keys() == {"observedGeneration", "conditions"}
    [ready] = blind["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "LedgerMissing")


def test_the_same_facts_make_the_same_status() -> None:
    first = status({TODAY: Decimal(1)})
    again = status({TODAY: Decimal(1)}, first)
    assert again == first
    assert holds(again, first)
    assert TenantStatus.model_validate(first).remaining == "8.0000"


def paid(name: str, usd_per_hour: str | None, spent: str, **fields: Any) -> PaidDeployment:
    namespace = fields.pop("namespace", "a")
    budgets = fields.pop("budgets", (Budget(Period.DAY, Decimal(100)),))
    terms = TenantTerms(TenantId(fields.pop("tenant", "acme")), budgets=budgets)
    cost = None if usd_per_hour is None else Decimal(usd_per_hour)
    spends = {Period.DAY: Decimal(spent), Period.MONTH: Decimal(spent)}
    return PaidDeployment(Key(namespace, name), terms, cost, spends)


def test_what_is_left_of_a_budget_is_an_hourly_limit() -> None:
    found = build_allowances([paid("one", "3", "40")], NOON)
    # Sixty dollars for the twelve hours that are left; its own present cost is inside it.
    assert found == {Key("a", "one"): (HourlyBudget("acme per day", 5.0),)}


def test_deployments_of_one_tenant_share_its_budget() -> None:
    shared = [paid("one", "3", "40"), paid("two", "1.5", "20")]
    others = [paid("three", "50", "90", tenant="other"), paid("four", "9", "90", namespace="b")]
    found = build_allowances([*shared, *others], NOON)
    assert found[Key("a", "one")] == (HourlyBudget("acme per day", pytest.approx(40 / 12 - 1.5)),)
    assert found[Key("a", "two")] == (HourlyBudget("acme per day", pytest.approx(40 / 12 - 3)),)


def test_a_cost_that_nobody_knows_leaves_nothing_for_the_others() -> None:
    found = build_allowances([paid("one", "1", "0"), paid("two", None, "0")], NOON)
    assert found[Key("a", "one")][0].usd_per_hour == 0.0
    assert found[Key("a", "two")][0].usd_per_hour == pytest.approx(100 / 12 - 1)


def test_every_budget_limits() -> None:
    budgets = (Budget(Period.DAY, Decimal(24)), Budget(Period.MONTH, Decimal(10)))
    found = build_allowances([paid("one", "0", "10", budgets=budgets)], NOON)
    assert [b.usd_per_hour for b in found[Key("a", "one")]] == [pytest.approx(14 / 12), 0.0]
