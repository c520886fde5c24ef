"""What the two autoscalers of AIBrix share: snapshots of a mean, and cooldowns.

Source: ``pkg/controller/podautoscaler/{context,metrics,algorithm}`` of AIBrix at
e3e10f9: resync 10 s, observe window 180 s, up and down by at most a factor of 2,
tolerance 0.1, cooldown 0 s up and 300 s down. A snapshot is the mean over the
ready replicas.

The documented cooldown keeps the largest count of the down window and the smallest
of the up window. The code of that version does the reverse: one low reading within
five minutes is enough to scale down.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.autoscaling.policies.one_target import OneTarget
from trierarch.autoscaling.policies.readings import concurrency
from trierarch.autoscaling.policies.series import Sample, Series, extend, since
from trierarch.autoscaling.signals import Observation


@dataclasses.dataclass(frozen=True, slots=True)
class AibrixState:
    """Snapshots, wishes, the count that is set, and the panic of the KPA."""

    replicas: int | None = None
    load: Series = ()
    wishes: Series = ()
    panic_seconds: float | None = None
    panic_replicas: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AibrixTarget(OneTarget):
    """Settings of both.

    Attributes:
        target: Requests per replica, waiting and running.
        as_coded: Do what the code does instead of what the documents say.
        window_seconds: Observe window.
        up_tolerance: No change up to this far above the target.
        down_tolerance: No change up to this far below the target.
        up_rate: At most so many times the count.
        down_rate: At least the count divided by this.
        up_cooldown_seconds: Window of the growth rule.
        down_cooldown_seconds: Window of the shrinking rule.
        interval_seconds: Resync.
    """

    target: float
    as_coded: bool = False
    window_seconds: float = 180.0
    up_tolerance: float = 0.1
    down_tolerance: float = 0.1
    up_rate: float = 2.0
    down_rate: float = 2.0
    up_cooldown_seconds: float = 0.0
    down_cooldown_seconds: float = 300.0
    interval_seconds: float | None = 10.0

    def __post_init__(self) -> None:
        OneTarget.__post_init__(self)
        if not (self.target > 0 and self.up_rate > 1 and self.down_rate > 1):
            raise ValueError("target must be positive, up_rate and down_rate above 1")

    def snapshot(self, observation: Observation) -> Sample | None:
        """Return the mean over the ready replicas; None without metric or replica."""
        total = concurrency(observation, counts_flex=self.counts_flex)
        if total is None or observation.ready == 0:
            return None
        return Sample(total.at_seconds, total.value / observation.ready)

    def cooled(self, series: Series, now: float, current: int, wish: int) -> tuple[int, Series]:
        """Return what the cooldowns leave of a wish, and the wishes kept.

        The count found at first counts as a wish, so that an empty beginning takes nothing away.
        """
        series = series or (Sample(math.nextafter(now, -math.inf), float(current)),)
        longest = max(self.up_cooldown_seconds, self.down_cooldown_seconds)
        wishes = extend(series, Sample(now, float(wish)), keep_seconds=longest)
        if wish > current:
            values = _values(wishes, self.up_cooldown_seconds, now)
            return (max(values) if self.as_coded else max(current, min(values))), wishes
        if wish < current:
            values = _values(wishes, self.down_cooldown_seconds, now)
            return (min(values) if self.as_coded else min(current, max(values))), wishes
        return wish, wishes


def _values(series: Series, window_seconds: float, now: float) -> list[int]:
    return [math.floor(sample.value) for sample in since(series, window_seconds, now)]
