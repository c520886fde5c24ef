"""``GET /v1/usage``: the caller's own tokens, spend and budgets."""

from __future__ import annotations

from typing import Any

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
        "budgets": [],
    }


ENDPOINTS: tuple[Endpoint, ...] = (LocalEndpoint("/v1/usage", show_usage),)
