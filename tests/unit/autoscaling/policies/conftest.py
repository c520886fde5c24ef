"""Observations as the unit vectors of the peers' laws need them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trierarch.autoscaling.policies.replica_profile import ReplicaProfile
from trierarch.autoscaling.signals import (
    EngineSignals,
    GatewaySignals,
    LatencySummary,
    Measured,
    Missing,
    Observation,
    ReplicaLoad,
    Stale,
    StartingReplica,
    TierSignals,
    VariantObservation,
)
from trierarch.core.identifiers import ModelName, ReplicaId, VariantName


def make_variant(
    name: str = "gpu",
    *,
    ready: int = 1,
    starting: int = 0,
    price: float = 10.0,
    not_obtained: int = 0,
    loads: tuple[tuple[float, float, float, float], ...] = (),
    engine_waiting: float = 0.0,
    now: float = 0.0,
) -> VariantObservation:
    """Loads are (KV ratio, waiting requests, KV tokens, waiting tokens) of each replica."""
    return VariantObservation(
        name=VariantName(name),
        ready=ready,
        starting=tuple(StartingReplica(now + 60.0) for _ in range(starting)),
        price_usd_per_hour=Measured(price, now),
        not_obtained=not_obtained,
        engine=EngineSignals(waiting_requests=Measured(engine_waiting, now)),
        replicas=tuple(
            ReplicaLoad(
                replica_id=ReplicaId(f"{name}-{place}"),
                running_requests=0.0,
                waiting_requests=waiting,
                kv_used_ratio=ratio,
                kv_used_tokens=tokens,
                waiting_tokens=waiting_tokens,
            )
            for place, (ratio, waiting, tokens, waiting_tokens) in enumerate(loads)
        ),
    )


def make_observation(
    *variants: VariantObservation,
    now: float = 0.0,
    held: float = 0.0,
    held_tokens: float = 0.0,
    held_flex: float = 0.0,
    running: float = 0.0,
    rate: float = 0.0,
    shape: tuple[float, float] | None = (1000.0, 200.0),
    ttft: float | None = None,
    tpot: float | None = None,
    metrics: str = "measured",
    **variant: Any,
) -> Observation:
    """Without variants there is one, made from the keywords left over."""
    if metrics == "measured":

        def signal(value: float) -> Any:
            return Measured(value, now)

    elif metrics == "stale":

        def signal(value: float) -> Any:
            return Stale(value, now)

    else:

        def signal(value: float) -> Any:
            return Missing()

    def latency(seconds: float | None) -> Any:
        if seconds is None or metrics == "missing":
            return Missing("NoSamples")
        summary = LatencySummary(10, seconds, ((0.5, seconds), (0.9, seconds)))
        return Measured(summary, now) if metrics == "measured" else Stale(summary, now)

    zero = signal(0.0)
    return Observation(
        now_unix_seconds=now,
        deployment="test/model",
        model=ModelName("model"),
        variants=variants or (make_variant(now=now, **variant),),
        gateway=GatewaySignals(
            arrivals_per_second=TierSignals(zero, signal(rate), zero),
            waiting_requests=TierSignals(zero, signal(held), signal(held_flex)),
            waiting_tokens=TierSignals(zero, signal(held_tokens), zero),
            in_flight_requests=signal(running),
            mean_input_tokens=Missing() if shape is None else signal(shape[0]),
            mean_output_tokens=Missing() if shape is None else signal(shape[1]),
            ttft=latency(ttft),
            tpot=latency(tpot),
        ),
    )


@pytest.fixture(scope="session")
def observe() -> Callable[..., Observation]:
    return make_observation


@pytest.fixture(scope="session")
def variant() -> Callable[..., VariantObservation]:
    return make_variant


@pytest.fixture(scope="session")
def profile() -> Callable[..., ReplicaProfile]:
    def make(name: str = "gpu", **fields: Any) -> ReplicaProfile:
        values: dict[str, Any] = {
            "alpha_seconds": 0.01,
            "beta_seconds": 0.0,
            "gamma_seconds": 0.0,
            "maximum_requests": 256,
            "step_tokens": 8192,
            "kv_tokens": 100_000,
        }
        return ReplicaProfile(name=VariantName(name), **(values | fields))

    return make
