"""Which replicas exist: provisioning, readiness, draining, loss, release."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trierarch.simulation.engine import fleet_steps
from trierarch.simulation.engine.records import (
    DRAINING,
    FREE,
    NEVER,
    NONE,
    READY,
    RELEASED,
    REPLICA,
    STARTING,
    Engine,
)
from trierarch.simulation.fleet.ledger import ReplicaLife
from trierarch.simulation.fleet.setup import FleetSetup
from trierarch.simulation.fleet.snapshot import VariantCounts

COLD_STARTS_SHOWN = 32
"""Measured cold starts that an orchestrator's history holds per variant."""


class ReplicaPool:
    """The orchestrator's side of a fleet; every method takes the time it acts at."""

    def __init__(self, setup: FleetSetup, engine: Engine, *, seed: int) -> None:
        self._setup = setup
        self._engine = engine
        self._cold_starts = [
            variant.cold_start.draw(seed, index) for index, variant in enumerate(setup.variants)
        ]
        self._started = [0] * len(setup.variants)
        self._measured: list[list[float]] = [[] for _ in setup.variants]
        self._reclaimed = [0] * len(setup.variants)
        self._not_obtained = [0] * len(setup.variants)
        self._available: list[float] = [math.inf] * len(setup.variants)
        self.lives: list[ReplicaLife] = []
        self.by_slot: dict[int, ReplicaLife] = {}

    def next_cold_start_seconds(self, variant: int, ahead: int = 0) -> float:
        """Return how long the next start (or one after it) of a variant will take.

        For schedules that know the future; no policy is shown this.
        """
        draws = self._cold_starts[variant]
        return float(draws[(self._started[variant] + ahead) % len(draws)])

    def counts(self, variant: int) -> tuple[int, int, int]:
        """Return how many replicas of a variant are ready, starting and draining."""
        mine = self._engine.replicas["variant"] == variant
        states = self._engine.replicas["state"][mine]
        return (
            int((states == READY).sum()),
            int((states == STARTING).sum()),
            int((states == DRAINING).sum()),
        )

    def set_available(self, variant: int, replicas: int) -> None:
        """Set how many replicas of a spot variant the market gives."""
        self._available[variant] = replicas

    def provision(
        self, variant: int, now_seconds: float, *, warm: bool = False
    ) -> ReplicaLife | None:
        """Start a replica; None if the market has none or no slot is free."""
        ready, starting, draining = self.counts(variant)
        if ready + starting + draining >= self._available[variant]:
            self._not_obtained[variant] += 1
            return None
        free = np.flatnonzero(self._engine.replicas["state"] == FREE)
        if not len(free):
            self._not_obtained[variant] += 1
            return None
        slot = int(free[0])
        duration = 0.0
        if not warm:
            duration = self.next_cold_start_seconds(variant)
            self._started[variant] += 1
        life = ReplicaLife(
            serial=len(self.lives),
            variant=variant,
            slot=slot,
            provisioned_seconds=now_seconds,
            ready_seconds=now_seconds + duration,
        )
        record = self._engine.replicas[slot]
        record["state"] = STARTING
        record["variant"] = variant
        self.lives.append(life)
        self.by_slot[slot] = life
        return life

    def make_ready(self, life: ReplicaLife, now_seconds: float) -> None:
        """Let a replica serve, unless it was cancelled while it started."""
        if self.by_slot.get(life.slot) is not life:
            return
        if self._engine.replicas[life.slot]["state"] != STARTING:
            return
        life.serving_seconds = now_seconds
        if now_seconds > life.provisioned_seconds:
            self._measured[life.variant].append(now_seconds - life.provisioned_seconds)
        fleet_steps.make_ready(self._engine, life.slot, now_seconds)

    def drain(self, life: ReplicaLife, now_seconds: float) -> None:
        """Stop giving a replica requests; a starting one is cancelled."""
        if self.by_slot.get(life.slot) is not life or life.drain_seconds <= now_seconds:
            return
        life.drain_seconds = now_seconds
        fleet_steps.drain(self._engine, life.slot, now_seconds)
        self.collect()

    def reclaim(self, life: ReplicaLife, now_seconds: float) -> None:
        """Take note of the market's warning: the replica drains until it is killed."""
        life.reclaimed = True
        self._reclaimed[life.variant] += 1
        self.drain(life, now_seconds)

    def kill(self, life: ReplicaLife, now_seconds: float) -> None:
        """Take a replica away at once."""
        if self.by_slot.get(life.slot) is not life:
            return
        fleet_steps.kill(self._engine, life.slot, now_seconds)
        self.collect()

    def victims(self, variant: int, count: int) -> list[ReplicaLife]:
        """Return whom to drain: those that start, newest first, then those with least to do."""
        records = self._engine.replicas
        mine = [life for life in self.by_slot.values() if life.variant == variant]
        starting = [life for life in mine if records[life.slot]["state"] == STARTING]
        ready = [life for life in mine if records[life.slot]["state"] == READY]
        starting.sort(key=lambda life: -life.serial)
        ready.sort(
            key=lambda life: (int(records[life.slot]["outstanding_weight_tokens"]), life.serial)
        )
        return (starting + ready)[:count]

    def alive(self, variant: int) -> list[ReplicaLife]:
        """Return the starting and ready replicas of a variant, oldest first."""
        records = self._engine.replicas
        return sorted(
            (
                life
                for life in self.by_slot.values()
                if life.variant == variant and records[life.slot]["state"] in (STARTING, READY)
            ),
            key=lambda life: life.serial,
        )

    def collect(self) -> None:
        """Write released replicas into the book and free their slots."""
        released = np.flatnonzero(self._engine.replicas["state"] == RELEASED)
        for slot in released:
            life = self.by_slot.pop(int(slot))
            record = self._engine.replicas[slot]
            life.released_seconds = float(record["released_seconds"])
            life.busy_seconds = float(record["busy_seconds"])
            life.most_kv_tokens = int(record["most_kv_tokens"])
            self._reset(int(slot))

    def _reset(self, slot: int) -> None:
        record = self._engine.replicas[slot]
        position = int(record["heap_position"])
        self._engine.replicas[slot] = np.zeros((), REPLICA)
        record["heap_position"] = position
        record["next_seconds"] = NEVER
        for name in ("waiting_head", "waiting_tail", "prefill_head", "prefill_tail"):
            record[name] = NONE
        self._engine.block_cache[slot] = 0

    def variant_counts(self, now_seconds: float) -> tuple[VariantCounts, ...]:
        """Return what the orchestrator reports."""
        result = []
        for index, variant in enumerate(self._setup.variants):
            ready, _, draining = self.counts(index)
            starting = [
                life.provisioned_seconds
                for life in self.alive(index)
                if self._engine.replicas[life.slot]["state"] == STARTING
            ]
            result.append(
                VariantCounts(
                    name=variant.name,
                    ready=ready,
                    starting_seconds=tuple(starting),
                    draining=draining,
                    price_usd_per_hour=variant.price.at(now_seconds),
                    not_obtained=self._not_obtained[index],
                    reclaimed=self._reclaimed[index],
                    cold_starts_seconds=tuple(self._measured[index][-COLD_STARTS_SHOWN:]),
                )
            )
        return tuple(result)

    def apply(self, desired: Sequence[int], now_seconds: float) -> tuple[list[ReplicaLife], int]:
        """Move every variant to its desired count within its bounds.

        Returns:
            The replicas that now start, and the net change of ready plus starting replicas.
        """
        started: list[ReplicaLife] = []
        change = 0
        for index, (variant, wanted) in enumerate(zip(self._setup.variants, desired, strict=True)):
            self._not_obtained[index] = 0
            bounded = min(max(int(wanted), variant.minimum_replicas), variant.maximum_replicas)
            ready, starting, _ = self.counts(index)
            missing = bounded - ready - starting
            for _ in range(missing):
                life = self.provision(index, now_seconds)
                if life is not None:
                    started.append(life)
                    change += 1
            for life in self.victims(index, max(0, -missing)):
                self.drain(life, now_seconds)
                change -= 1
        return started, change
