"""WVA's second engine: demand and capacity in tokens, at the least cost per capacity.

Source: ``internal/engines/analyzers/saturation_v2``: 0.80 of KV memory, saturated
from 5 queued, a mean of ten observations by variant and class of output length,
0.85 up and 0.70 down. Publishing and following: see ``wva_actuation``.
"""

from __future__ import annotations

import dataclasses
import math
import statistics

from trierarch.autoscaling.policies.readings import held_requests, held_tokens, lengths
from trierarch.autoscaling.policies.wva_actuation import (
    VariantState,
    WvaSettings,
    cost,
    follow,
    published_counts,
    take_over,
)
from trierarch.autoscaling.policy import Recommendation
from trierarch.autoscaling.signals import Observation, ReplicaLoad, VariantObservation
from trierarch.core.identifiers import VariantName

SHORT_OUTPUT_TOKENS, LONG_OUTPUT_TOKENS = 100, 500
KEPT_OBSERVATIONS = 10


@dataclasses.dataclass(frozen=True, slots=True)
class SeenLimit:
    """Tokens in use of saturated replicas of one variant and class, newest last."""

    name: VariantName
    output_class: int
    tokens: tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class WvaTokensState:
    """The memory of the variants, and what saturated replicas held."""

    variants: tuple[VariantState, ...] = ()
    seen: tuple[SeenLimit, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WvaTokensPolicy(WvaSettings):
    """Token demand against token supply.

    Attributes:
        kv_threshold_ratio: Share of KV memory that counts as capacity.
        queue_threshold: A replica with so many queued shows what it can hold.
        up_ratio: More replicas when demand is above this share of the supply.
        down_ratio: Fewer when it is below this share.
        name: For tables.
    """

    kv_threshold_ratio: float = 0.80
    queue_threshold: float = 5.0
    up_ratio: float = 0.85
    down_ratio: float = 0.70
    name: str = "wva-v2"

    def initial_state(self) -> WvaTokensState:
        """Return a state that takes over the counts it finds."""
        return WvaTokensState()

    def recommend(
        self, observation: Observation, state: WvaTokensState
    ) -> tuple[Recommendation, WvaTokensState]:
        """Return as many of the best variant as tokens lack, or fewer of the dearest."""
        states = take_over(observation, state.variants)
        shape = lengths(observation)
        requests, tokens = held_requests(observation), held_tokens(observation)
        if shape is None or requests is None or tokens is None:
            counts, states = follow(self, observation, states, published_counts(states))
            held = Recommendation(counts, self.name, "MetricsMissing")
            return held, dataclasses.replace(state, variants=states)
        seen = self._learn(state.seen, observation, shape[1])
        capacity = {
            variant.name: self.capacity(variant, seen, *shape) for variant in observation.variants
        }
        waiting = max(tokens.value, requests.value * shape[0]) + requests.value * shape[1]
        demand = waiting + math.fsum(
            load.kv_used_tokens + load.waiting_tokens
            for variant in observation.variants
            for load in variant.replicas
        )
        supply = math.fsum(v.ready * capacity[v.name] for v in observation.variants)
        coming = math.fsum(v.current * capacity[v.name] for v in observation.variants)
        required = demand / self.up_ratio - coming
        spare = supply - demand / self.down_ratio
        published = {variant.name: variant.current for variant in observation.variants}
        reason = "Steady"
        if required > 0:
            reason = "Required"
            self._grow(observation, published, capacity, required)
        elif spare > 0:
            reason = "Spare"
            self._shrink(observation, published, capacity, spare)
        message = f"{demand:.0f} tokens wanted of {supply:.0f}"
        counts, states = follow(self, observation, states, published)
        return Recommendation(counts, self.name, reason, message), WvaTokensState(states, seen)

    def capacity(
        self,
        variant: VariantObservation,
        seen: tuple[SeenLimit, ...],
        inputs: float,
        outputs: float,
    ) -> float:
        """Return the median capacity of a variant's replicas in tokens."""
        profile = self.profile(variant.name)
        memory = self.kv_threshold_ratio * profile.kv_tokens
        together = min(
            profile.step_tokens * outputs / (inputs + outputs), float(profile.maximum_requests)
        )
        believed = together * (inputs + outputs / 2)
        for limit in seen:
            if (limit.name, limit.output_class) == (variant.name, _output_class(outputs)):
                believed = math.fsum(limit.tokens) / len(limit.tokens)
        each = [
            min(memory, load.kv_used_tokens if self._shows_limit(load) else believed)
            for load in variant.replicas
        ]
        return max(1.0, statistics.median(each) if each else min(memory, believed))

    def _shows_limit(self, load: ReplicaLoad) -> bool:
        return load.waiting_requests >= self.queue_threshold and load.kv_used_tokens > 0

    def _learn(
        self, seen: tuple[SeenLimit, ...], observation: Observation, outputs: float
    ) -> tuple[SeenLimit, ...]:
        limits = {(limit.name, limit.output_class): limit.tokens for limit in seen}
        for variant in observation.variants:
            key = (variant.name, _output_class(outputs))
            new = tuple(load.kv_used_tokens for load in variant.replicas if self._shows_limit(load))
            if new:
                limits[key] = (*limits.get(key, ()), *new)[-KEPT_OBSERVATIONS:]
        return tuple(SeenLimit(*key, tokens) for key, tokens in limits.items())

    def _grow(
        self,
        observation: Observation,
        published: dict[VariantName, int],
        capacity: dict[VariantName, float],
        required: float,
    ) -> None:
        able = [v for v in observation.variants if self.takes_more(v.name, published[v.name])]
        if able:
            best = min(able, key=lambda variant: cost(variant) / capacity[variant.name]).name
            published[best] += math.ceil(required / capacity[best])

    def _shrink(
        self,
        observation: Observation,
        published: dict[VariantName, int],
        capacity: dict[VariantName, float],
        spare: float,
    ) -> None:
        cheapest = min(observation.variants, key=cost).name
        for variant in sorted(observation.variants, key=cost, reverse=True):
            kept = 1 if variant.name == cheapest else 0
            able = max(0, published[variant.name] - kept)
            removed = min(able, math.floor(spare / capacity[variant.name]))
            published[variant.name] -= removed
            spare -= removed * capacity[variant.name]


def _output_class(outputs: float) -> int:
    if outputs < SHORT_OUTPUT_TOKENS:
        return 0
    return 1 if outputs < LONG_OUTPUT_TOKENS else 2
