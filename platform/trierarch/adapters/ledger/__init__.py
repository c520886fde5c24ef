"""The ledger database: usage, capacity, allocations, decisions, keys, prices."""

from trierarch.adapters.ledger.caches import CachedKeySource, CachedRateCard
from trierarch.adapters.ledger.capacity import CapacityUnit, ObservedReplica
from trierarch.adapters.ledger.keys import StoredKey, key_sha256
from trierarch.adapters.ledger.ledger import Ledger
from trierarch.adapters.ledger.reports import CurrentSpend, SpendRate

__all__ = [
    "CachedKeySource",
    "CachedRateCard",
    "CapacityUnit",
    "CurrentSpend",
    "Ledger",
    "ObservedReplica",
    "SpendRate",
    "StoredKey",
    "key_sha256",
]
