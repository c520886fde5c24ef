"""Knative's pod autoscaler: a stable and a panic window over the total concurrency.

Source: ``pkg/autoscaler/scaling/autoscaler.go`` and ``pkg/autoscaler/config``: tick
2 s, stable window 60 s, panic window 10 % of it, panic at 200 %, up by at most a
factor of 1000 and down by 2, 70 % of a concurrency of 100. Without data it keeps
the count.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.autoscaling.policies.one_target import OneTarget
from trierarch.autoscaling.policies.readings import concurrency
from trierarch.autoscaling.policies.series import Sample, Series, extend, mean, since
from trierarch.autoscaling.policy import Recommendation
from trierarch.autoscaling.signals import Observation


@dataclasses.dataclass(frozen=True, slots=True)
class KnativeState:
    """Windows, the panic and its highest count."""

    replicas: int | None = None
    load: Series = ()
    desired: Series = ()
    panic_seconds: float | None = None
    panic_replicas: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KnativePolicy(OneTarget):
    """Concurrency per replica.

    Attributes:
        target: Requests per replica, utilization already applied.
        stable_window_seconds: Of the mean that counts in calm times.
        panic_window_ratio: Share of it that the panic mean covers.
        panic_threshold_ratio: Panic if the short mean asks for so many times the ready replicas.
        up_rate: At most so many times the ready replicas.
        down_rate: At least the ready replicas divided by this.
        down_delay_seconds: The largest count of this time is kept.
        name: For tables.
        interval_seconds: Tick.
    """

    target: float = 70.0
    stable_window_seconds: float = 60.0
    panic_window_ratio: float = 0.1
    panic_threshold_ratio: float = 2.0
    up_rate: float = 1000.0
    down_rate: float = 2.0
    down_delay_seconds: float = 0.0
    name: str = "knative"
    interval_seconds: float | None = 2.0

    def __post_init__(self) -> None:
        OneTarget.__post_init__(self)
        if not (self.target > 0 and self.up_rate > 1 and self.down_rate > 1):
            raise ValueError("target must be positive, up_rate and down_rate above 1")

    def initial_state(self) -> KnativeState:
        """Return a state that takes over the count it finds."""
        return KnativeState()

    def recommend(
        self, observation: Observation, state: KnativeState
    ) -> tuple[Recommendation, KnativeState]:
        """Return the larger count in a panic, the stable one otherwise."""
        now, ready = observation.now_unix_seconds, max(1, observation.ready)
        if state.replicas is None:
            state = dataclasses.replace(state, replicas=observation.current)
            if ready > 1:
                state = dataclasses.replace(state, panic_seconds=now, panic_replicas=ready)
        reading = concurrency(observation, counts_flex=self.counts_flex)
        if reading is None:
            kept = self.bounded(state.replicas or 0)
            held = self.recommendation(observation, kept, policy=self.name, reason="MetricsMissing")
            return held, state
        load = extend(state.load, reading, keep_seconds=self.stable_window_seconds)
        newest = load[-1].at_seconds
        stable = mean(since(load, self.stable_window_seconds, newest))
        panic_window = self.stable_window_seconds * self.panic_window_ratio
        panic = mean(since(load, panic_window, newest))
        stable_replicas, panic_replicas = self._counts(stable, panic, ready)
        panic_seconds, most = state.panic_seconds, state.panic_replicas
        if math.ceil(panic / self.target) / ready >= self.panic_threshold_ratio:
            panic_seconds = now
        elif panic_seconds is not None and panic_seconds + self.stable_window_seconds < now:
            panic_seconds, most = None, 0
        if panic_seconds is None:
            wanted, reason = stable_replicas, "Stable"
        else:
            wanted = most = max(most, stable_replicas, panic_replicas)
            reason = "Panic"
        wanted = self.bounded(wanted)
        desired = extend(
            state.desired, Sample(now, float(wanted)), keep_seconds=self.down_delay_seconds
        )
        if self.down_delay_seconds > 0:
            recent = since(desired, self.down_delay_seconds, now)
            wanted = max(wanted, *(int(sample.value) for sample in recent))
        recommendation = self.recommendation(
            observation,
            wanted,
            policy=self.name,
            reason=reason,
            message=f"{stable:.1f} requests over the stable, {panic:.1f} over the panic window",
        )
        return recommendation, KnativeState(wanted, load, desired, panic_seconds, most)

    def _counts(self, stable: float, panic: float, ready: int) -> tuple[int, int]:
        highest, lowest = math.ceil(self.up_rate * ready), math.floor(ready / self.down_rate)
        stable_replicas, panic_replicas = (
            min(highest, max(lowest, math.ceil(load / self.target))) for load in (stable, panic)
        )
        return stable_replicas, panic_replicas
