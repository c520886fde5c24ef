"""Keys, rates and usage in memory."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from trierarch.core.clock import Clock, SystemClock
from trierarch.core.errors import Unavailable
from trierarch.core.identifiers import HolderId, KeyId, ModelName, TenantId
from trierarch.core.quantities import TOKENS_PER_MILLION, ZERO_USD, Money, TokenCounts
from trierarch.core.usage import ServiceTier, UsageRecord
from trierarch.cost.leases import Lease, LeaseAsk, LeaseRound, answer_ask
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
    """A ``TenantSource`` that a test sets; leases by the rules of the ledger.

    Attributes:
        read: What the ledger would have told last.
        leases: By tenant and holder, as the ledger would keep them.
        wanted: Tenants of whom others lack what is held here.
        is_away: The ledger does not answer.
    """

    lease_seconds = 30.0

    def __init__(self, holder: str = "one", clock: Clock | None = None) -> None:
        self.holder = HolderId(holder)
        self.read = TenantBook()
        self.leases: dict[TenantId, dict[HolderId, Lease]] = defaultdict(dict)
        self.wanted: frozenset[TenantId] = frozenset()
        self.is_away = False
        self._clock = clock or SystemClock()

    def book(self) -> TenantBook:
        """Return it."""
        return self.read

    def exchange_leases(self, asks: Sequence[LeaseAsk]) -> LeaseRound:
        """Renew, grant and take back leases.

        Raises:
            Unavailable: If a test says so.
        """
        if self.is_away:
            raise Unavailable("the ledger is away")
        answers = []
        for ask in asks:
            lease, answer = answer_ask(
                ask,
                self.read.terms.get(ask.tenant),
                self.read.spent_by_day.get(ask.tenant, {}),
                list(self.leases[ask.tenant].values()),
                now_unix_seconds=self._clock.unix_seconds(),
                lease_seconds=self.lease_seconds,
            )
            self.leases[ask.tenant][ask.holder] = lease
            answers.append(answer)
        return LeaseRound(answers, self.wanted)


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
