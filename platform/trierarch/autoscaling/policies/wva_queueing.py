"""WVA's model-based engine (Inferno): the highest rate that a queue model lets pass.

Source: ``pkg/{analyzer,core,solver}`` of the same repository; written and tested
there, but not part of what is shipped. A state-dependent M/M/1/K chain with
K = 11 N, mean latencies against the objectives, a switch penalty of a tenth of both
costs. One variant carries everything; where that is the cheapest and the market has
no more of it, the next one stands in, as a node provisioner beneath would have it.
Publishing and following: ``wva_actuation``.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from trierarch.autoscaling.policies.one_target import CHEAPEST, spread
from trierarch.autoscaling.policies.readings import arrival_rate, lengths
from trierarch.autoscaling.policies.replica_profile import ReplicaProfile
from trierarch.autoscaling.policies.series import Series, extend, mean, since
from trierarch.autoscaling.policies.wva_actuation import (
    VariantState,
    WvaSettings,
    cost,
    follow,
    published_counts,
    take_over,
)
from trierarch.autoscaling.policy import Recommendation
from trierarch.autoscaling.queueing import rounded
from trierarch.autoscaling.signals import Observation
from trierarch.core.identifiers import VariantName

QUEUE_PER_SEAT = 10
"""Places in line per seat."""
SWITCH_PENALTY_RATIO = 0.1
SEARCH_STEPS = 20
HIGHEST_LOAD_RATIO = 0.999


@dataclasses.dataclass(frozen=True, slots=True)
class WvaQueueingState:
    """The memory of the variants, and the arrivals of the last minute."""

    variants: tuple[VariantState, ...] = ()
    arrivals: Series = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WvaQueueingPolicy(WvaSettings):
    """Arrivals over the rate one replica can take.

    Attributes:
        ttft_seconds: Mean that may not be exceeded.
        tpot_seconds: Mean that may not be exceeded.
        rate_window_seconds: Of the arrival rate.
        name: For tables.
    """

    ttft_seconds: float
    tpot_seconds: float
    rate_window_seconds: float = 60.0
    name: str = "wva-queue-model"

    def initial_state(self) -> WvaQueueingState:
        """Return a state that takes over the counts it finds."""
        return WvaQueueingState()

    def recommend(
        self, observation: Observation, state: WvaQueueingState
    ) -> tuple[Recommendation, WvaQueueingState]:
        """Return the count of the variant with the least value, and none of the others."""
        states = take_over(observation, state.variants)
        published = published_counts(states)
        rate, shape = arrival_rate(observation), lengths(observation)
        if rate is None or shape is None:
            counts, states = follow(self, observation, states, published)
            held = Recommendation(counts, self.name, "MetricsMissing")
            return held, WvaQueueingState(states, state.arrivals)
        arrivals = extend(state.arrivals, rate, keep_seconds=self.rate_window_seconds)
        load = mean(since(arrivals, self.rate_window_seconds, arrivals[-1].at_seconds))
        chosen = self._choose(observation, published, load, shape)
        reason = "NoFeasibleVariant"
        if chosen is not None:
            reason = "QueueModel"
            published = {name: chosen[1] if name == chosen[0] else 0 for name in published}
        counts, states = follow(self, observation, states, published)
        if chosen is not None and chosen[0] == min(observation.variants, key=cost).name:
            total = sum(counts.values())
            counts = dict(spread(observation, total, mix=CHEAPEST, floor_ratio=0.0))
        message = f"{load:.2f} requests/s arrive"
        return Recommendation(counts, self.name, reason, message), WvaQueueingState(
            states, arrivals
        )

    def _choose(
        self,
        observation: Observation,
        published: dict[VariantName, int],
        load: float,
        shape: tuple[float, float],
    ) -> tuple[VariantName, int] | None:
        costs = {variant.name: cost(variant) for variant in observation.variants}
        now_on = max(published, key=lambda name: published[name])
        cost_now = published[now_on] * costs[now_on]
        best: tuple[float, VariantName, int] | None = None
        for name in published:
            rate = highest_rate(
                self.profile(name),
                rounded(shape[0]),
                rounded(shape[1]),
                self.ttft_seconds,
                self.tpot_seconds,
            )
            if rate <= 0:
                continue
            replicas = max(1, math.ceil(load / rate))
            cost_then = replicas * costs[name]
            value = cost_then - cost_now
            if name != now_on:
                value += SWITCH_PENALTY_RATIO * (cost_now + cost_then)
            if best is None or value < best[0]:
                best = (value, name, replicas)
        return None if best is None else best[1:]


@dataclasses.dataclass(frozen=True, slots=True)
class MeanLatency:
    """What the chain predicts on average."""

    ttft_seconds: float
    tpot_seconds: float


def predict(profile: ReplicaProfile, inputs: float, outputs: float, rate: float) -> MeanLatency:
    """Return the mean latencies of one replica at a rate below its greatest."""
    seats = profile.seats(inputs, outputs)
    weight, total, inside = 1.0, 1.0, 0.0
    for running in range(1, seats + 1):
        weight *= rate / profile.service_rate(running, inputs, outputs)
        total += weight
        inside += running * weight
        if total > 1e200:
            weight, total, inside = weight / total, 1.0, inside / total
    ratio = rate / profile.service_rate(seats, inputs, outputs)
    places = QUEUE_PER_SEAT * seats
    power = ratio**places
    queued = weight * ratio * (1 - power) / (1 - ratio)
    waiting = queued / (1 - ratio) - weight * places * power * ratio / (1 - ratio)
    total, inside = total + queued, inside + seats * queued
    running_mean = inside / total
    accepted = rate * (1 - weight * power / total)
    wait = max(0.0, waiting) / total / accepted
    decode = profile.decode_seconds(running_mean, inputs, outputs)
    return MeanLatency(
        wait + profile.prefill_seconds(running_mean, inputs, outputs) + decode, decode
    )


@functools.lru_cache(maxsize=4096)
def highest_rate(
    profile: ReplicaProfile, inputs: float, outputs: float, ttft_seconds: float, tpot_seconds: float
) -> float:
    """Return the most requests per second with both mean latencies kept; 0 if none."""

    def keeps(rate: float) -> bool:
        latency = predict(profile, inputs, outputs, rate)
        return latency.ttft_seconds <= ttft_seconds and latency.tpot_seconds <= tpot_seconds

    seats = profile.seats(inputs, outputs)
    high = HIGHEST_LOAD_RATIO * profile.service_rate(seats, inputs, outputs)
    if keeps(high):
        return high
    low = 0.0
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        if keeps(middle):
            low = middle
        else:
            high = middle
    return low
