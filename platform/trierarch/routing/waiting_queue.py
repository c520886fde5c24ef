"""Waiting requests: by tier, inside one by their tenant's priority, then first come first served.

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

    __slots__ = ("_depths", "_lines", "_tokens")

    def __init__(self) -> None:
        self._lines: dict[ServiceTier, dict[int, OrderedDict[Item, int]]] = {
            tier: {} for tier in TIER_ORDER
        }
        self._depths: dict[ServiceTier, int] = dict.fromkeys(TIER_ORDER, 0)
        self._tokens: dict[ServiceTier, int] = dict.fromkeys(TIER_ORDER, 0)

    def __len__(self) -> int:
        return sum(self._depths.values())

    def __iter__(self) -> Iterator[Item]:
        for tier in TIER_ORDER:
            yield from self.of_tier(tier)

    def of_tier(self, tier: ServiceTier) -> Iterator[Item]:
        """Return the waiting requests of one tier, the next one first."""
        lines = self._lines[tier]
        for priority in sorted(lines, reverse=True):
            yield from lines[priority]

    def append(self, item: Item, tier: ServiceTier, tokens: int, priority: int = 0) -> None:
        """Put a new request at the end of those of its tier and priority."""
        line = self._lines[tier].setdefault(priority, OrderedDict())
        line[item] = tokens
        self._depths[tier] += 1
        self._tokens[tier] += tokens

    def put_back(self, item: Item, tier: ServiceTier, tokens: int, priority: int = 0) -> None:
        """Put a request whose attempt failed in front of its line: it came before all of them."""
        self.append(item, tier, tokens, priority)
        self._lines[tier][priority].move_to_end(item, last=False)

    def remove(self, item: Item, tier: ServiceTier, priority: int = 0) -> bool:
        """Take a request out; return whether it was waiting."""
        line = self._lines[tier].get(priority)
        tokens = None if line is None else line.pop(item, None)
        if line is None or tokens is None:
            return False
        if not line:
            del self._lines[tier][priority]
        self._depths[tier] -= 1
        self._tokens[tier] -= tokens
        return True

    def has_waiting_at_or_above(self, tier: ServiceTier) -> bool:
        """Return whether somebody waits whom a new request of this tier may not overtake."""
        for other in TIER_ORDER:
            if self._depths[other]:
                return True
            if other is tier:
                return False
        return False

    def depth(self, tier: ServiceTier) -> int:
        """Return how many requests of a tier wait."""
        return self._depths[tier]

    def waiting_tokens(self, tier: ServiceTier) -> int:
        """Return the estimated tokens of a tier's waiting requests."""
        return self._tokens[tier]
