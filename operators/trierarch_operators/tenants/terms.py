"""From Tenant objects to the terms that gateways enforce: pure.

API keys name a tenant by its name alone, so of several objects with one name only the oldest
counts; the others say so in their status.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from decimal import Decimal

from pydantic import ValidationError

from trierarch.api.v1alpha1.tenant import Tenant, TenantBudget, TenantSpec
from trierarch.core.identifiers import ModelName, TenantId
from trierarch.cost.budgets import Action, Budget, Period, TenantTerms
from trierarch_operators.conditions import Finding
from trierarch_operators.object_cache import Object, key_of


@dataclasses.dataclass(frozen=True, slots=True)
class TenantReading:
    """One Tenant object.

    Attributes:
        found: As it is in the cluster.
        terms: What it asks for; None if it does not count.
        problem: Why it does not count.
    """

    found: Object
    terms: TenantTerms | None
    problem: Finding | None = None


def read_tenants(found: Iterable[Object]) -> list[TenantReading]:
    """Return what every Tenant object means, those that are being deleted left out."""
    owners: dict[str, str] = {}
    readings = []
    for one in sorted(found, key=_age):
        if one["metadata"].get("deletionTimestamp"):
            continue
        key = key_of(one)
        owner = owners.setdefault(key.name, str(key))
        if owner != str(key):
            message = f"the older Tenant {owner} has this name, and API keys know only the name"
            readings.append(TenantReading(one, None, _not_ready("TenantNameTaken", message)))
            continue
        try:
            spec = Tenant.model_validate(one).spec
        except ValidationError as error:
            message = f"the object cannot be read: {error.errors()[0]['msg']}"
            readings.append(TenantReading(one, None, _not_ready("InvalidSpec", message)))
            continue
        readings.append(TenantReading(one, build_terms(key.name, spec)))
    return readings


def _age(found: Object) -> tuple[str, str]:
    return found["metadata"].get("creationTimestamp", ""), str(key_of(found))


def _not_ready(reason: str, message: str) -> Finding:
    return Finding("Ready", "False", reason, message)


def build_terms(name: str, spec: TenantSpec) -> TenantTerms:
    """Return the terms of one tenant."""
    models = frozenset(map(ModelName, spec.allowed_models))
    return TenantTerms(
        tenant=TenantId(name),
        allowed_models=models or None,
        priority=spec.priority,
        requests_per_minute=spec.limits.requests_per_minute,
        tokens_per_minute=spec.limits.tokens_per_minute,
        parallel_requests=spec.limits.parallel_requests,
        budgets=tuple(map(_build_budget, spec.budgets)),
    )


def _build_budget(fields: TenantBudget) -> Budget:
    return Budget(
        period=Period(fields.period.value),
        amount_usd=Decimal(fields.amount),
        action=Action(fields.action.value),
        downgrade_to=None if fields.downgrade_to is None else ModelName(fields.downgrade_to),
    )
