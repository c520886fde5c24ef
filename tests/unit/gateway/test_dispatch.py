"""Places at replicas, and who waits for them."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from trierarch.core.admission import OPEN, Admission
from trierarch.core.clock import ManualClock
from trierarch.core.identifiers import ReplicaId
from trierarch.core.objectives import LatencyPromise
from trierarch.core.replicas import ReplicaState
from trierarch.core.usage import ServiceTier
from trierarch.gateway.admission.dispatch import ModelDispatcher, Ticket
from trierarch.gateway.errors import GatewayError, queue_timeout
from trierarch.routing.ejection import FailureKind
from trierarch.routing.replica_selection import ReplicaLoad
from trierarch.testing.replica_source import ready_replica

CLOSED = Admission(flex_open=False)
DEFAULT, PRIORITY, FLEX = ServiceTier.DEFAULT, ServiceTier.PRIORITY, ServiceTier.FLEX

pytestmark = pytest.mark.asyncio


class Desk:
    """A dispatcher and what its requests got, in order."""

    def __init__(self, replicas: int = 1, places: int = 1) -> None:
        self.clock = ManualClock(100.0)
        self.dispatcher = ModelDispatcher(
            self.clock.monotonic_seconds,
            max_ongoing_requests=places,
            max_queued_requests=3,
            note_relegated=self._note_relegated,
        )
        self.relegated: list[ServiceTier] = []
        self.loads = [ReplicaLoad(ready_replica(n, replica_id=f"r{n}")) for n in range(replicas)]
        self.dispatcher.set_replicas(self.loads)
        self.served: list[str] = []
        self.tasks: dict[str, asyncio.Task[ReplicaLoad]] = {}

    def _note_relegated(self, tier: ServiceTier) -> None:
        self.relegated.append(tier)

    def ticket(
        self, tier: ServiceTier = DEFAULT, wait: float = 60.0, held: float | None = None
    ) -> Ticket:
        now = self.clock.monotonic_seconds()
        return Ticket(
            tier, 10, now + wait, now + (wait if held is None else held), came_seconds=now
        )

    async def queue(
        self,
        name: str,
        tier: ServiceTier = DEFAULT,
        *,
        wait: float = 60.0,
        held: float | None = None,
        excluded: set[str] | None = None,
        came_before: bool = False,
        came_ago: float = 0.0,
        priority: int = 0,
    ) -> asyncio.Task[ReplicaLoad]:
        ticket = self.ticket(tier, wait, held)
        ticket.came_seconds -= came_ago
        ticket.priority = priority
        ticket.excluded = {ReplicaId(one) for one in excluded or ()}

        async def run() -> ReplicaLoad:
            load = await self.dispatcher.wait(
                ticket, came_before=came_before, timeout_error=lambda: queue_timeout("m", 1.0)
            )
            self.served.append(name)
            return load

        self.tasks[name] = asyncio.create_task(run())
        await asyncio.sleep(0)
        return self.tasks[name]

    def take(self, tier: ServiceTier = DEFAULT) -> ReplicaLoad:
        load = self.dispatcher.try_place(self.ticket(tier))
        assert load is not None
        return load

    def leave(self, load: ReplicaLoad, tier: ServiceTier = DEFAULT) -> None:
        self.dispatcher.release(load, tier, 10)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def end(self) -> None:
        for task in self.tasks.values():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, GatewayError):
                await task


async def test_a_free_place_is_taken_at_once() -> None:
    desk = Desk(places=2)
    desk.take()
    assert desk.dispatcher.ongoing_requests == 1
    assert desk.dispatcher.outstanding_tokens == 10


async def test_tiers_then_arrival_decide_who_is_next() -> None:
    desk = Desk()
    load = desk.take()
    for name, tier in [("flex", FLEX), ("d1", DEFAULT), ("d2", DEFAULT), ("p", PRIORITY)]:
        await desk.queue(name, tier)
    for _ in range(4):
        desk.leave(load)
        await desk.settle()
    assert desk.served == ["p", "d1", "d2", "flex"]


async def test_nobody_overtakes_the_queue_while_it_is_served() -> None:
    desk = Desk()
    load = desk.take()
    await desk.queue("waits")
    desk.leave(load)
    assert desk.dispatcher.try_place(desk.ticket()) is None
    await desk.settle()
    assert desk.served == ["waits"]


async def test_a_new_ready_replica_wakes_the_queue() -> None:
    desk = Desk(replicas=0)
    await desk.queue("first")
    starting = ReplicaLoad(ready_replica(1, state=ReplicaState.STARTING))
    desk.dispatcher.set_replicas([starting])
    await desk.settle()
    assert desk.served == []
    desk.dispatcher.set_replicas([ReplicaLoad(ready_replica(1))])
    await desk.settle()
    assert desk.served == ["first"]


async def test_waiting_is_bounded_in_time() -> None:
    desk = Desk(replicas=0)
    task = await desk.queue("late", wait=0.01)
    with pytest.raises(GatewayError) as caught:
        await task
    assert caught.value.code == "queue_timeout"
    assert len(desk.dispatcher.queue) == 0


async def test_the_queue_is_bounded_in_length() -> None:
    desk = Desk(replicas=0)
    for name in "abc":
        assert not desk.dispatcher.is_full(DEFAULT)
        await desk.queue(name)
    assert desk.dispatcher.is_full(DEFAULT)
    assert desk.dispatcher.is_full(PRIORITY)
    await desk.end()
    assert not desk.dispatcher.is_full(DEFAULT)


async def test_flex_requests_that_wait_take_no_place_in_the_line_from_the_others() -> None:
    desk = Desk(replicas=0)
    for name in "abc":
        assert not desk.dispatcher.is_full(FLEX)
        await desk.queue(name, FLEX)
    assert desk.dispatcher.is_full(FLEX)
    assert not desk.dispatcher.is_full(DEFAULT)
    await desk.end()


async def test_a_closed_lane_holds_flex_and_nobody_else() -> None:
    desk = Desk(places=2)
    desk.dispatcher.set_admission(CLOSED)
    assert desk.dispatcher.try_place(desk.ticket(FLEX)) is None
    await desk.queue("flex", FLEX)
    await desk.queue("default")
    await desk.settle()
    assert desk.served == ["default"]
    desk.dispatcher.set_admission(OPEN)
    await desk.settle()
    assert desk.served == ["default", "flex"]
    assert (desk.dispatcher.ongoing_requests, desk.dispatcher.ongoing_flex_requests) == (2, 1)
    desk.leave(desk.tasks["flex"].result(), FLEX)
    assert desk.dispatcher.ongoing_flex_requests == 0


async def test_a_flex_request_whose_time_runs_out_is_held_no_longer() -> None:
    desk = Desk(places=4)
    desk.dispatcher.set_admission(CLOSED)
    await desk.queue("first", FLEX, held=30.0)
    desk.clock.advance(5.0)
    await desk.queue("second", FLEX, held=30.0)
    desk.clock.advance(25.0)
    desk.dispatcher.pump()
    await desk.settle()
    assert desk.served == ["first"]
    # Nothing else happens at the gateway: it looks again by itself.
    await desk.queue("third", FLEX, held=0.01)
    desk.clock.advance(5.0)
    await asyncio.wait_for(desk.tasks["third"], 5.0)
    assert desk.served == ["first", "second", "third"]


async def test_a_flex_request_that_lost_its_replica_is_not_held_again() -> None:
    desk = Desk(replicas=2)
    desk.dispatcher.set_admission(CLOSED)
    await desk.queue("held", FLEX)
    await desk.queue("again", FLEX, excluded={"r0"}, came_before=True)
    await desk.settle()
    assert desk.served == ["again"]
    await desk.end()


async def test_the_first_flex_deadline_is_told() -> None:
    desk = Desk(replicas=0)
    assert desk.dispatcher.flex_deadline_seconds() is None
    await desk.queue("default", wait=1.0)
    await desk.queue("later", FLEX, wait=50.0)
    await desk.queue("sooner", FLEX, wait=40.0)
    assert desk.dispatcher.flex_deadline_seconds() == 140.0
    await desk.end()


async def test_who_leaves_the_queue_is_forgotten() -> None:
    desk = Desk(replicas=0)
    task = await desk.queue("leaves")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert desk.dispatcher.depth_by_tier()[DEFAULT] == 0
    assert desk.dispatcher.waiting_tokens_by_tier()[DEFAULT] == 0


async def test_a_place_given_to_somebody_who_just_left_goes_to_the_next() -> None:
    desk = Desk()
    load = desk.take()
    leaving = await desk.queue("leaves")
    await desk.queue("stays")
    desk.leave(load)
    leaving.cancel()
    await desk.settle()
    assert desk.served == ["stays"]
    assert desk.dispatcher.ongoing_requests == 1


async def test_a_request_waits_for_a_replica_it_has_not_failed_on_and_blocks_nobody() -> None:
    desk = Desk(places=1)
    load = desk.take()
    await desk.queue("failed-on-r0", excluded={"r0"}, came_before=True)
    await desk.queue("fresh")
    desk.leave(load)
    await desk.settle()
    assert desk.served == ["fresh"]
    desk.dispatcher.set_replicas([*desk.loads, ReplicaLoad(ready_replica(1, replica_id="r1"))])
    await desk.settle()
    assert desk.served == ["fresh", "failed-on-r0"]


async def test_a_retry_gets_a_free_place_elsewhere_at_once() -> None:
    desk = Desk(replicas=2)
    await desk.queue("again", excluded={"r0"}, came_before=True)
    await desk.settle()
    assert desk.tasks["again"].result().endpoint.replica_id == "r1"


async def test_who_waits_for_another_replica_does_not_hold_up_newcomers() -> None:
    desk = Desk()
    await desk.queue("failed-on-r0", excluded={"r0"}, came_before=True)
    await desk.queue("fresh")
    await desk.settle()
    assert desk.served == ["fresh"]
    await desk.end()


async def test_the_end_of_an_ejection_wakes_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trierarch.routing.ejection.FIRST_EJECTION_SECONDS", 0.02)
    desk = Desk()
    desk.dispatcher.note_failure(desk.loads[0], FailureKind.CONNECT)
    assert not desk.dispatcher.has_other_ready(())
    await desk.queue("patient")
    assert desk.served == []
    desk.clock.advance(0.02)
    await asyncio.wait_for(desk.tasks["patient"], 5.0)


async def test_a_success_ends_an_ejection() -> None:
    desk = Desk()
    desk.dispatcher.note_failure(desk.loads[0], FailureKind.CONNECT)
    desk.dispatcher.note_success(desk.loads[0])
    desk.take()


async def test_a_replica_that_left_the_list_still_counts_until_its_requests_end() -> None:
    desk = Desk()
    load = desk.take()
    desk.dispatcher.set_replicas([])
    assert desk.dispatcher.ongoing_requests == 1
    desk.leave(load)
    assert desk.dispatcher.ongoing_requests == 0
    assert desk.dispatcher.outstanding_tokens == 0


class TestLateRequests:
    """A time to first token of 2 s is promised, of which 1 s may pass in line."""

    async def order(self, desk: Desk, load: ReplicaLoad) -> list[str]:
        """Serve everybody who waits, one after the other."""
        for _ in range(len(desk.dispatcher.queue)):
            desk.leave(load)
            await desk.settle()
        return desk.served

    def full_desk(self) -> tuple[Desk, ReplicaLoad]:
        desk = Desk()
        desk.dispatcher.promise = LatencyPromise(ttft_seconds=2.0)
        return desk, desk.take()

    async def test_who_can_be_in_time_goes_before_who_cannot(self) -> None:
        desk, load = self.full_desk()
        await desk.queue("late-1")
        await desk.queue("late-2")
        desk.clock.advance(1.1)
        await desk.queue("fresh")
        assert await self.order(desk, load) == ["fresh", "late-1", "late-2"]
        assert desk.relegated == [DEFAULT, DEFAULT]

    async def test_a_wait_of_half_the_promise_is_not_late(self) -> None:
        desk, load = self.full_desk()
        await desk.queue("first")
        desk.clock.advance(1.0)
        await desk.queue("second")
        assert await self.order(desk, load) == ["first", "second"]
        assert desk.relegated == []

    @pytest.mark.parametrize(
        "promise",
        [None, LatencyPromise(ttft_seconds=None), LatencyPromise(ttft_seconds=200.0)],
        ids=["no-objective", "no-promise", "a-long-one"],
    )
    async def test_who_is_not_late_is_served_in_order(self, promise: LatencyPromise | None) -> None:
        desk, load = self.full_desk()
        desk.dispatcher.promise = promise
        await desk.queue("first")
        desk.clock.advance(50.0)
        await desk.queue("second")
        assert await self.order(desk, load) == ["first", "second"]

    async def test_tiers_and_priorities_stay_strict(self) -> None:
        desk, load = self.full_desk()
        await desk.queue("late-flex", FLEX)
        await desk.queue("late-default")
        await desk.queue("late-important", priority=1)
        await desk.queue("late-priority", PRIORITY)
        desk.clock.advance(5.0)
        await desk.queue("flex", FLEX)
        await desk.queue("default")
        assert await self.order(desk, load) == [
            "late-priority",
            "late-important",
            "default",
            "late-default",
            "late-flex",
            "flex",
        ]
        assert sorted(desk.relegated) == [DEFAULT, DEFAULT, PRIORITY]

    async def test_a_request_that_lost_its_place_keeps_it_while_it_can_be_in_time(self) -> None:
        desk, load = self.full_desk()
        await desk.queue("waits")
        await desk.queue("again", came_before=True, came_ago=0.5)
        assert await self.order(desk, load) == ["again", "waits"]

    async def test_a_late_one_that_lost_its_place_is_first_of_the_late(self) -> None:
        desk, load = self.full_desk()
        await desk.queue("late", came_ago=2.0)
        await desk.queue("fresh")
        await desk.queue("again", came_before=True, came_ago=3.0)
        assert await self.order(desk, load) == ["fresh", "again", "late"]
        assert desk.relegated == [DEFAULT, DEFAULT]

    async def test_a_request_whose_first_token_is_out_is_not_late(self) -> None:
        desk, load = self.full_desk()
        await desk.queue("fresh")
        await desk.queue("answering", came_before=True, came_ago=-float("inf"))
        assert await self.order(desk, load) == ["answering", "fresh"]

    async def test_late_requests_wait_no_longer_than_others(self) -> None:
        desk, _ = self.full_desk()
        task = await desk.queue("late", wait=0.01, came_ago=5.0)
        with pytest.raises(GatewayError) as caught:
            await task
        assert caught.value.code == "queue_timeout"
        assert len(desk.dispatcher.queue) == 0
