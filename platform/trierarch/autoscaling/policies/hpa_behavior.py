"""The ``behavior`` of a Kubernetes HorizontalPodAutoscaler: windows, then rate limits.

KEDA, the ratio law of llm-d and the workload variant autoscaler act through it.
Source: ``pkg/controller/podautoscaler/horizontal.go`` and the defaults of
``autoscaling/v2``: no window up, 300 s down, up by the larger of 100 % and four
replicas in 15 s, down by 100 % in 15 s.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.autoscaling.policies.series import Sample, Series


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HpaBehavior:
    """Settings; a limit of None does not exist, of several the widest counts.

    Attributes:
        up_window_seconds: The smallest recommendation of this time counts upward.
        down_window_seconds: The largest recommendation of this time counts downward.
        up_percent: More per period, in percent.
        up_replicas: More per period.
        up_period_seconds: Period of both.
        down_percent: Fewer per period, in percent.
        down_replicas: Fewer per period.
        down_period_seconds: Period of both.
    """

    up_window_seconds: float = 0.0
    down_window_seconds: float = 300.0
    up_percent: float | None = 100.0
    up_replicas: int | None = 4
    up_period_seconds: float = 15.0
    down_percent: float | None = 100.0
    down_replicas: int | None = None
    down_period_seconds: float = 15.0


@dataclasses.dataclass(frozen=True, slots=True)
class BehaviorState:
    """Recommendations and changes that still matter, oldest first."""

    recommendations: Series = ()
    changes: Series = ()


def apply_behavior(
    behavior: HpaBehavior, state: BehaviorState, *, now_seconds: float, current: int, desired: int
) -> tuple[int, BehaviorState]:
    """Return the count that the autoscaler sets, and what it remembers."""
    longest = max(behavior.up_window_seconds, behavior.down_window_seconds)
    # The count found at first is the first recommendation.
    earliest = state.recommendations or (Sample(now_seconds, float(current)),)
    recommendations = _keep(earliest, now_seconds - longest)
    lowest, highest = desired, desired
    for earlier in recommendations:
        if earlier.at_seconds > now_seconds - behavior.up_window_seconds:
            lowest = min(lowest, int(earlier.value))
        if earlier.at_seconds > now_seconds - behavior.down_window_seconds:
            highest = max(highest, int(earlier.value))
    stabilized = min(max(current, lowest), highest)
    limited = _limit(behavior, state.changes, now_seconds, current, stabilized)
    period = max(behavior.up_period_seconds, behavior.down_period_seconds)
    changes = _keep(state.changes, now_seconds - period)
    if limited != current:
        changes = (*changes, Sample(now_seconds, float(limited - current)))
    return limited, BehaviorState((*recommendations, Sample(now_seconds, float(desired))), changes)


def _limit(
    behavior: HpaBehavior, changes: Series, now_seconds: float, current: int, desired: int
) -> int:
    if desired > current:
        start = current - _net(changes, now_seconds - behavior.up_period_seconds)
        limits = []
        if behavior.up_replicas is not None:
            limits.append(start + behavior.up_replicas)
        if behavior.up_percent is not None:
            limits.append(math.ceil(start * (1 + behavior.up_percent / 100)))
        return min(desired, max(current, max(limits))) if limits else desired
    if desired < current:
        start = current - _net(changes, now_seconds - behavior.down_period_seconds)
        limits = []
        if behavior.down_replicas is not None:
            limits.append(start - behavior.down_replicas)
        if behavior.down_percent is not None:
            limits.append(int(start * (1 - behavior.down_percent / 100)))
        return max(desired, min(current, min(limits))) if limits else desired
    return desired


def _net(changes: Series, after_seconds: float) -> int:
    return int(math.fsum(c.value for c in changes if c.at_seconds > after_seconds))


def _keep(series: Series, after_seconds: float) -> Series:
    return tuple(sample for sample in series if sample.at_seconds > after_seconds)


DEFAULT_BEHAVIOR = HpaBehavior()
NO_MEMORY = BehaviorState()
