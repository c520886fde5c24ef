"""A Tenant reaches the ledger, where gateways read it, and its status tells what was spent."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from trierarch.adapters.ledger import Ledger
from trierarch.core.clock import SystemClock
from trierarch.core.identifiers import (
    KeyId,
    ModelName,
    ReplicaId,
    RequestId,
    TenantId,
    VariantName,
)
from trierarch.core.quantities import Money, TokenCounts
from trierarch.core.usage import Outcome, ServiceTier, UsageRecord
from trierarch.cost.budgets import TenantTerms

from .conftest import Cluster, StartOperator, wait_for
from .test_decisions import accelerator, decided, deployment, gateway, status_of

pytestmark = pytest.mark.cluster

__all__ = ["accelerator", "gateway"]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    found = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", SystemClock())
    yield found
    found.close()


@pytest.fixture
def name() -> str:
    return f"t{secrets.token_hex(3)}"


def tenant(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "trierarch.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": name},
        "spec": spec,
    }


def usage(name: str, charge: str) -> UsageRecord:
    now = SystemClock().unix_seconds()
    return UsageRecord(
        request_id=RequestId(secrets.token_hex(8)),
        tenant=TenantId(name),
        key_id=KeyId("trk_x"),
        model=ModelName("m"),
        variant=VariantName("v"),
        tier=ServiceTier.DEFAULT,
        tokens=TokenCounts(1, 0, 1),
        outcome=Outcome.COMPLETED,
        charge=Money(Decimal(charge)),
        replica_id=ReplicaId("r"),
        started_unix_seconds=now,
        finished_unix_seconds=now,
    )


def condition(cluster: Cluster, namespace: str, name: str, kind: str) -> tuple[str, str]:
    found = cluster.get("Tenant", namespace, name) or {}
    for one in found.get("status", {}).get("conditions", ()):
        if one["type"] == kind:
            return one["status"], one["reason"]
    return "", ""


def events(cluster: Cluster, namespace: str) -> set[str]:
    return {event["reason"] for event in cluster.list("Event", namespace)}


def test_terms_reach_the_ledger_change_there_and_leave_it(
    cluster: Cluster,
    namespace: str,
    name: str,
    ledger: Ledger,
    tmp_path: Path,
    start_operator: StartOperator,
) -> None:
    settings = {"LEDGER_URL": f"sqlite:///{tmp_path / 'ledger.db'}", "COST_INTERVAL_SECONDS": "1"}
    start_operator(**settings).wait_until_it_leads()

    def terms() -> TenantTerms | None:
        return ledger.tenant_book().terms.get(TenantId(name))

    budget = {"period": "Month", "amount": "10.00"}
    cluster.apply(
        tenant(name, allowedModels=["m"], limits={"parallelRequests": 3}, budgets=[budget]),
        namespace,
    )
    wait_for(terms, "the terms to be in the ledger")
    wait_for(
        lambda: condition(cluster, namespace, name, "Ready") == ("True", "InForce"), "the status"
    )
    ledger.record_usage([usage(name, "4.25")])

    def left() -> str:
        found = cluster.get("Tenant", namespace, name) or {}
        return str(found.get("status", {}).get("remaining"))

    wait_for(lambda: left() == "5.7500", "what is left to be told")
    ledger.record_usage([usage(name, "5.75")])
    wait_for(
        lambda: condition(cluster, namespace, name, "WithinBudget") == ("False", "BudgetUsedUp"),
        "the budget to be used up",
    )
    wait_for(lambda: "BudgetUsedUp" in events(cluster, namespace), "an Event")

    cluster.apply(tenant(name, priority=4), namespace)
    wait_for(lambda: (found := terms()) is not None and found.priority == 4, "the change")
    path = f"/apis/trierarch.dev/v1alpha1/namespaces/{namespace}/tenants/{name}"
    cluster.ask("DELETE", path)
    wait_for(lambda: terms() is None, "the terms to be gone")


def test_without_a_ledger_a_tenant_says_that_nothing_is_enforced(
    cluster: Cluster, namespace: str, name: str, start_operator: StartOperator
) -> None:
    start_operator(COST_INTERVAL_SECONDS="1").wait_until_it_leads()
    cluster.apply(tenant(name), namespace)
    wait_for(
        lambda: condition(cluster, namespace, name, "Ready") == ("False", "LedgerMissing"),
        "the tenant to say so",
    )


def test_a_tenants_budget_limits_the_groups_it_pays_for(
    cluster: Cluster,
    namespace: str,
    name: str,
    accelerator: str,
    gateway: str,
    tmp_path: Path,
    start_operator: StartOperator,
) -> None:
    """Forty requests wait, and sixteen dollars an hour for a group are more than is left."""
    cluster.apply(tenant(name, budgets=[{"period": "Month", "amount": "0.50"}]), namespace)
    manifest = deployment(accelerator)
    manifest["spec"]["tenant"] = name
    cluster.create(manifest, namespace)
    operator = start_operator(
        LEDGER_URL=f"sqlite:///{tmp_path / 'ledger.db'}",
        COST_INTERVAL_SECONDS="1",
        GATEWAY_ADMIN_URL=gateway,
    )
    operator.wait_until_it_leads()
    wait_for(lambda: decided(cluster, namespace) == "Budget", "the budget to bind")
    last = status_of(cluster, namespace)["lastDecision"]
    assert name in last["message"]
    [variant] = status_of(cluster, namespace)["variants"]
    assert variant["desiredReplicas"] == 0

    cluster.apply(tenant(name, budgets=[{"period": "Month", "amount": "1000000"}]), namespace)

    def is_growing() -> bool:
        [variant] = status_of(cluster, namespace)["variants"]
        return bool(variant["desiredReplicas"])

    wait_for(is_growing, "the larger budget to allow a group")
