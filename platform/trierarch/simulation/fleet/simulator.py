"""The run: events in order of time, a decision at every tick, a result at the end.

At one instant replicas become ready first, then spot capacity changes, then
metrics are read, then a decision is made. The window ends a fixed time after
the last arrival. Then every replica drains: what it still runs ends and is
charged, what waits at the gateway stays unserved. So no work is free, and every
token served has been paid for.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from trierarch.core.admission import OPEN, Admission
from trierarch.routing.waiting_queue import longest_wait_seconds
from trierarch.simulation.engine import fleet_steps
from trierarch.simulation.engine.records import Engine, Records, allocate
from trierarch.simulation.fleet import spot_market
from trierarch.simulation.fleet.ledger import ReplicaLife
from trierarch.simulation.fleet.observing import scrape
from trierarch.simulation.fleet.replicas import ReplicaPool
from trierarch.simulation.fleet.setup import FleetSetup, starting_counts
from trierarch.simulation.fleet.snapshot import FleetSnapshot, Scrape
from trierarch.simulation.service import variant_records
from trierarch.simulation.traces.trace import Tier, Trace

UNLIMITED_RUN_STEPS = 1 << 40
SPARE_SLOTS = 16
"""Slots beyond twice the maximum: room for replicas that drain while others take their place."""
FIRST_OUTPUT_GUESS_TOKENS = 500
"""What the router expects of a request before it has seen one end."""
_READY, _KILL, _MARKET, _SCRAPE, _TICK = range(5)


class Controller(Protocol):
    """A policy as the simulator runs it."""

    @property
    def name(self) -> str:
        """Name in results."""
        ...

    @property
    def tick_seconds(self) -> float | None:
        """Time between its decisions; None for the fleet's."""
        ...

    @property
    def admission(self) -> Admission:
        """What the gateway does with lanes until the next decision; read after each."""
        ...

    def begin(self, setup: FleetSetup, pool: ReplicaPool) -> None:
        """Start a run. Only schedules that know the future may keep ``pool``."""
        ...

    def decide(self, snapshot: FleetSnapshot) -> Sequence[int]:
        """Return the desired replicas per variant, in the fleet's order."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """The state right after one decision, for plots and tests."""

    at_seconds: float
    desired: tuple[int, ...]
    ready: tuple[int, ...]
    starting: tuple[int, ...]
    draining: tuple[int, ...]
    waiting_requests: int
    change: int
    admission: Admission = OPEN


@dataclasses.dataclass(frozen=True, slots=True)
class RunResult:
    """Everything a run leaves behind.

    Attributes:
        setup: The fleet it ran on.
        trace: What arrived.
        policy: Name of the controller.
        seed: Of the cold starts, the market and the lost scrapes.
        requests: The engine's request records, in order of arrival.
        lives: The book of replicas.
        moments: One per decision.
        window_seconds: When the last decisions were made and draining began.
        most_queued: Most interactive requests that waited at the gateway at one time.
        preemptions: Requests that lost their KV memory to others.
        migrated: Requests moved off a lost replica.
    """

    setup: FleetSetup
    trace: Trace
    policy: str
    seed: int
    requests: Records
    lives: list[ReplicaLife]
    moments: list[Moment]
    window_seconds: float
    most_queued: int
    preemptions: int
    migrated: int


def simulate(
    setup: FleetSetup,
    trace: Trace,
    controller: Controller,
    *,
    seed: int,
    progress: Callable[[float], None] | None = None,
    maximum_run_steps: int = UNLIMITED_RUN_STEPS,
) -> RunResult:
    """Replay ``trace`` under ``controller``.

    Args:
        setup: The fleet.
        trace: The requests.
        controller: The policy.
        seed: Of everything drawn.
        progress: Called with the share of the run that is done.
        maximum_run_steps: 1 steps the engine one step at a time.
    """
    return _Run(setup, trace, controller, seed, maximum_run_steps).finish(progress)


def window_seconds(setup: FleetSetup, trace: Trace) -> float:
    """Return how long decisions are made for a trace."""
    ticks = math.floor(trace.duration_seconds / setup.tick_seconds) + 1
    return ticks * setup.tick_seconds + setup.tail_seconds


class _Run:
    def __init__(
        self,
        setup: FleetSetup,
        trace: Trace,
        controller: Controller,
        seed: int,
        maximum_run_steps: int,
    ) -> None:
        self._setup = setup
        self._trace = trace
        self._controller = controller
        self._seed = seed
        self._window_seconds = window_seconds(setup, trace)
        self._engine = _allocate(setup, trace, self._window_seconds, maximum_run_steps)
        self._pool = ReplicaPool(setup, self._engine, seed=seed)
        self._events: list[tuple[float, int, int, Callable[[float], None]]] = []
        self._ordinal = 0
        self._moments: list[Moment] = []
        self._delivered: list[Scrape] = []
        self._in_transit: list[tuple[float, Scrape | None]] = []
        self._scrape_failed = False
        self._loss = np.random.default_rng([seed, 0x105E])
        self._tick_seconds = controller.tick_seconds or setup.tick_seconds
        self._progress: Callable[[float], None] | None = None
        self._interactive_arrivals = trace.arrival_seconds[trace.tiers != Tier.FLEX]

    def finish(self, progress: Callable[[float], None] | None) -> RunResult:
        self._progress = progress
        self._prepare()
        self._play(self._window_seconds, (_READY, _KILL, _MARKET, _SCRAPE, _TICK))
        for life in list(self._pool.by_slot.values()):
            self._pool.drain(life, self._window_seconds)
        self._play(math.inf, (_KILL,), is_open=False)
        engine = self._engine
        return RunResult(
            setup=self._setup,
            trace=self._trace,
            policy=self._controller.name,
            seed=self._seed,
            requests=engine.requests,
            lives=self._pool.lives,
            moments=self._moments,
            window_seconds=self._window_seconds,
            most_queued=int(engine.gateway[0]["most_queued"]),
            preemptions=int(engine.variants["preemptions"].sum()),
            migrated=int(engine.gateway[0]["migrated"]),
        )

    def _push(self, at_seconds: float, kind: int, act: Callable[[float], None]) -> None:
        self._ordinal += 1
        heapq.heappush(self._events, (at_seconds, kind, self._ordinal, act))

    def _play(self, until_seconds: float, kinds: tuple[int, ...], *, is_open: bool = True) -> None:
        """Let time pass; events of other kinds are dropped."""
        while self._events and self._events[0][0] <= until_seconds:
            at_seconds, kind, _, act = heapq.heappop(self._events)
            if kind in kinds:
                self._advance(at_seconds, is_open)
                act(at_seconds)
        self._advance(until_seconds, is_open)

    def _advance(self, until_seconds: float, is_open: bool) -> None:
        fleet_steps.advance(self._engine, until_seconds, is_open)
        self._pool.collect()

    def _prepare(self) -> None:
        for index, variant in enumerate(self._setup.variants):
            if variant.supply is not None:
                for change in spot_market.build_changes(variant.supply, self._window_seconds):
                    self._push(
                        change.at_seconds, _MARKET, partial(self._change_market, index, change)
                    )
                    if change.at_seconds <= 0.0:
                        self._pool.set_available(index, change.available_replicas)
        for index, count in enumerate(starting_counts(self._setup)):
            for _ in range(count):
                life = self._pool.provision(index, 0.0, warm=True)
                if life is not None:
                    self._pool.make_ready(life, 0.0)
        self._controller.begin(self._setup, self._pool)
        self._push(0.0, _TICK, partial(self._decide, 0))
        first = math.ceil(self._setup.metrics_lag_seconds / self._tick_seconds)
        self._push_scrape(first)

    def _push_scrape(self, tick: int) -> None:
        """Read the metrics that the decision at ``tick`` will see."""
        at_seconds = tick * self._tick_seconds - self._setup.metrics_lag_seconds
        self._push(max(0.0, at_seconds), _SCRAPE, partial(self._read, tick))

    def _read(self, tick: int, at_seconds: float) -> None:
        lost = self._loss.random() < self._setup.metrics_loss_ratio
        reading = None if lost else self._scrape(at_seconds)
        self._in_transit.append((tick * self._tick_seconds, reading))
        self._push_scrape(tick + 1)

    def _scrape(self, at_seconds: float) -> Scrape:
        return scrape(self._engine, at_seconds, self._pool.by_slot, self._interactive_arrivals)

    def _deliver(self, at_seconds: float) -> None:
        while self._in_transit and self._in_transit[0][0] <= at_seconds:
            _, reading = self._in_transit.pop(0)
            self._scrape_failed = reading is None
            if reading is not None:
                self._delivered = [*self._delivered[-1:], reading]

    def _decide(self, tick: int, at_seconds: float) -> None:
        self._deliver(at_seconds)
        counts = self._pool.variant_counts(at_seconds)
        snapshot = FleetSnapshot(
            now_seconds=at_seconds,
            variants=counts,
            scrape=self._delivered[-1] if self._delivered else None,
            previous=self._delivered[-2] if len(self._delivered) > 1 else None,
            scrape_failed=self._scrape_failed,
        )
        desired = tuple(int(count) for count in self._controller.decide(snapshot))
        admission = self._controller.admission
        shed = sum(1 << Tier[tier.name] for tier in admission.shed_tiers)
        fleet_steps.set_lanes(self._engine, admission.flex_open, shed, at_seconds)
        started, change = self._pool.apply(desired, at_seconds)
        for life in started:
            self._push(life.ready_seconds, _READY, partial(self._pool.make_ready, life))
        after = [self._pool.counts(index) for index in range(len(self._setup.variants))]
        self._moments.append(
            Moment(
                at_seconds=at_seconds,
                desired=desired,
                ready=tuple(count[0] for count in after),
                starting=tuple(count[1] for count in after),
                draining=tuple(count[2] for count in after),
                waiting_requests=int(self._engine.lanes["queued"][: Tier.FLEX].sum()),
                change=change,
                admission=admission,
            )
        )
        self._push((tick + 1) * self._tick_seconds, _TICK, partial(self._decide, tick + 1))
        if self._progress is not None:
            self._progress(min(1.0, at_seconds / self._window_seconds))

    def _change_market(
        self, variant: int, change: spot_market.SpotChange, at_seconds: float
    ) -> None:
        supply = self._setup.variants[variant].supply
        if supply is None:
            return
        self._pool.set_available(variant, change.available_replicas)
        alive = self._pool.alive(variant)
        taken = [life for life in alive if spot_market.is_taken(self._seed, change, life.serial)]
        kept = [life for life in alive if life not in taken]
        excess = len(kept) - change.available_replicas
        if excess > 0:
            taken += kept[-excess:]
        for life in taken:
            self._push(at_seconds + supply.notice_seconds, _KILL, partial(self._pool.kill, life))
            self._pool.reclaim(life, at_seconds)


def _allocate(
    setup: FleetSetup, trace: Trace, window_end_seconds: float, maximum_run_steps: int
) -> Engine:
    most = sum(variant.maximum_replicas for variant in setup.variants)
    flex_deadline = trace.arrival_seconds + setup.flex_deadline_seconds
    deadline = np.where(
        trace.tiers == Tier.FLEX, np.minimum(flex_deadline, window_end_seconds), np.inf
    )
    return allocate(
        variants=variant_records(
            [variant.service for variant in setup.variants], trace.prefix_block_tokens
        ),
        slots=2 * most + SPARE_SLOTS,
        arrivals={
            "arrival_seconds": trace.arrival_seconds,
            "input_tokens": trace.input_tokens,
            "output_tokens": trace.output_tokens,
            "tier": trace.tiers,
            "deadline_seconds": deadline,
        },
        block_ids=trace.prefix_block_ids,
        block_offsets=trace.prefix_block_offsets,
        block_tokens=trace.prefix_block_tokens,
        queue_limit=setup.queue_limit,
        queue_timeout_seconds=setup.queue_timeout_seconds,
        expected_output_tokens=float(FIRST_OUTPUT_GUESS_TOKENS),
        maximum_run_steps=maximum_run_steps,
        ttft_limit_seconds=setup.objective.ttft_seconds,
        tpot_limit_seconds=setup.objective.tpot_seconds,
        longest_wait_seconds=longest_wait_seconds(
            setup.objective.ttft_seconds if setup.late_requests_last else None
        ),
    )
