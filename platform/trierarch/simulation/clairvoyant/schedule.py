"""Carries out a plan of ready replicas, knowing how long each start will take.

A replica is provisioned at the last tick from which it is ready in time, and
given back when the plan says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trierarch.core.admission import OPEN
from trierarch.simulation.fleet.replicas import ReplicaPool
from trierarch.simulation.fleet.setup import FleetSetup
from trierarch.simulation.fleet.simulator import Moment
from trierarch.simulation.fleet.snapshot import FleetSnapshot


class ScheduleController:
    """Follows ready counts per slot and variant."""

    admission = OPEN

    def __init__(
        self, counts: NDArray[np.int64], slot_seconds: float, *, name: str = "clairvoyant"
    ) -> None:
        self._counts = counts
        self._slot_seconds = slot_seconds
        self.name = name
        self.tick_seconds: float | None = None
        self._setup: FleetSetup | None = None
        self._pool: ReplicaPool | None = None

    def begin(self, setup: FleetSetup, pool: ReplicaPool) -> None:
        """Keep the pool: this one may know how long a start will take."""
        self._setup = setup
        self._pool = pool

    def decide(self, snapshot: FleetSnapshot) -> Sequence[int]:
        """Return counts that make the plan's replicas ready in time."""
        return [self._desired(index, snapshot) for index in range(len(snapshot.variants))]

    def _planned(self, variant: int, at_seconds: float) -> int:
        slot = int(at_seconds / self._slot_seconds)
        return int(self._counts[min(slot, len(self._counts) - 1), variant])

    def _desired(self, variant: int, snapshot: FleetSnapshot) -> int:
        setup, pool = self._setup, self._pool
        if setup is None or pool is None:
            raise RuntimeError("begin() comes before decide()")
        now = snapshot.now_seconds
        counts = snapshot.variants[variant]
        ready_times = sorted(
            life.ready_seconds for life in pool.alive(variant) if life.ready_seconds > now
        )
        ready = counts.current - len(ready_times)
        target_now = self._planned(variant, now)
        if not ready_times and target_now < ready:
            return target_now
        committed = counts.current
        starts = 0
        while True:
            duration = pool.next_cold_start_seconds(variant, starts)
            last_chance = now + duration + setup.tick_seconds
            needed = self._most_planned(variant, now, last_chance)
            if needed <= committed + starts:
                return committed + starts
            starts += 1

    def _most_planned(self, variant: int, start_seconds: float, end_seconds: float) -> int:
        first = int(start_seconds / self._slot_seconds)
        last = min(int(end_seconds / self._slot_seconds), len(self._counts) - 1)
        return int(self._counts[min(first, last) : last + 1, variant].max())


class ReplayController:
    """Repeats the decisions of an earlier run."""

    def __init__(self, moments: Sequence[Moment], *, name: str = "clairvoyant") -> None:
        self._moments = {moment.at_seconds: moment for moment in moments}
        self.admission = OPEN
        ticks = [moment.at_seconds for moment in moments[:2]]
        self.name = name
        self.tick_seconds: float | None = ticks[1] - ticks[0] if len(ticks) > 1 else None

    def begin(self, setup: FleetSetup, pool: ReplicaPool) -> None:
        """Nothing to prepare."""

    def decide(self, snapshot: FleetSnapshot) -> Sequence[int]:
        """Return what was decided at this time."""
        moment = self._moments[snapshot.now_seconds]
        self.admission = moment.admission
        return moment.desired


def ready_counts(moments: Sequence[Moment], slot_seconds: float, slots: int) -> NDArray[np.int64]:
    """Return the ready replicas per slot and variant that a run had, as its least in the slot."""
    variants = len(moments[0].ready)
    counts = np.full((slots, variants), np.iinfo(np.int64).max)
    for moment in moments:
        slot = min(int(moment.at_seconds / slot_seconds), slots - 1)
        counts[slot] = np.minimum(counts[slot], moment.ready)
    for slot in range(slots):
        if counts[slot, 0] == np.iinfo(np.int64).max:
            counts[slot] = counts[slot - 1] if slot else np.asarray(moments[0].ready)
    return counts
