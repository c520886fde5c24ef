"""Demand in units of what a replica serves at its limit, whatever the requests are like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trierarch.autoscaling.specification import (
    LatencyObjective,
    ScalingSpec,
    ServicePrior,
    VariantSpec,
)
from trierarch.autoscaling.workload import (
    INPUT_TOKEN_SECONDS,
    OUTPUT_TOKEN_SECONDS,
    Workload,
    request_seconds,
    saturated_load,
)
from trierarch.core.identifiers import VariantName

SERVICE = ServicePrior(
    step_seconds=0.012,
    expert_seconds=0.01,
    prefill_token_seconds=3e-5,
    decode_token_seconds=6e-5,
    context_token_seconds=8e-9,
)


def spec(
    *,
    service: ServicePrior | None = SERVICE,
    seats: int | None = 256,
    kv_tokens: int | None = None,
    tpot_seconds: float | None = 0.05,
) -> ScalingSpec:
    variant = VariantSpec(
        name=VariantName("gpu"),
        service_prior=service,
        max_running_requests=seats,
        kv_capacity_tokens=kv_tokens,
    )
    slo = LatencyObjective(ttft_seconds=2.0, tpot_seconds=tpot_seconds, percentile=99.0)
    return ScalingSpec(variants=(variant,), slo=slo)


def workload(of: ScalingSpec, inputs: float, outputs: float, flex_ratio: float = 0.0) -> Workload:
    seconds = request_seconds(of, inputs, inputs, outputs)
    return Workload(1.0, seconds, inputs, inputs, outputs, flex_ratio)


@given(inputs=st.floats(1.0, 1e5), outputs=st.floats(1.0, 2e4), seats=st.integers(1, 1024))
def test_a_replica_at_its_limit_does_one_unit_of_any_mix(
    inputs: float, outputs: float, seats: int
) -> None:
    made = spec(seats=seats, kv_tokens=2_000_000)
    assert saturated_load(made, workload(made, inputs, outputs), SERVICE) == pytest.approx(1.0)


def test_the_limit_is_what_ends_first() -> None:
    # By hand: a step of 256 short answers takes 0.022 + 256 * 6e-5 s = 37 ms, inside the objective.
    short = request_seconds(spec(), 0.0, 0.0, 100.0)
    own = 6e-5 + 8e-9 * 50.0
    assert short == pytest.approx(100.0 * (0.022 / 256 + own))
    # Long prompts take the time from the steps: 1 - 22/50 of it is left for work.
    long = request_seconds(spec(), 10_000.0, 10_000.0, 100.0)
    work = 10_000 * 3e-5 + 100.0 * (6e-5 + 8e-9 * 10_050.0)
    assert long == pytest.approx(work / (1.0 - 0.022 / 0.05))


def test_slower_replicas_are_full_sooner_and_flex_takes_its_share() -> None:
    made = spec()
    mix = workload(made, 1000.0, 500.0)
    slower = ServicePrior(**{name: 1.25 * value for name, value in SERVICE.model_dump().items()})
    load = saturated_load(made, mix, slower)
    assert load is not None
    assert 0.5 < load < 1 / 1.25 + 1e-9
    shared = workload(made, 1000.0, 500.0, flex_ratio=0.25)
    assert saturated_load(made, shared, SERVICE) == pytest.approx(0.75)


def test_an_objective_that_no_step_meets_sets_no_limit() -> None:
    hopeless = spec(tpot_seconds=0.02)
    assert request_seconds(hopeless, 0.0, 0.0, 100.0) == request_seconds(
        spec(tpot_seconds=None), 0.0, 0.0, 100.0
    )
    assert saturated_load(hopeless, workload(hopeless, 0.0, 100.0), SERVICE) is None


def test_a_prompt_longer_than_the_memory_takes_a_whole_replica() -> None:
    made = spec(kv_tokens=1000, tpot_seconds=None)
    alone = request_seconds(made, 50_000.0, 0.0, 10.0)
    assert alone == pytest.approx(10.0 * (0.022 + 6e-5 + 8e-9 * 50_005.0))


def test_without_a_speed_tokens_count() -> None:
    unknown = spec(service=None)
    seconds = request_seconds(unknown, 200.0, 100.0, 10.0)
    assert seconds == pytest.approx(100.0 * INPUT_TOKEN_SECONDS + 10.0 * OUTPUT_TOKEN_SECONDS)
    assert saturated_load(unknown, workload(unknown, 200.0, 10.0), None) is None
