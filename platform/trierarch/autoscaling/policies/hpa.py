"""Kubernetes HorizontalPodAutoscaler, autoscaling/v2.

Source: ``pkg/controller/podautoscaler/{horizontal.go,replica_calculator.go}``.
Sync period 15 s, tolerance 0.1. It has no default target; the number of replicas
is the one it set itself, because the workload replaces what is lost. Without its
metric it keeps the count.
"""

from __future__ import annotations

import dataclasses
import math

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

IN_FLIGHT, WAITING = "in-flight", "waiting"
AVERAGE_VALUE, PODS = "average-value", "pods"


@dataclasses.dataclass(frozen=True, slots=True)
class HpaState:
    """The count it set, and the memory of its behavior."""

    replicas: int | None = None
    behavior: BehaviorState = NO_MEMORY


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HpaPolicy(OneTarget):
    """One metric against one target.

    Attributes:
        target: Of the metric, per replica.
        metric: ``in-flight`` (waiting and running) or ``waiting``.
        kind: ``average-value`` divides a total by the target, ``pods`` averages over replicas.
        tolerance: No change while the ratio is this close to 1.
        behavior: Windows and rates.
        name: For tables.
        interval_seconds: Sync period.
    """

    target: float
    metric: str = IN_FLIGHT
    kind: str = AVERAGE_VALUE
    tolerance: float = 0.1
    behavior: HpaBehavior = DEFAULT_BEHAVIOR
    name: str = "hpa"
    interval_seconds: float | None = 15.0

    def __post_init__(self) -> None:
        OneTarget.__post_init__(self)
        if not self.target > 0:
            raise ValueError(f"target must be positive, got {self.target}")
        if self.metric not in (IN_FLIGHT, WAITING):
            raise ValueError(f"metric must be {IN_FLIGHT} or {WAITING}, got {self.metric!r}")
        if self.kind not in (AVERAGE_VALUE, PODS):
            raise ValueError(f"kind must be {AVERAGE_VALUE} or {PODS}, got {self.kind!r}")

    def initial_state(self) -> HpaState:
        """Return a state that takes over the count it finds."""
        return HpaState()

    def recommend(
        self, observation: Observation, state: HpaState
    ) -> tuple[Recommendation, HpaState]:
        """Return the count of the metric, stabilized and limited."""
        current = observation.current if state.replicas is None else state.replicas
        read = concurrency if self.metric == IN_FLIGHT else queue
        metric = read(observation, counts_flex=self.counts_flex)
        behavior = state.behavior
        if metric is None or (self.kind == PODS and not observation.ready):
            desired, reason, message = self.bounded(current), "MetricsMissing", "no metric; hold"
        else:
            wanted = self.bounded(self._wanted(observation, current, metric.value))
            desired, behavior = apply_behavior(
                self.behavior,
                behavior,
                now_seconds=observation.now_unix_seconds,
                current=current,
                desired=wanted,
            )
            reason = "Metric"
            message = f"{self.metric} {metric.value:g} asks for {wanted} at {self.target:g} each"
        recommendation = self.recommendation(
            observation, desired, policy=self.name, reason=reason, message=message
        )
        return recommendation, HpaState(desired, behavior)

    def _wanted(self, observation: Observation, current: int, total: float) -> int:
        if self.kind == AVERAGE_VALUE:
            return replicas_for_total(
                total, target=self.target, current=current, tolerance=self.tolerance
            )
        reporting = sum(len(variant.replicas) for variant in observation.variants)
        missing = max(0, observation.ready - reporting) if reporting else 0
        return replicas_for_average(
            total,
            reporting=observation.ready - missing,
            missing=missing,
            unready=max(0, current - observation.ready),
            target=self.target,
            current=current,
            tolerance=self.tolerance,
        )


def replicas_for_total(total: float, *, target: float, current: int, tolerance: float) -> int:
    """Return the count for an external or object metric of type ``AverageValue``."""
    if current > 0 and abs(1.0 - total / (target * current)) <= tolerance + 1e-12:
        return current
    return math.ceil(total / target)


def replicas_for_average(
    total: float,
    *,
    reporting: int,
    missing: int,
    unready: int,
    target: float,
    current: int,
    tolerance: float,
) -> int:
    """Return the count for a ``Pods`` metric.

    Args:
        total: Sum over the replicas that report.
        reporting: Those.
        missing: Ready ones without a metric; on target on the way down, idle on the way up.
        unready: Idle on the way up.
        target: Per replica.
        current: The count that is set.
        tolerance: No change inside it.
    """
    if reporting <= 0:
        return current
    ratio = total / reporting / target
    counts_unready = unready > 0 and ratio > 1
    if not missing and not counts_unready:
        if abs(1.0 - ratio) <= tolerance + 1e-12:
            return current
        return math.ceil(ratio * reporting)
    replicas = reporting + missing + (unready if counts_unready else 0)
    padded = total + (missing * target if ratio < 1 else 0.0)
    again = padded / replicas / target
    if abs(1.0 - again) <= tolerance + 1e-12 or (ratio < 1 < again) or (again < 1 < ratio):
        return current
    wanted = math.ceil(again * replicas)
    turned = wanted > current if again < 1 else wanted < current
    return current if turned else wanted
