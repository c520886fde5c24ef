"""Ray Serve's request autoscaling.

Source: ``serve/{config,autoscaling_policy}.py`` and ``serve/_private/autoscaling_state.py``
of Ray 2.60.0: two ongoing requests per replica, look-back 30 s, delay 30 s up and
600 s down, both factors 1. Metrics are pushed every 10 s, so it is asked that often.
Ray Serve LLM sets a target of 1e9 where none is given, which never scales. Without
metrics it keeps the count, and its delays begin again.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.autoscaling.policies.one_target import OneTarget
from trierarch.autoscaling.policies.readings import concurrency
from trierarch.autoscaling.policies.series import Series, extend, time_weighted_mean
from trierarch.autoscaling.policy import Recommendation
from trierarch.autoscaling.signals import Observation


@dataclasses.dataclass(frozen=True, slots=True)
class RayServeState:
    """The count, the look-back, and the timer of a wish: its direction and when it began."""

    replicas: int | None = None
    load: Series = ()
    direction: int = 0
    since_seconds: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RayServePolicy(OneTarget):
    """Ongoing requests per replica.

    Attributes:
        target_ongoing_requests: Queued and running, per replica.
        look_back_seconds: Of the time-weighted mean.
        upscale_delay_seconds: A wish for more must last this long.
        downscale_delay_seconds: A wish for fewer must last this long.
        downscale_to_zero_delay_seconds: The same for the last replica; None takes the other.
        upscaling_factor: Share of the wanted growth that is taken.
        downscaling_factor: Share of the wanted shrinkage that is taken.
        name: For tables.
        interval_seconds: Between two metrics.
    """

    target_ongoing_requests: float = 2.0
    look_back_seconds: float = 30.0
    upscale_delay_seconds: float = 30.0
    downscale_delay_seconds: float = 600.0
    downscale_to_zero_delay_seconds: float | None = None
    upscaling_factor: float = 1.0
    downscaling_factor: float = 1.0
    name: str = "ray-serve"
    interval_seconds: float | None = 10.0

    def __post_init__(self) -> None:
        OneTarget.__post_init__(self)
        if not self.target_ongoing_requests > 0:
            raise ValueError("target_ongoing_requests must be positive")

    def initial_state(self) -> RayServeState:
        """Return a state that takes over the count it finds."""
        return RayServeState()

    def recommend(
        self, observation: Observation, state: RayServeState
    ) -> tuple[Recommendation, RayServeState]:
        """Return the current wish once it has lasted, else the count that is set."""
        now = observation.now_unix_seconds
        current = observation.current if state.replicas is None else state.replicas
        reading = concurrency(observation, counts_flex=self.counts_flex)
        if reading is None:
            kept = self.bounded(current)
            held = self.recommendation(observation, kept, policy=self.name, reason="MetricsMissing")
            return held, RayServeState(kept, state.load)
        load = extend(state.load, reading, keep_seconds=self.look_back_seconds)
        total = time_weighted_mean(load, self.look_back_seconds)
        wanted = self.bounded(self.wanted(total, current))
        direction = (wanted > current) - (wanted < current)
        began = state.since_seconds if direction == state.direction and direction else now
        is_due = now - began >= self._delay(direction, current)
        if current == 0 and direction > 0:
            is_due = True
        desired = wanted if direction and is_due else current
        if direction < 0 and is_due and current > 1:
            # The last replica goes on its own, after its own delay.
            desired = max(1, desired)
        if desired != current:
            direction, began = 0, now
        desired = self.bounded(desired)
        recommendation = self.recommendation(
            observation,
            desired,
            policy=self.name,
            reason="Ongoing",
            message=f"{total:.1f} ongoing requests ask for {wanted}",
        )
        return recommendation, RayServeState(desired, load, direction, began)

    def wanted(self, total: float, current: int) -> int:
        """Return the count before bounds and delays."""
        if current == 0:
            needed = math.ceil(total / self.target_ongoing_requests)
            return max(math.ceil(self.upscaling_factor), needed) if total > 0 else 0
        raw = total / self.target_ongoing_requests
        change = raw - current
        factor = self.upscaling_factor if change > 0 else self.downscaling_factor
        replicas = math.ceil(current + factor * change)
        if math.ceil(raw) < current and replicas == current:
            replicas -= 1
        return replicas

    def _delay(self, direction: int, current: int) -> float:
        if direction > 0:
            return self.upscale_delay_seconds
        to_zero = self.downscale_to_zero_delay_seconds
        if current <= 1 and to_zero is not None:
            return to_zero
        return self.downscale_delay_seconds
