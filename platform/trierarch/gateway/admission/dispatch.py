"""Give a request a place at a replica, or let it wait at the gateway.

Replicas take a bounded number of requests; the rest waits here, ordered by
tier, because what waits inside an engine can neither be reordered nor moved to
a replica that has just become ready, and because the autoscaler scales on this
queue. The queue is looked at whenever something may have changed: a request
ended, the replica list changed, an ejection ran out. Who has waited too long to
be answered as promised then goes behind those of the same tier who can be.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Iterable, Mapping

from trierarch.core.admission import OPEN, Admission
from trierarch.core.identifiers import ReplicaId
from trierarch.core.objectives import LatencyPromise
from trierarch.core.replicas import ReplicaState
from trierarch.core.usage import ServiceTier
from trierarch.gateway.errors import GatewayError
from trierarch.routing.ejection import HEALTHY, FailureKind, after_failure
from trierarch.routing.replica_selection import ReplicaLoad, choose_replica
from trierarch.routing.waiting_queue import TIER_ORDER, WaitingQueue, longest_wait_seconds


class Ticket:
    """One request's claim to a place.

    Attributes:
        tier: Lane.
        tokens: Estimated work.
        excluded: Replicas it has failed on.
        deadline_seconds: Monotonic time until which it may wait, over all its attempts.
        release_seconds: Monotonic time from which a closed lane holds it no longer.
        priority: Of its tenant; higher goes first inside its tier.
        came_seconds: Monotonic time at which it came; infinite once its first token is out, which
            can be late no longer.
        is_relegated: It has been put behind those that can be in time.
    """

    __slots__ = (
        "came_seconds",
        "deadline_seconds",
        "excluded",
        "future",
        "is_relegated",
        "priority",
        "release_seconds",
        "tier",
        "timer",
        "tokens",
    )

    def __init__(
        self,
        tier: ServiceTier,
        tokens: int,
        deadline_seconds: float,
        release_seconds: float = -math.inf,
        priority: int = 0,
        *,
        came_seconds: float,
    ) -> None:
        self.tier = tier
        self.tokens = tokens
        self.excluded: set[ReplicaId] = set()
        self.deadline_seconds = deadline_seconds
        self.release_seconds = release_seconds
        self.priority = priority
        self.came_seconds = came_seconds
        self.is_relegated = False
        self.future: asyncio.Future[ReplicaLoad] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def renew(self, deadline_seconds: float) -> None:
        """Claim another place for a stream that lost its own after its first token."""
        self.deadline_seconds = deadline_seconds
        self.came_seconds = math.inf


class ModelDispatcher:
    """Places and queue of one model.

    Args:
        monotonic_seconds: Clock.
        max_ongoing_requests: Per replica.
        max_queued_requests: Of this model: flex requests, and all others together.
        note_relegated: Called for each request that goes behind those that can be in time.

    Attributes:
        admission: What the autoscaler says of the lanes.
        promise: The model's latency objective; None leaves requests in order of arrival.
        queue: Requests that wait.
        loads: The model's replicas.
        ongoing_requests: Requests at replicas, those that drain or have left the list included.
        ongoing_flex_requests: The part of them that is flex.
        outstanding_tokens: Estimated tokens of those requests.
    """

    def __init__(
        self,
        monotonic_seconds: Callable[[], float],
        *,
        max_ongoing_requests: int,
        max_queued_requests: int,
        note_relegated: Callable[[ServiceTier], None] = lambda _tier: None,
    ) -> None:
        self._monotonic_seconds = monotonic_seconds
        self._max_ongoing_requests = max_ongoing_requests
        self._max_queued_requests = max_queued_requests
        self._note_relegated = note_relegated
        self._turn = itertools.count()
        self._wake: asyncio.TimerHandle | None = None
        self.admission = OPEN
        self.promise: LatencyPromise | None = None
        self.queue: WaitingQueue[Ticket] = WaitingQueue()
        self.loads: list[ReplicaLoad] = []
        self.ongoing_requests = 0
        self.ongoing_flex_requests = 0
        self.outstanding_tokens = 0

    # --- places -----------------------------------------------------------------------

    def try_place(self, ticket: Ticket) -> ReplicaLoad | None:
        """Return a replica with its place taken, or None if the request has to wait."""
        if self.queue.has_waiting_at_or_above(ticket.tier) or self._is_held(ticket):
            return None
        return self._take_place(ticket)

    def _is_held(self, ticket: Ticket) -> bool:
        """Return whether the closed flex lane keeps a request from taking a place."""
        return (
            ticket.tier is ServiceTier.FLEX
            and not self.admission.flex_open
            and self._monotonic_seconds() < ticket.release_seconds
        )

    def _take_place(self, ticket: Ticket) -> ReplicaLoad | None:
        load = choose_replica(
            self.loads,
            now_seconds=self._monotonic_seconds(),
            max_ongoing_requests=self._max_ongoing_requests,
            excluded=ticket.excluded,
            tie_break=next(self._turn),
        )
        if load is not None:
            load.take(ticket.tokens)
            self.ongoing_requests += 1
            self.ongoing_flex_requests += ticket.tier is ServiceTier.FLEX
            self.outstanding_tokens += ticket.tokens
        return load

    def is_full(self, tier: ServiceTier) -> bool:
        """Return whether a new request of a tier may not even wait.

        Flex requests wait by the hundred while their lane is closed; they take no place in the
        line from the others.
        """
        flex = self.queue.depth(ServiceTier.FLEX)
        waiting = flex if tier is ServiceTier.FLEX else len(self.queue) - flex
        return waiting >= self._max_queued_requests

    async def wait(
        self, ticket: Ticket, *, came_before: bool, timeout_error: Callable[[], GatewayError]
    ) -> ReplicaLoad:
        """Wait for a place.

        Args:
            ticket: The claim.
            came_before: The request had a place and lost it; it goes to the front of its tier, or
                of those that are late if it is one of them.
            timeout_error: What to raise when its time is over.

        Raises:
            GatewayError: If no place came in time.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ReplicaLoad] = loop.create_future()
        ticket.future = future
        if came_before:
            ticket.release_seconds = -math.inf
            is_late = self._is_late(ticket, self._latest_arrival_seconds())
            if is_late:
                self._count_relegated(ticket)
            self.queue.put_back(
                ticket, ticket.tier, ticket.tokens, ticket.priority, is_late=is_late
            )
        else:
            self.queue.append(ticket, ticket.tier, ticket.tokens, ticket.priority)

        def give_up() -> None:
            if not future.done():
                future.set_exception(timeout_error())

        wait_seconds = max(0.0, ticket.deadline_seconds - self._monotonic_seconds())
        timer = loop.call_later(wait_seconds, give_up)
        # A place may be free that those who wait cannot use, but this request can.
        self.pump()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                # The place came in the same moment as the cancellation: pass it on.
                self.release(future.result(), ticket.tier, ticket.tokens)
            raise
        finally:
            timer.cancel()
            ticket.future = None
            self.queue.remove(ticket, ticket.tier, ticket.priority)

    def release(self, load: ReplicaLoad, tier: ServiceTier, tokens: int) -> None:
        """Give a place back, with what is left of its tokens, and let the next one have it."""
        load.give_back(tokens)
        self.ongoing_requests -= 1
        self.ongoing_flex_requests -= tier is ServiceTier.FLEX
        self.outstanding_tokens -= tokens
        self.pump()

    def reduce_work(self, load: ReplicaLoad, tokens: int) -> None:
        """Count a part of a running request's tokens as done."""
        load.outstanding_tokens -= tokens
        self.outstanding_tokens -= tokens

    def _latest_arrival_seconds(self) -> float:
        """Return the monotonic time before which a waiting request came too early to be in time."""
        promised = None if self.promise is None else self.promise.ttft_seconds
        return self._monotonic_seconds() - longest_wait_seconds(promised)

    @staticmethod
    def _is_late(ticket: Ticket, latest_arrival_seconds: float) -> bool:
        return ticket.tier is not ServiceTier.FLEX and ticket.came_seconds < latest_arrival_seconds

    def _count_relegated(self, ticket: Ticket) -> None:
        if not ticket.is_relegated:
            ticket.is_relegated = True
            self._note_relegated(ticket.tier)

    def _relegate(self) -> None:
        """Let those who cannot be answered as promised wait for those who can be."""
        if self.promise is None or not len(self.queue):
            return
        latest_seconds = self._latest_arrival_seconds()
        for ticket in self.queue.relegate(lambda one: self._is_late(one, latest_seconds)):
            self._count_relegated(ticket)

    def pump(self) -> None:
        """Hand out every place that somebody can use."""
        self._relegate()
        while len(self.queue):
            placed: ReplicaLoad | None = None
            chosen: Ticket | None = None
            for ticket in self.queue:
                if ticket.future is None or ticket.future.done():
                    continue
                if self._is_held(ticket):
                    continue
                placed = self._take_place(ticket)
                if placed is not None:
                    chosen = ticket
                    break
                if not ticket.excluded:
                    # It could have used any place, so there is none.
                    break
            if placed is None or chosen is None or chosen.future is None:
                break
            self.queue.remove(chosen, chosen.tier, chosen.priority)
            chosen.future.set_result(placed)
        self._schedule_wake()

    def set_admission(self, admission: Admission) -> None:
        """Take the autoscaler's word on the lanes; an opened lane is served at once."""
        if admission != self.admission:
            self.admission = admission
            self.pump()

    # --- replicas ---------------------------------------------------------------------

    def set_replicas(self, loads: Iterable[ReplicaLoad]) -> None:
        """Take the new list, in a stable order."""
        self.loads = sorted(loads, key=lambda load: load.endpoint.replica_id)
        self.pump()

    def has_other_ready(self, excluded: Iterable[ReplicaId]) -> bool:
        """Return whether a replica outside ``excluded`` is ready and not ejected."""
        now_seconds = self._monotonic_seconds()
        return any(
            load.endpoint.state is ReplicaState.READY
            and load.endpoint.replica_id not in excluded
            and now_seconds >= load.health.ejected_until_seconds
            for load in self.loads
        )

    def note_success(self, load: ReplicaLoad) -> None:
        """Forget a replica's failures."""
        load.health = HEALTHY

    def note_failure(self, load: ReplicaLoad, kind: FailureKind) -> None:
        """Count a failure and perhaps eject the replica."""
        load.health = after_failure(load.health, kind, now_seconds=self._monotonic_seconds())

    def _schedule_wake(self) -> None:
        """Look again when an ejection or the hold of a flex request runs out, if one waits."""
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if not len(self.queue):
            return
        now_seconds = self._monotonic_seconds()
        until = [
            load.health.ejected_until_seconds
            for load in self.loads
            if load.health.ejected_until_seconds > now_seconds
        ]
        if not self.admission.flex_open:
            held = (t.release_seconds for t in self.queue.of_tier(ServiceTier.FLEX))
            until += (at for at in held if at > now_seconds)
        if until:
            delay_seconds = min(until) - now_seconds + 0.001
            self._wake = asyncio.get_running_loop().call_later(delay_seconds, self.pump)

    # --- what is going on -------------------------------------------------------------

    def depth_by_tier(self) -> Mapping[ServiceTier, int]:
        """Return waiting requests by tier."""
        return {tier: self.queue.depth(tier) for tier in TIER_ORDER}

    def waiting_tokens_by_tier(self) -> Mapping[ServiceTier, int]:
        """Return the estimated tokens of waiting requests by tier."""
        return {tier: self.queue.waiting_tokens(tier) for tier in TIER_ORDER}

    def flex_deadline_seconds(self) -> float | None:
        """Return the monotonic time at which the first waiting flex request gives up; or None."""
        deadlines = (ticket.deadline_seconds for ticket in self.queue.of_tier(ServiceTier.FLEX))
        return min(deadlines, default=None)
