"""Waiting requests: by tier, first come first served inside one.

Priority goes before default, default before flex, always: flex is sold as
"waits for spare capacity". The depth and the waiting tokens by tier are the
autoscaler's first signal, so they are kept as counters, not counted on demand.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

from trierarch.core.usage import ServiceTier

TIER_ORDER = (ServiceTier.PRIORITY, ServiceTier.DEFAULT, ServiceTier.FLEX)
"""Who goes first."""

Item = TypeVar("Item")


class WaitingQueue(Generic[Item]):
    """An ordered collection of requests that wait for a place at a replica."""

    __slots__ = ("_entries", "_tokens")

    def __init__(self) -> None:
        self._entries: dict[ServiceTier, OrderedDict[Item, int]] = {
            tier: OrderedDict() for tier in TIER_ORDER
        }
        self._tokens: dict[ServiceTier, int] = dict.fromkeys(TIER_ORDER, 0)

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    def __iter__(self) -> Iterator[Item]:
        for tier in TIER_ORDER:
            yield from self._entries[tier]

    def of_tier(self, tier: ServiceTier) -> Iterator[Item]:
        """Return the waiting requests of one tier, the next one first."""
        return iter(self._entries[tier])

    def append(self, item: Item, tier: ServiceTier, tokens: int) -> None:
        """Put a new request at the end of its tier."""
        self._entries[tier][item] = tokens
        self._tokens[tier] += tokens

    def put_back(self, item: Item, tier: ServiceTier, tokens: int) -> None:
        """Put a request whose attempt failed in front of its tier: it came before all of them."""
        self.append(item, tier, tokens)
        self._entries[tier].move_to_end(item, last=False)

    def remove(self, item: Item, tier: ServiceTier) -> bool:
        """Take a request out; return whether it was waiting."""
        tokens = self._entries[tier].pop(item, None)
        if tokens is None:
            return False
        self._tokens[tier] -= tokens
        return True

    def has_waiting_at_or_above(self, tier: ServiceTier) -> bool:
        """Return whether somebody waits whom a new request of this tier may not overtake."""
        for other in TIER_ORDER:
            if self._entries[other]:
                return True
            if other is tier:
                return False
        return False

    def depth(self, tier: ServiceTier) -> int:
        """Return how many requests of a tier wait."""
        return len(self._entries[tier])

    def waiting_tokens(self, tier: ServiceTier) -> int:
        """Return the estimated tokens of a tier's waiting requests."""
        return self._tokens[tier]
