"""Speed that is learned from live metrics, and what it changes."""

from __future__ import annotations

import dataclasses

import pytest

from trierarch.autoscaling.pipeline import decide
from trierarch.autoscaling.replay import replay
from trierarch.autoscaling.service_learning import (
    LESSON_SECONDS,
    Services,
    believed_service,
    learned_model,
    teach_services,
)
from trierarch.autoscaling.service_model import MINIMUM_SAMPLES, RequestShape
from trierarch.autoscaling.signals import (
    EngineSignals,
    GatewaySignals,
    LatencySummary,
    Measured,
    Missing,
    Observation,
    Signal,
    Stale,
    TierSignals,
    VariantObservation,
)
from trierarch.autoscaling.specification import ScalingSpec, ServicePrior, VariantSpec
from trierarch.autoscaling.state import PipelineState
from trierarch.core.identifiers import DecisionId, ModelName, VariantName

FIRM = VariantName("firm")
PRIOR = ServicePrior(step_seconds=0.01, decode_token_seconds=1e-4, prefill_token_seconds=2e-5)
SHAPE = RequestShape(500.0, 0.0, 200.0)


def build_spec(prior: ServicePrior | None = PRIOR) -> ScalingSpec:
    return ScalingSpec(
        variants=(
            VariantSpec(name=FIRM, max_replicas=8, max_running_requests=128, service_prior=prior),
        )
    )


def step_seconds(batch: float, slower: float) -> float:
    """Return what a step takes on engines that are slower than the prior says."""
    return slower * (0.01 + batch * (1e-4 + 2e-5 * SHAPE.input_tokens / SHAPE.output_tokens))


def observe(
    now: float, batch: float, *, ready: int = 2, slower: float = 2.0, samples: int = 50
) -> Observation:
    seconds = step_seconds(batch, slower)
    summary = LatencySummary(samples, seconds, ((0.5, seconds), (0.99, 1.2 * seconds)))
    return Observation(
        now_unix_seconds=now,
        deployment="ns/m",
        model=ModelName("m"),
        variants=(
            VariantObservation(
                name=FIRM,
                ready=ready,
                engine=EngineSignals(
                    running_requests=Measured(batch * ready, now),
                    waiting_requests=Measured(0.0, now),
                    tpot=Measured(summary, now),
                ),
            ),
        ),
        gateway=GatewaySignals(
            arrivals_per_second=TierSignals(default=Measured(5.0, now)),
            waiting_requests=TierSignals(default=Measured(0.0, now)),
            in_flight_requests=Measured(batch * ready, now),
            mean_input_tokens=Measured(SHAPE.input_tokens, now),
            mean_output_tokens=Measured(SHAPE.output_tokens, now),
        ),
    )


def lessons(count: int, spec: ScalingSpec, services: Services = (), **how: float) -> Services:
    """Return what a batch that changes slowly teaches, one lesson at a time."""
    for number in range(count):
        batch = 10.0 + (number // 12 * 23) % 80
        at = 1000.0 + number * LESSON_SECONDS
        seen = observe(at, batch, **how)  # type: ignore[arg-type]  # any argument
        services = teach_services(seen, spec, services)
    return services


def test_slower_engines_than_believed_are_found_out() -> None:
    spec = build_spec()
    learned = learned_model(spec.variants[0], lessons(120, spec)).steps_of(SHAPE, 0.0)
    for batch in (15.0, 60.0):
        assert learned.step_seconds(batch) == pytest.approx(step_seconds(batch, 2.0), rel=0.1)
    service = believed_service(spec.variants[0], lessons(120, spec))
    assert service is not None
    assert service.step_seconds == pytest.approx(2 * PRIOR.step_seconds, rel=0.05)
    assert service.decode_token_seconds == pytest.approx(2 * PRIOR.decode_token_seconds, rel=0.05)


def test_a_variant_of_unknown_speed_becomes_known() -> None:
    spec = build_spec(None)
    assert believed_service(spec.variants[0], lessons(MINIMUM_SAMPLES - 1, spec)) is None
    assert believed_service(spec.variants[0], lessons(60, spec)) is not None


def test_few_lessons_replace_no_belief() -> None:
    spec = build_spec()
    assert believed_service(spec.variants[0], lessons(MINIMUM_SAMPLES - 1, spec)) == PRIOR


def test_the_same_window_teaches_once() -> None:
    spec = build_spec()
    services: Services = ()
    for now in (0.0, 3.0, 6.0, LESSON_SECONDS - 1):
        services = teach_services(observe(now, 20.0), spec, services)
    assert services[0].model.samples == 1
    assert teach_services(observe(LESSON_SECONDS, 20.0), spec, services)[0].model.samples == 2


def changed(observation: Observation, **engine: object) -> Observation:
    variant = observation.variants[0]
    signals = dataclasses.replace(variant.engine, **engine)  # type: ignore[arg-type]  # any field
    return dataclasses.replace(
        observation, variants=(dataclasses.replace(variant, engine=signals),)
    )


def test_what_is_missing_stale_rare_or_idle_teaches_nothing() -> None:
    spec = build_spec()
    seen = observe(100.0, 20.0)
    tpot = seen.variants[0].engine.tpot
    assert isinstance(tpot, Measured)
    old: Signal = Stale(40.0, 90.0)
    for observation in (
        changed(seen, tpot=Missing("NoSamples")),
        changed(seen, tpot=Stale(tpot.value, 90.0)),
        changed(seen, running_requests=old),
        changed(seen, running_requests=Measured(0.0, 100.0)),
        observe(100.0, 20.0, samples=2),
        dataclasses.replace(seen, gateway=GatewaySignals()),
    ):
        services = teach_services(observation, spec, ())
        assert sum(service.model.samples for service in services) == 0
    assert teach_services(seen, spec, ())[0].model.samples == 1


def test_a_replica_that_has_just_begun_to_serve_teaches_nothing() -> None:
    spec = build_spec()
    services = teach_services(observe(0.0, 20.0, ready=1), spec, ())
    for now in (30.0, 60.0, 89.0):
        services = teach_services(observe(now, 20.0, ready=2), spec, services)
        assert services[0].model.samples == 1
    assert teach_services(observe(90.0, 20.0), spec, services)[0].model.samples == 2


def test_lessons_are_part_of_the_state_and_a_record_teaches_the_same() -> None:
    spec = build_spec()
    state = PipelineState()
    for number in range(30):
        observation = observe(1000.0 + number * LESSON_SECONDS, 30.0)
        decision, state = decide(observation, spec, state, DecisionId("d"))
    assert state.services[0].model.samples == 30
    assert PipelineState.from_record(state.as_record()) == state
    record = decision.as_record()
    assert replay(record) == decision
    assert record["inputs"]["state"]["services"][0]["model"]["samples"] == 29
    restored = PipelineState.from_record(record["inputs"]["state"])
    again, after = decide(observation, spec, restored, DecisionId("d"))
    assert (again, after) == (decision, state)


def test_states_of_records_from_before_are_read() -> None:
    record = PipelineState().as_record()
    del record["services"]
    assert PipelineState.from_record(record) == PipelineState()
