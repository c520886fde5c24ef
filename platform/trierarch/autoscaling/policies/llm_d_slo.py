"""The ratio law of llm-d: latency over its objective, as a KEDA trigger.

Source: llm-d's guide to scaling on objectives: the larger of the p90 ratios of TTFT
and TPOT, clamped at 2 and averaged over 45 s; up above 0.55 with credit for replicas
that still start, down below 0.40 without; then an HPA with 30 s and at most the
larger of 100 % and 4 per minute up, 180 s and one per two minutes down. Its query
turns a missing metric into 0, so that an outage of metrics reads as an idle pool;
``missing_is_idle=False`` keeps the count instead.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.autoscaling.policies.hpa_behavior import (
    NO_MEMORY,
    BehaviorState,
    HpaBehavior,
    apply_behavior,
)
from trierarch.autoscaling.policies.one_target import OneTarget
from trierarch.autoscaling.policies.readings import quantile_seconds
from trierarch.autoscaling.policies.series import Sample, Series, extend, mean, since
from trierarch.autoscaling.policy import Recommendation
from trierarch.autoscaling.signals import Observation

GUIDE_BEHAVIOR = HpaBehavior(
    up_window_seconds=30.0,
    down_window_seconds=180.0,
    up_percent=100.0,
    up_replicas=4,
    up_period_seconds=60.0,
    down_percent=None,
    down_replicas=1,
    down_period_seconds=120.0,
)


@dataclasses.dataclass(frozen=True, slots=True)
class LlmDState:
    """The count, the ratios, and the memory of the behavior."""

    replicas: int | None = None
    ratios: Series = ()
    behavior: BehaviorState = NO_MEMORY


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LlmDSloPolicy(OneTarget):
    """Two thresholds on one ratio.

    Attributes:
        ttft_seconds: Objective.
        tpot_seconds: Objective.
        percentile: Of the latencies.
        up_ratio: More replicas above it.
        down_ratio: Fewer below it.
        highest_ratio: What a reading is clamped at.
        average_seconds: Of the moving average.
        missing_is_idle: As published; otherwise a missing metric keeps the count.
        tolerance: Of the HPA beneath.
        behavior: Of the HPA beneath.
        name: For tables.
        interval_seconds: Sync period.
    """

    ttft_seconds: float
    tpot_seconds: float
    percentile: float = 90.0
    up_ratio: float = 0.55
    down_ratio: float = 0.40
    highest_ratio: float = 2.0
    average_seconds: float = 45.0
    missing_is_idle: bool = True
    tolerance: float = 0.1
    behavior: HpaBehavior = GUIDE_BEHAVIOR
    name: str = "llm-d-slo"
    interval_seconds: float | None = 15.0

    def __post_init__(self) -> None:
        OneTarget.__post_init__(self)
        if not 0 < self.down_ratio <= self.up_ratio:
            raise ValueError("down_ratio must be positive and not above up_ratio")
        if not (self.ttft_seconds > 0 and self.tpot_seconds > 0):
            raise ValueError("ttft_seconds and tpot_seconds must be positive")

    def initial_state(self) -> LlmDState:
        """Return a state that takes over the count it finds."""
        return LlmDState()

    def recommend(
        self, observation: Observation, state: LlmDState
    ) -> tuple[Recommendation, LlmDState]:
        """Return the count of the ratio law, stabilized and limited."""
        now = observation.now_unix_seconds
        current = observation.current if state.replicas is None else state.replicas
        reading = self._ratio(observation)
        if reading is None:
            kept = self.bounded(current)
            held = self.recommendation(observation, kept, policy=self.name, reason="MetricsMissing")
            return held, dataclasses.replace(state, replicas=kept)
        ratios = extend(state.ratios, Sample(now, reading), keep_seconds=self.average_seconds)
        ratio = mean(since(ratios, self.average_seconds, now))
        wanted = self.wanted(ratio, current, observation.ready)
        if current and abs(wanted / current - 1) <= self.tolerance + 1e-12:
            wanted = current
        desired, behavior = apply_behavior(
            self.behavior,
            state.behavior,
            now_seconds=now,
            current=current,
            desired=self.bounded(wanted),
        )
        recommendation = self.recommendation(
            observation,
            self.bounded(desired),
            policy=self.name,
            reason="SloRatio",
            message=f"latency is {ratio:.2f} of its objective",
        )
        return recommendation, LlmDState(self.bounded(desired), ratios, behavior)

    def _ratio(self, observation: Observation) -> float | None:
        gateway = observation.gateway
        latencies = ((gateway.ttft, self.ttft_seconds), (gateway.tpot, self.tpot_seconds))
        known = [
            seconds / objective
            for signal, objective in latencies
            if (seconds := quantile_seconds(signal, self.percentile)) is not None
        ]
        if not known and not self.missing_is_idle:
            return None
        return min(self.highest_ratio, max(known, default=0.0))

    def wanted(self, ratio: float, current: int, ready: int) -> int:
        """Return the count for a ratio; the growth rule itself can ask for fewer."""
        if ratio > self.up_ratio:
            credit = ready / current if current else 1.0
            return current + math.ceil(current * (ratio * credit / self.up_ratio - 1))
        if ratio < self.down_ratio:
            return current - math.floor(current * (1 - ratio / self.down_ratio))
        return current
