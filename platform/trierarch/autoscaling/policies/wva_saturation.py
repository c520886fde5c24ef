"""WVA's first engine: one replica more or fewer, by what is left of KV memory and queue.

Source: ``internal/saturation/analyzer.go``; thresholds 0.80 of KV memory and 5
queued, triggers 0.10 and 3. A variant in transition freezes the whole model, and so
does a replica without metrics. Publishing and following: see ``wva_actuation``.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.autoscaling.policies.readings import loads
from trierarch.autoscaling.policies.wva_actuation import (
    VariantState,
    WvaSettings,
    cost,
    follow,
    published_counts,
    take_over,
)
from trierarch.autoscaling.policy import Recommendation
from trierarch.autoscaling.signals import Observation, ReplicaLoad
from trierarch.core.identifiers import VariantName


@dataclasses.dataclass(frozen=True, slots=True)
class WvaSaturationState:
    """The memory of the variants."""

    variants: tuple[VariantState, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WvaSaturationPolicy(WvaSettings):
    """Spare capacity against triggers.

    Attributes:
        kv_threshold_ratio: A replica is saturated from here.
        queue_threshold: Or from here.
        kv_trigger_ratio: More replicas below this mean spare.
        queue_trigger: Or below this one.
        name: For tables.
    """

    kv_threshold_ratio: float = 0.80
    queue_threshold: float = 5.0
    kv_trigger_ratio: float = 0.10
    queue_trigger: float = 3.0
    name: str = "wva-v1"

    def initial_state(self) -> WvaSaturationState:
        """Return a state that takes over the counts it finds."""
        return WvaSaturationState()

    def recommend(
        self, observation: Observation, state: WvaSaturationState
    ) -> tuple[Recommendation, WvaSaturationState]:
        """Return one more of the cheapest, one fewer of the dearest, or no change."""
        states = take_over(observation, state.variants)
        published = published_counts(states)
        replicas = loads(observation)
        if replicas is None:
            reason = "MetricsMissing"
        elif self._is_in_transition(observation, published):
            reason = "InTransition"
        else:
            step = self.step(replicas)
            reason = {1: "Saturated", -1: "Spare"}.get(step, "Steady")
            name = self._choose(observation, published, step)
            if name is not None:
                published[name] += step
        counts, states = follow(self, observation, states, published)
        return Recommendation(counts, self.name, reason), WvaSaturationState(states)

    def step(self, replicas: tuple[ReplicaLoad, ...]) -> int:
        """Return 1, 0 or -1 for the loads of all ready replicas."""
        free = [
            load
            for load in replicas
            if load.kv_used_ratio < self.kv_threshold_ratio
            and load.waiting_requests < self.queue_threshold
        ]
        if not free:
            return 1
        kv = math.fsum(load.kv_used_ratio for load in free) / len(free)
        queue = math.fsum(load.waiting_requests for load in free) / len(free)
        if self._lacks(kv, queue):
            return 1
        if len(free) < 2:
            return 0
        grown = len(free) / (len(free) - 1)
        return 0 if self._lacks(kv * grown, queue * grown) else -1

    def _lacks(self, kv: float, queue: float) -> bool:
        return (
            self.kv_threshold_ratio - kv < self.kv_trigger_ratio
            or self.queue_threshold - queue < self.queue_trigger
        )

    def _is_in_transition(
        self, observation: Observation, published: dict[VariantName, int]
    ) -> bool:
        return any(
            published[variant.name] != variant.current or len(variant.replicas) != variant.current
            for variant in observation.variants
        )

    def _choose(
        self, observation: Observation, published: dict[VariantName, int], step: int
    ) -> VariantName | None:
        if step > 0:
            able = [v for v in observation.variants if self.takes_more(v.name, published[v.name])]
            return min(able, key=cost).name if able else None
        if step < 0:
            able = [variant for variant in observation.variants if published[variant.name] > 1]
            return max(able, key=cost).name if able else None
        return None
