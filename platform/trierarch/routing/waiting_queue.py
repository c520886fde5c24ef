"""Waiting requests: by tier, then their tenant's priority, then arrival, with late ones last.

Priority goes before default, default before flex, always: flex is sold as
"waits for spare capacity". Inside a line whoever can no longer be answered in time
goes behind those who still can be: once a line is longer than the promised time to
first token, answering strictly in order of arrival makes everybody late (eager
relegation; Niyama, 2025). The depth and the waiting tokens by tier are the
autoscaler's first signal, so they are kept as counters, not counted on demand.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from trierarch.core.usage import ServiceTier

TIER_ORDER = (ServiceTier.PRIORITY, ServiceTier.DEFAULT, ServiceTier.FLEX)
"""Who goes first."""

LONGEST_WAIT_RATIO = 0.5
"""Share of the promised time to first token that may pass in line; the engine needs the rest for
the prompt. Shares from a quarter to 0.7 served about as many in time on the DeepSeek-R1 trace."""

Item = TypeVar("Item")


def longest_wait_seconds(promised_ttft_seconds: float | None) -> float:
    """Return for how long a request may wait and still be in time; for ever without a promise."""
    if promised_ttft_seconds is None:
        return math.inf
    return LONGEST_WAIT_RATIO * promised_ttft_seconds


class _Line(Generic[Item]):
    """Requests of one tier and priority with their tokens, the next ones first."""

    __slots__ = ("in_time", "late")

    def __init__(self) -> None:
        self.in_time: OrderedDict[Item, int] = OrderedDict()
        self.late: OrderedDict[Item, int] = OrderedDict()

    def __iter__(self) -> Iterator[Item]:
        yield from self.in_time
        yield from self.late

    def pop(self, item: Item) -> int | None:
        """Take a request out; return its tokens, or None if it is not here."""
        tokens = self.in_time.pop(item, None)
        return self.late.pop(item, None) if tokens is None else tokens


class WaitingQueue(Generic[Item]):
    """An ordered collection of requests that wait for a place at a replica."""

    __slots__ = ("_depths", "_lines", "_tokens")

    def __init__(self) -> None:
        self._lines: dict[ServiceTier, dict[int, _Line[Item]]] = {tier: {} for tier in TIER_ORDER}
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
        """Put a new request behind those of its tier and priority that can be in time."""
        self._line(tier, priority).in_time[item] = tokens
        self._depths[tier] += 1
        self._tokens[tier] += tokens

    def put_back(
        self,
        item: Item,
        tier: ServiceTier,
        tokens: int,
        priority: int = 0,
        *,
        is_late: bool = False,
    ) -> None:
        """Put a request whose attempt failed in front of its like: it had its turn before them."""
        line = self._line(tier, priority)
        part = line.late if is_late else line.in_time
        part[item] = tokens
        part.move_to_end(item, last=False)
        self._depths[tier] += 1
        self._tokens[tier] += tokens

    def _line(self, tier: ServiceTier, priority: int) -> _Line[Item]:
        lines = self._lines[tier]
        line = lines.get(priority)
        if line is None:
            line = lines[priority] = _Line()
        return line

    def relegate(self, is_late: Callable[[Item], bool]) -> Sequence[Item]:
        """Put those who can no longer be in time last in their lines; return them.

        A line is looked at from its front up to the first who can be in time: whoever is behind
        came later. Flex requests are promised no time and keep their order.
        """
        relegated: list[Item] = []
        for tier in (ServiceTier.PRIORITY, ServiceTier.DEFAULT):
            for line in self._lines[tier].values():
                while line.in_time:
                    item = next(iter(line.in_time))
                    if not is_late(item):
                        break
                    line.late[item] = line.in_time.pop(item)
                    relegated.append(item)
        return relegated

    def remove(self, item: Item, tier: ServiceTier, priority: int = 0) -> bool:
        """Take a request out; return whether it was waiting."""
        line = self._lines[tier].get(priority)
        tokens = None if line is None else line.pop(item)
        if line is None or tokens is None:
            return False
        if not line.in_time and not line.late:
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
