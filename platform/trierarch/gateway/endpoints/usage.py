"""``GET /v1/usage``: the caller's own tokens, spend and budgets."""

from __future__ import annotations

from typing import Any

from trierarch.gateway.admission.tenants import BudgetLeft
from trierarch.gateway.endpoints.endpoint import Endpoint, LocalContext, LocalEndpoint
from trierarch.ports import ApiKey


async def show_usage(context: LocalContext, key: ApiKey, _name: str) -> dict[str, Any]:
    """Return the totals of the tenant that owns the key."""
    usage = await context.usage_of(key.tenant)
    return {
        "object": "usage",
        "tenant": key.tenant,
        "requests": usage.requests,
        "tokens": {
            "input": usage.tokens.input_tokens,
            "cached": usage.tokens.cached_tokens,
            "output": usage.tokens.output_tokens,
        },
        "spend": {"amount": str(usage.spend), "currency": usage.spend.currency},
        "budgets": [_budget(left) for left in context.budgets_of(key.tenant)],
    }


def _budget(left: BudgetLeft) -> dict[str, Any]:
    budget = left.budget
    return {
        "period": budget.period.value,
        "action": budget.action.value,
        "amount": f"{budget.amount_usd:f}",
        "spent": f"{left.spent_usd:f}",
        "remaining": f"{left.remaining_usd:f}",
        "currency": "USD",
        "ends_at": int(left.ends_unix_seconds),
    }


ENDPOINTS: tuple[Endpoint, ...] = (LocalEndpoint("/v1/usage", show_usage),)
