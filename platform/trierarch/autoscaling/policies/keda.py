"""KEDA: a queue trigger that wakes and puts to sleep, and an HPA between one and many.

Source: ``reference/scaledobject-spec`` of KEDA 2.15: polling every 30 s, cooldown
300 s (only to zero), activation above 0, ``AverageValue``. The threshold of 5
waiting requests is the one of its examples for vLLM. An error keeps the count;
with ``fallback_replicas``, three of them in a row ask for that count.
"""

from __future__ import annotations

import dataclasses

from trierarch.autoscaling.policies.hpa import IN_FLIGHT, WAITING, replicas_for_total
from trierarch.autoscaling.policies.hpa_behavior import (
    DEFAULT_BEHAVIOR,
    NO_MEMORY,
    BehaviorState,
    HpaBehavior,
    apply_behavior,
)
from trierarch.autoscaling.policies.one_target import OneTarget
from trierarch.autoscaling.policies.readings import concurrency, queue
from trierarch.autoscaling.policy import Recommendation
from trierarch.autoscaling.signals import Observation


@dataclasses.dataclass(frozen=True, slots=True)
class KedaState:
    """The count that is set, and what polls have found."""

    replicas: int | None = None
    behavior: BehaviorState = NO_MEMORY
    polled_seconds: float | None = None
    active_seconds: float | None = None
    is_active: bool = False
    failures: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KedaPolicy(OneTarget):
    """One trigger.

    Attributes:
        threshold: Of the metric, per replica.
        metric: ``waiting`` or ``in-flight``.
        activation_threshold: Active above it.
        polling_seconds: Between two looks at whether the trigger is active.
        cooldown_seconds: Inactive this long before the last replica goes.
        tolerance: Of the HPA beneath.
        behavior: Of the HPA beneath.
        failure_threshold: Failures in a row before the fallback.
        fallback_replicas: Count to ask for then; None keeps what is there.
        name: For tables.
        interval_seconds: Sync period of the HPA beneath.
    """

    threshold: float = 5.0
    metric: str = WAITING
    activation_threshold: float = 0.0
    polling_seconds: float = 30.0
    cooldown_seconds: float = 300.0
    tolerance: float = 0.1
    behavior: HpaBehavior = DEFAULT_BEHAVIOR
    failure_threshold: int = 3
    fallback_replicas: int | None = None
    name: str = "keda"
    interval_seconds: float | None = 15.0

    def __post_init__(self) -> None:
        OneTarget.__post_init__(self)
        if not self.threshold > 0:
            raise ValueError(f"threshold must be positive, got {self.threshold}")
        if self.metric not in (IN_FLIGHT, WAITING):
            raise ValueError(f"metric must be {WAITING} or {IN_FLIGHT}, got {self.metric!r}")

    def initial_state(self) -> KedaState:
        """Return a state that takes over the count it finds."""
        return KedaState()

    def recommend(
        self, observation: Observation, state: KedaState
    ) -> tuple[Recommendation, KedaState]:
        """Return one, none, or what the HPA says."""
        now = observation.now_unix_seconds
        current = observation.current if state.replicas is None else state.replicas
        read = queue if self.metric == WAITING else concurrency
        metric = read(observation, counts_flex=self.counts_flex)
        state = self._poll(state, now, None if metric is None else metric.value)
        behavior = state.behavior
        idle_seconds = now - (now if state.active_seconds is None else state.active_seconds)
        if current == 0:
            desired = max(1, self.minimum_replicas) if state.is_active else self.minimum_replicas
            reason = "Activation" if desired else "Idle"
        elif metric is None:
            desired, reason = current, "MetricsMissing"
            if self.fallback_replicas is not None and state.failures >= self.failure_threshold:
                desired, reason = self.bounded(self.fallback_replicas), "Fallback"
        elif (
            self.minimum_replicas == 0
            and not state.is_active
            and idle_seconds >= self.cooldown_seconds
        ):
            desired, reason = 0, "Idle"
        else:
            wanted = replicas_for_total(
                metric.value, target=self.threshold, current=current, tolerance=self.tolerance
            )
            desired, behavior = apply_behavior(
                self.behavior,
                behavior,
                now_seconds=now,
                current=current,
                desired=max(1, self.bounded(wanted)),
            )
            reason = "Metric"
        recommendation = self.recommendation(observation, desired, policy=self.name, reason=reason)
        return recommendation, dataclasses.replace(state, replicas=desired, behavior=behavior)

    def _poll(self, state: KedaState, now: float, value: float | None) -> KedaState:
        if state.polled_seconds is not None and now - state.polled_seconds < self.polling_seconds:
            return state
        active_since = now if state.active_seconds is None else state.active_seconds
        if value is None:
            return dataclasses.replace(
                state, polled_seconds=now, active_seconds=active_since, failures=state.failures + 1
            )
        is_active = value > self.activation_threshold
        return dataclasses.replace(
            state,
            polled_seconds=now,
            active_seconds=now if is_active else active_since,
            is_active=is_active,
            failures=0,
        )
