"""Pick the replica with the least work in front of it.

Work is counted in tokens, not requests: one prompt of a hundred thousand tokens
keeps an engine busier than a hundred short ones. Only ready replicas with a
free place take part; the caller passes the tie-break, so equal loads rotate and
a replayed run picks the same replicas.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable

from trierarch.core.identifiers import ReplicaId
from trierarch.core.replicas import ReplicaEndpoint, ReplicaState
from trierarch.routing.ejection import HEALTHY, ReplicaHealth


@dataclasses.dataclass(slots=True)
class ReplicaLoad:
    """What one gateway has given one replica and not yet got back.

    Attributes:
        endpoint: Where it listens and what it can do now.
        ongoing_requests: Requests sent to it and not finished.
        outstanding_tokens: Estimated tokens those requests still need.
        health: Recent failures and how long they keep it out of the choice.
    """

    endpoint: ReplicaEndpoint
    ongoing_requests: int = 0
    outstanding_tokens: int = 0
    health: ReplicaHealth = HEALTHY

    def take(self, tokens: int) -> None:
        """Count a request that is about to be sent."""
        self.ongoing_requests += 1
        self.outstanding_tokens += tokens

    def give_back(self, tokens: int) -> None:
        """Count a request that has ended."""
        self.ongoing_requests -= 1
        self.outstanding_tokens -= tokens


def is_eligible(
    load: ReplicaLoad,
    *,
    now_seconds: float,
    max_ongoing_requests: int,
    excluded: Collection[ReplicaId] = (),
) -> bool:
    """Return whether a request may be sent to this replica now."""
    return (
        load.endpoint.state is ReplicaState.READY
        and load.ongoing_requests < max_ongoing_requests
        and now_seconds >= load.health.ejected_until_seconds
        and load.endpoint.replica_id not in excluded
    )


def choose_replica(
    loads: Iterable[ReplicaLoad],
    *,
    now_seconds: float,
    max_ongoing_requests: int,
    excluded: Collection[ReplicaId] = (),
    tie_break: int = 0,
) -> ReplicaLoad | None:
    """Return the eligible replica with the fewest outstanding tokens, or None.

    Args:
        loads: Replicas of one model, in a stable order.
        now_seconds: Monotonic time, for ejections.
        max_ongoing_requests: A replica with this many requests takes no more.
        excluded: Replicas this request has already failed on.
        tie_break: Rotates among equals; a counter spreads them evenly.

    Returns:
        The choice; its counters are not changed.
    """
    best: list[ReplicaLoad] = []
    best_tokens = 0
    best_requests = 0
    for load in loads:
        if not is_eligible(
            load,
            now_seconds=now_seconds,
            max_ongoing_requests=max_ongoing_requests,
            excluded=excluded,
        ):
            continue
        tokens, requests = load.outstanding_tokens, load.ongoing_requests
        if not best or (tokens, requests) < (best_tokens, best_requests):
            best, best_tokens, best_requests = [load], tokens, requests
        elif tokens == best_tokens and requests == best_requests:
            best.append(load)
    if not best:
        return None
    return best[tie_break % len(best)]
