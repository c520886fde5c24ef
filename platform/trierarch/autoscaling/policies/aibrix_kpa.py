"""AIBrix's KPA: a stable and a panic window after Knative.

Defaults and source: see ``aibrix_windows``; the panic window is 60 s and a panic
begins at twice the stable mean. As coded it divides the mean of *one* replica by
the target, without the number of replicas, takes a stable mean of zero for a
panic, and forgets a panic's highest count; as documented it does neither.
Without its metric it keeps the count.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.autoscaling.policies.aibrix_windows import AibrixState, AibrixTarget
from trierarch.autoscaling.policies.series import extend, mean, since
from trierarch.autoscaling.policy import Recommendation
from trierarch.autoscaling.signals import Observation


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AibrixKpaPolicy(AibrixTarget):
    """Two means per replica against the target.

    Attributes:
        panic_window_seconds: Of the short mean.
        panic_threshold_ratio: Panic above so many times the stable mean.
        name: For tables.
    """

    panic_window_seconds: float = 60.0
    panic_threshold_ratio: float = 2.0
    name: str = "aibrix-kpa"

    def initial_state(self) -> AibrixState:
        """Return a state that takes over the count it finds."""
        return AibrixState()

    def recommend(
        self, observation: Observation, state: AibrixState
    ) -> tuple[Recommendation, AibrixState]:
        """Return the larger count in a panic, the stable one otherwise, cooled down."""
        now = observation.now_unix_seconds
        current = observation.current if state.replicas is None else state.replicas
        snapshot = self.snapshot(observation)
        if snapshot is None:
            kept = self.bounded(current)
            held = self.recommendation(observation, kept, policy=self.name, reason="MetricsMissing")
            return held, dataclasses.replace(state, replicas=kept)
        load = extend(state.load, snapshot, keep_seconds=self.window_seconds)
        newest = load[-1].at_seconds
        stable = mean(since(load, self.window_seconds, newest))
        panic = mean(since(load, self.panic_window_seconds, newest))
        panic_seconds, most = state.panic_seconds, state.panic_replicas
        if self.is_panic(stable, panic):
            panic_seconds = now
        elif self.as_coded or (
            panic_seconds is not None and now - panic_seconds > self.window_seconds
        ):
            panic_seconds, most = None, 0
        wish = self.wanted(stable, current)
        if panic_seconds is not None:
            wish = max(wish, self.wanted(panic, current))
            if not self.as_coded:
                wish = most = max(most, wish)
        desired, wishes = self.cooled(state.wishes, now, current, self.bounded(wish))
        desired = self.bounded(desired)
        recommendation = self.recommendation(
            observation,
            desired,
            policy=self.name,
            reason="Stable" if panic_seconds is None else "Panic",
            message=f"{stable:.1f} requests per replica, lately {panic:.1f}",
        )
        return recommendation, AibrixState(desired, load, wishes, panic_seconds, most)

    def is_panic(self, stable: float, panic: float) -> bool:
        """Return whether the short mean is far above the long one."""
        if stable <= 0:
            return self.as_coded or panic > 0
        return panic / stable > self.panic_threshold_ratio

    def wanted(self, usage: float, current: int) -> int:
        """Return the count for one mean, inside the rates of change."""
        ratio = usage / self.target
        wanted = current
        if not 1 - self.down_tolerance <= ratio <= 1 + self.up_tolerance:
            wanted = math.ceil(ratio if self.as_coded else ratio * current)
        highest = max(1, math.ceil(self.up_rate * current))
        return min(highest, max(math.floor(current / self.down_rate), wanted))
