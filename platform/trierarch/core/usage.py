"""What one request used: the row that metering writes and money is counted from."""

from __future__ import annotations

import dataclasses
from enum import StrEnum

from trierarch.core.identifiers import (
    HolderId,
    KeyId,
    ModelName,
    ReplicaId,
    RequestId,
    TenantId,
    VariantName,
)
from trierarch.core.quantities import Money, TokenCounts


class Outcome(StrEnum):
    """How a request ended."""

    COMPLETED = "completed"
    ABORTED = "aborted"
    """The client went away, or its budget was used up; what was generated until then counts."""
    FAILED = "failed"
    """The engine failed; charged nothing."""
    SHED = "shed"
    """Refused before it reached an engine; charged nothing."""
    MIGRATED = "migrated"
    """Completed, but begun on a replica that was lost after the first byte."""

    @property
    def is_whole(self) -> bool:
        """Whether the client has the whole answer."""
        return self in (Outcome.COMPLETED, Outcome.MIGRATED)


class ServiceTier(StrEnum):
    """Lanes of the gateway."""

    PRIORITY = "priority"
    DEFAULT = "default"
    FLEX = "flex"


NO_HOLDER = HolderId("")
"""Of a request whose tenant has no budget."""


@dataclasses.dataclass(frozen=True, slots=True)
class UsageRecord:
    """One finished request.

    Attributes:
        request_id: Idempotency key: a second record with the same id is ignored.
        finished_unix_seconds: Wall time at the end of the request.
        charge: By the rate card in force when the request started.
        trace_id: 32 hex digits, or empty.
        replica_id: Who served it; empty if nobody did.
        holder: Whose lease of the tenant's budgets the charge was reserved on; empty if none.
    """

    request_id: RequestId
    tenant: TenantId
    key_id: KeyId
    model: ModelName
    variant: VariantName
    tier: ServiceTier
    tokens: TokenCounts
    outcome: Outcome
    charge: Money
    replica_id: ReplicaId
    started_unix_seconds: float
    finished_unix_seconds: float
    trace_id: str = ""
    holder: HolderId = NO_HOLDER
