"""AIBrix's APA: proportional, with a dead band and a factor of two either way.

Defaults and source: see ``aibrix_windows``. Without its metric it keeps the count.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.autoscaling.policies.aibrix_windows import AibrixState, AibrixTarget
from trierarch.autoscaling.policies.series import extend, mean, since
from trierarch.autoscaling.policy import Recommendation
from trierarch.autoscaling.signals import Observation


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AibrixApaPolicy(AibrixTarget):
    """The mean per replica over the observe window against the target."""

    name: str = "aibrix-apa"

    def initial_state(self) -> AibrixState:
        """Return a state that takes over the count it finds."""
        return AibrixState()

    def recommend(
        self, observation: Observation, state: AibrixState
    ) -> tuple[Recommendation, AibrixState]:
        """Return the proportional count, cooled down."""
        now = observation.now_unix_seconds
        current = observation.current if state.replicas is None else state.replicas
        snapshot = self.snapshot(observation)
        if snapshot is None:
            kept = self.bounded(current)
            held = self.recommendation(observation, kept, policy=self.name, reason="MetricsMissing")
            return held, dataclasses.replace(state, replicas=kept)
        load = extend(state.load, snapshot, keep_seconds=self.window_seconds)
        usage = mean(since(load, self.window_seconds, load[-1].at_seconds))
        wish = self.bounded(self.wanted(usage, current))
        desired, wishes = self.cooled(state.wishes, now, current, wish)
        desired = self.bounded(desired)
        recommendation = self.recommendation(
            observation,
            desired,
            policy=self.name,
            reason="Usage",
            message=f"{usage:.1f} requests per replica for a target of {self.target:g}",
        )
        return recommendation, AibrixState(desired, load, wishes)

    def wanted(self, usage: float, current: int) -> int:
        """Return the count for a usage per replica, before bounds and cooldowns."""
        ratio = usage / self.target
        if ratio > 1 + self.up_tolerance:
            return min(math.ceil(current * ratio), math.ceil(self.up_rate * current))
        if ratio < 1 - self.down_tolerance:
            return max(math.ceil(current * ratio), math.floor(current / self.down_rate))
        return current
