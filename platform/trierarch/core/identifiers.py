"""Names of things, one type each, so that a checker tells them apart."""

from typing import NewType

ModelName = NewType("ModelName", str)
"""The served name a client writes in ``model``."""

VariantName = NewType("VariantName", str)
"""One way to run a model: accelerator, capacity type, parallelism, price."""

ReplicaId = NewType("ReplicaId", str)
"""One running expert-parallel group."""

TenantId = NewType("TenantId", str)
"""Who pays."""

KeyId = NewType("KeyId", str)
"""Public part of an API key: safe to log and to store."""

RequestId = NewType("RequestId", str)
"""One request at the gateway; the ledger's idempotency key."""

HolderId = NewType("HolderId", str)
"""One gateway process in its time with one set of leases; a new one after each start."""

DecisionId = NewType("DecisionId", str)
"""One scaling decision."""
