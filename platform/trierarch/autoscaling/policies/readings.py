"""What a peer's metric is in terms of an observation; the same reading for every peer.

Only fresh measurements count: a scrape that failed leaves a peer without its
metric, and each law says what it does then. Requests that our gateway holds would
wait in the engines of a peer's world, so every queue includes them. Work that can
wait for a day (flex) is left out unless asked for: an operator labels it.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.autoscaling.policies.series import Sample
from trierarch.autoscaling.signals import (
    LatencySignal,
    Measured,
    Observation,
    ReplicaLoad,
    Signal,
    TierSignals,
)


def _sum(signals: tuple[Signal, ...]) -> Sample | None:
    """Return the sum and the age of its oldest part; None if a part is not fresh."""
    measured = [signal for signal in signals if isinstance(signal, Measured)]
    if not measured or len(measured) < len(signals):
        return None
    return Sample(
        min(signal.at_unix_seconds for signal in measured),
        math.fsum(signal.value for signal in measured),
    )


def _lanes(tiers: TierSignals, *, counts_flex: bool) -> tuple[Signal, ...]:
    lanes = (tiers.priority, tiers.default)
    return (*lanes, tiers.flex) if counts_flex else lanes


def held_requests(observation: Observation, *, counts_flex: bool = False) -> Sample | None:
    """Return the requests that wait at the gateway."""
    return _sum(_lanes(observation.gateway.waiting_requests, counts_flex=counts_flex))


def held_tokens(observation: Observation, *, counts_flex: bool = False) -> Sample | None:
    """Return the prompt tokens that wait at the gateway."""
    return _sum(_lanes(observation.gateway.waiting_tokens, counts_flex=counts_flex))


def arrival_rate(observation: Observation, *, counts_flex: bool = False) -> Sample | None:
    """Return requests per second."""
    return _sum(_lanes(observation.gateway.arrivals_per_second, counts_flex=counts_flex))


def concurrency(observation: Observation, *, counts_flex: bool = False) -> Sample | None:
    """Return the requests that wait or run anywhere."""
    gateway = observation.gateway
    held = held_requests(observation, counts_flex=counts_flex)
    running = _sum((gateway.in_flight_requests,))
    if held is None or running is None:
        return None
    flex = None if counts_flex else _sum((gateway.flex_in_flight_requests,))
    in_flight = max(0.0, running.value - (0.0 if flex is None else flex.value))
    return Sample(min(held.at_seconds, running.at_seconds), held.value + in_flight)


def queue(observation: Observation, *, counts_flex: bool = False) -> Sample | None:
    """Return the requests that wait, at the gateway and in the engines that serve."""
    held = held_requests(observation, counts_flex=counts_flex)
    engines = tuple(v.engine.waiting_requests for v in observation.variants if v.ready)
    if held is None:
        return None
    if not engines:
        return held
    waiting = _sum(engines)
    if waiting is None:
        return None
    return Sample(min(held.at_seconds, waiting.at_seconds), held.value + waiting.value)


def lengths(observation: Observation) -> tuple[float, float] | None:
    """Return the mean input and output tokens of a request; None before any is known."""
    gateway = observation.gateway
    inputs, outputs = gateway.mean_input_tokens, gateway.mean_output_tokens
    if not isinstance(inputs, Measured) or not isinstance(outputs, Measured):
        return None
    return inputs.value, max(1.0, outputs.value)


def quantile_seconds(latency: LatencySignal, percentile: float) -> float | None:
    """Return a latency quantile; None if it is not fresh."""
    return latency.value.at_percentile(percentile) if isinstance(latency, Measured) else None


def loads(observation: Observation) -> tuple[ReplicaLoad, ...] | None:
    """Return every reporting replica with its share of what the gateway holds.

    None if metrics are not fresh or no replica reports.
    """
    requests, tokens = held_requests(observation), held_tokens(observation)
    reporting = [load for variant in observation.variants for load in variant.replicas]
    if requests is None or tokens is None or not reporting:
        return None
    return tuple(
        share_held(load, requests.value / len(reporting), tokens.value / len(reporting))
        for load in reporting
    )


def share_held(load: ReplicaLoad, requests: float, tokens: float) -> ReplicaLoad:
    """Return a replica's load with held work added to its own queue."""
    return dataclasses.replace(
        load,
        waiting_requests=load.waiting_requests + requests,
        waiting_tokens=load.waiting_tokens + tokens,
    )
