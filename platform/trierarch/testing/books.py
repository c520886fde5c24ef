"""Keys, rates and usage in memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping
from decimal import Decimal

from trierarch.core.identifiers import KeyId, ModelName, TenantId
from trierarch.core.quantities import TOKENS_PER_MILLION, ZERO_USD, Money, TokenCounts
from trierarch.core.usage import ServiceTier, UsageRecord
from trierarch.ports import ApiKey, TenantBook, TenantUsage


class InMemoryKeySource:
    """A ``KeySource`` that knows the keys it was given."""

    def __init__(self) -> None:
        self._by_hash: dict[bytes, ApiKey] = {}

    def add(
        self, text: str, tenant: str = "tenant", allowed_models: Iterable[str] | None = None
    ) -> ApiKey:
        """Make ``text`` a live key and return it."""
        digest = hashlib.sha256(text.encode()).digest()
        models = None if allowed_models is None else frozenset(map(ModelName, allowed_models))
        key = ApiKey(KeyId(f"key-{digest[:4].hex()}"), TenantId(tenant), models)
        self._by_hash[digest] = key
        return key

    def revoke(self, text: str) -> None:
        """Forget a key."""
        del self._by_hash[hashlib.sha256(text.encode()).digest()]

    def find(self, key_sha256: bytes) -> ApiKey | None:
        """Return the live key with this hash, or None."""
        return self._by_hash.get(key_sha256)


class InMemoryTenants:
    """A ``TenantSource`` that a test sets.

    Attributes:
        read: What the ledger would have told last.
    """

    def __init__(self) -> None:
        self.read = TenantBook()

    def book(self) -> TenantBook:
        """Return it."""
        return self.read


TEST_RATES = {
    "input": Decimal("0.10"),
    "cached": Decimal("0.025"),
    "output": Decimal("0.40"),
}
"""Dollars per million tokens."""


class FixedRateCard:
    """A ``RateCardSource`` with one rate per token class, the same for every model and tier."""

    def __init__(self, usd_per_million_tokens: Mapping[str, Decimal] | None = None) -> None:
        self._rates = dict(usd_per_million_tokens or TEST_RATES)

    def charge(
        self, model: ModelName, tier: ServiceTier, tokens: TokenCounts, at_unix_seconds: float
    ) -> Money:
        """Return the exact charge."""
        del model, tier, at_unix_seconds
        amount = (
            self._rates["input"] * (tokens.input_tokens - tokens.cached_tokens)
            + self._rates["cached"] * tokens.cached_tokens
            + self._rates["output"] * tokens.output_tokens
        )
        return Money(amount / TOKENS_PER_MILLION)


class InMemoryUsageSink:
    """A ``UsageSink`` that keeps the records and answers for totals; idempotent as a ledger is.

    Attributes:
        records: Everything recorded, in order, repeated request ids included.
    """

    def __init__(self) -> None:
        self.records: list[UsageRecord] = []
        self._lock = threading.Lock()

    def record(self, usage: UsageRecord) -> None:
        """Keep a record."""
        with self._lock:
            self.records.append(usage)

    async def usage_of(self, tenant: TenantId) -> TenantUsage:
        """Return a tenant's totals."""
        by_id = {record.request_id: record for record in reversed(self.records)}
        mine = [record for record in by_id.values() if record.tenant == tenant]
        tokens = sum((record.tokens for record in mine), TokenCounts())
        spend = sum((record.charge for record in mine), ZERO_USD)
        return TenantUsage(len(mine), tokens, spend)
