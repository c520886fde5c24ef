"""Step times that are learned, and what a pool with such steps can promise."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trierarch.autoscaling.queueing import LatencyBound, highest_rate_per_replica, predict_pool
from trierarch.autoscaling.service_model import (
    RequestShape,
    ServiceModel,
    StepSample,
    StepTime,
    initial_model,
    learn_step,
    touched_ratio,
)
from trierarch.autoscaling.specification import ServicePrior, VariantSpec
from trierarch.core.identifiers import VariantName

SHAPE = RequestShape(input_tokens=1000.0, cached_tokens=0.0, output_tokens=200.0)
SHARE = 8 / 256


def true_step(running: float, slower: float = 1.0) -> float:
    computed = running * SHAPE.computed_per_step_tokens
    context = running * SHAPE.context_tokens
    experts = 0.01 * touched_ratio(SHARE, running)
    return slower * (0.012 + 3e-5 * computed + 8e-9 * context + experts)


def taught(model: ServiceModel, slower: float = 1.0) -> ServiceModel:
    for number in range(300):
        running = 1.0 + (number * 37) % 200
        model = learn_step(model, StepSample(running, true_step(running, slower), SHAPE), SHARE)
    return model


def test_experts_touched_saturate() -> None:
    assert touched_ratio(SHARE, 1) == pytest.approx(SHARE)
    assert touched_ratio(SHARE, 10_000) == pytest.approx(1.0)
    assert touched_ratio(0.0, 100) == 0.0


@pytest.mark.parametrize("running", [5, 60, 180])
def test_step_times_are_learned_from_nothing(running: int) -> None:
    model = taught(ServiceModel())
    assert model.is_usable
    predicted = model.steps_of(SHAPE, SHARE).step_seconds(running)
    assert predicted == pytest.approx(true_step(running), rel=0.1)


def test_a_wrong_prior_is_corrected_by_what_is_measured() -> None:
    prior = ServicePrior(step_seconds=0.012, expert_seconds=0.01, decode_token_seconds=3e-5)
    variant = VariantSpec(name=VariantName("v"), service_prior=prior)
    model = taught(initial_model(variant), slower=1.5)
    assert model.steps_of(SHAPE, SHARE).step_seconds(100) == pytest.approx(
        true_step(100, 1.5), rel=0.1
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 0.0])
def test_implausible_samples_change_nothing(bad: float) -> None:
    model = taught(ServiceModel())
    assert learn_step(model, StepSample(10.0, bad, SHAPE), SHARE) == model
    assert learn_step(model, StepSample(bad, 0.02, SHAPE), SHARE) == model


STEPS = StepTime(0.02, 2e-4, 0.0, 0.0, 0.03, 200.0)


def test_a_pool_that_keeps_its_bound_is_predicted_to_keep_it() -> None:
    bound = LatencyBound(ttft_seconds=1.0, step_seconds=0.04, percentile=99.0)
    rate = highest_rate_per_replica(STEPS, seats=128.0, replicas=4, bound=bound, variability=1.0)
    assert rate > 0

    def seen(factor: float) -> tuple[float, float]:
        found = predict_pool(
            STEPS,
            rate_per_second=factor * 4 * rate,
            seats=128.0,
            replicas=4,
            percentile=99.0,
            variability=1.0,
        )
        return found.ttft_seconds, found.step_seconds

    ttft, step = seen(0.99)
    assert (ttft <= 1.0, step <= 0.04) == (True, True)
    ttft, step = seen(1.05)
    assert ttft > 1.0 or step > 0.04


@given(st.floats(0.1, 50.0), st.floats(1.0, 2.0), st.integers(1, 12))
def test_more_load_or_fewer_replicas_is_never_faster(
    rate: float, factor: float, replicas: int
) -> None:
    def step(load: float, count: int) -> float:
        found = predict_pool(
            STEPS,
            rate_per_second=load,
            seats=64.0,
            replicas=count,
            percentile=95.0,
            variability=1.0,
        )
        return found.step_seconds

    assert step(rate, replicas) <= step(rate * factor, replicas) + 1e-9
    assert step(rate, replicas + 1) <= step(rate, replicas) + 1e-9


def test_burstier_traffic_is_given_less() -> None:
    bound = LatencyBound(ttft_seconds=0.3, step_seconds=None, percentile=99.0)

    def rate(variability: float) -> float:
        return highest_rate_per_replica(
            STEPS, seats=64.0, replicas=3, bound=bound, variability=variability
        )

    assert rate(8.0) < rate(1.0)
