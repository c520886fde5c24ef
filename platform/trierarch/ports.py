"""What the callers of decisions need from outside, as protocols.

Adapters implement them for real; ``trierarch.testing`` holds public fakes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from trierarch.core.identifiers import HolderId, KeyId, ModelName, TenantId
from trierarch.core.quantities import Money, TokenCounts
from trierarch.core.replicas import ReplicaEndpoint
from trierarch.core.usage import ServiceTier, UsageRecord
from trierarch.cost.budgets import TenantTerms
from trierarch.cost.leases import LeaseAsk, LeaseRound


@dataclasses.dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key: its hash is known, its text is not.

    Attributes:
        key_id: Public part, safe to log.
        tenant: Who pays.
        allowed_models: None allows all.
    """

    key_id: KeyId
    tenant: TenantId
    allowed_models: frozenset[ModelName] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class TenantUsage:
    """A tenant's own totals since its first request."""

    requests: int
    tokens: TokenCounts
    spend: Money


_NO_TERMS: Mapping[TenantId, TenantTerms] = {}
_NO_SPEND: Mapping[TenantId, Mapping[int, Decimal]] = {}


@dataclasses.dataclass(frozen=True, slots=True)
class TenantBook:
    """All tenants that somebody has set terms for.

    Attributes:
        terms: By tenant; one without terms is not limited.
        spent_by_day: Dollars charged, by tenant and calendar day (``cost.budgets.day_of``),
            since the month began.
        settled_records: How many of this process's usage records the charges include.
    """

    terms: Mapping[TenantId, TenantTerms] = dataclasses.field(default_factory=lambda: _NO_TERMS)
    spent_by_day: Mapping[TenantId, Mapping[int, Decimal]] = dataclasses.field(
        default_factory=lambda: _NO_SPEND
    )
    settled_records: int = 0


class TenantSource(Protocol):
    """What tenants may do and spend."""

    def book(self) -> TenantBook:
        """Return what was last read; must not block on I/O."""
        ...

    @property
    def holder(self) -> HolderId:
        """Return the name under which this process leases."""
        ...

    @property
    def lease_seconds(self) -> float:
        """Return how long a lease lives without being renewed."""
        ...

    def exchange_leases(self, asks: Sequence[LeaseAsk]) -> LeaseRound:
        """Renew, grant and take back leases; blocks.

        Raises:
            Unavailable: If the ledger does not answer; asking again is harmless.
        """
        ...


class ReplicaSource(Protocol):
    """Where replicas are and what they can do now."""

    async def replicas(self) -> Sequence[ReplicaEndpoint]:
        """Return every replica known now.

        Raises:
            Unavailable: If the source does not answer; the caller keeps its last answer.
        """
        ...


class ReplicaTarget(Protocol):
    """Acts on a decision."""

    async def scale(self, model: ModelName, desired_replicas: int) -> None:
        """Ask for exactly ``desired_replicas``; idempotent.

        Raises:
            Unavailable: If the request did not arrive.
        """
        ...


class KeySource(Protocol):
    """Looks API keys up by the SHA-256 of their text."""

    def find(self, key_sha256: bytes) -> ApiKey | None:
        """Return the live key with this hash, or None; must not block on I/O."""
        ...


class RateCardSource(Protocol):
    """What a request is charged."""

    def charge(
        self, model: ModelName, tier: ServiceTier, tokens: TokenCounts, at_unix_seconds: float
    ) -> Money:
        """Return the exact charge by the rates in force at that time; must not block on I/O."""
        ...


class UsageSink(Protocol):
    """Takes finished requests; durable after a bounded delay."""

    def record(self, usage: UsageRecord) -> None:
        """Accept a record; must not block the event loop."""
        ...
