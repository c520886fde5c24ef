"""Which lanes wait and which are refused: flex first, then default, priority never."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from trierarch.autoscaling.admission import (
    FLEX_MARGIN_RATIO,
    FLEX_MARGIN_SECONDS,
    build_admission,
)
from trierarch.autoscaling.decision import Reason
from trierarch.autoscaling.explanation import explain
from trierarch.autoscaling.load import read_load
from trierarch.autoscaling.pipeline import decide
from trierarch.autoscaling.replay import replay
from trierarch.autoscaling.signals import (
    CostSignals,
    EngineSignals,
    GatewaySignals,
    Measured,
    Missing,
    Observation,
    Signal,
    Stale,
    TierSignals,
    VariantObservation,
)
from trierarch.autoscaling.specification import CostTarget, OnConflict, ScalingSpec, VariantSpec
from trierarch.autoscaling.state import PipelineState
from trierarch.core.admission import OPEN, Admission
from trierarch.core.identifiers import DecisionId, ModelName, VariantName
from trierarch.core.usage import ServiceTier

NOW = 1_000_000.0
CPU = VariantName("cpu")
SPEC = ScalingSpec(
    variants=(VariantSpec(name=CPU, min_replicas=1, max_replicas=9, max_running_requests=4),),
    target_queue_depth=4.0,
    cost=CostTarget(target_usd_per_million_tokens=1.0, on_conflict=OnConflict.PREFER_COST),
)
DAY = 86_400.0


def observe(
    *,
    priority: float = 0.0,
    default: float = 0.0,
    ready: int = 2,
    deadline: float | None = None,
    patience: float | None = None,
    tokens_per_hour: float = 5e6,
    lost: bool = False,
) -> Observation:
    def signal(value: float | None) -> Signal:
        if value is None:
            return Missing()
        return Stale(value, NOW - 300.0) if lost else Measured(value, NOW)

    return Observation(
        now_unix_seconds=NOW,
        deployment="ns/m",
        model=ModelName("m"),
        variants=(
            VariantObservation(
                name=CPU,
                ready=ready,
                price_usd_per_hour=Measured(2.0, NOW),
                engine=EngineSignals(running_requests=signal(8.0), waiting_requests=signal(0.0)),
            ),
        ),
        gateway=GatewaySignals(
            arrivals_per_second=TierSignals(signal(1.0), signal(1.0), signal(1.0)),
            waiting_requests=TierSignals(signal(priority), signal(default), signal(3.0)),
            in_flight_requests=signal(8.0),
            flex_deadline_unix_seconds=signal(None if deadline is None else NOW + deadline),
            flex_patience_seconds=signal(patience),
        ),
        cost=CostSignals(
            spend_usd_per_hour=Measured(4.0, NOW),
            input_tokens_per_hour=Measured(tokens_per_hour, NOW),
            output_tokens_per_hour=Measured(0.0, NOW),
        ),
    )


def admission(observation: Observation, limits: Collection[Reason] = ()) -> Admission:
    return build_admission(observation, SPEC, read_load(observation, SPEC), limits)


def test_the_lane_is_open_while_nobody_else_waits() -> None:
    assert admission(observe()) == OPEN
    assert admission(observe(default=1.0)) == Admission(flex_open=False)
    assert admission(observe(priority=1.0)) == Admission(flex_open=False)


def test_signals_that_are_lost_close_and_shed_nothing() -> None:
    assert admission(observe(default=50.0, lost=True), [Reason.COST_TARGET]) == OPEN


@pytest.mark.parametrize(
    ("left", "patience", "is_open"),
    [
        (FLEX_MARGIN_SECONDS - 1.0, None, True),
        (FLEX_MARGIN_SECONDS + 1.0, None, False),
        (FLEX_MARGIN_SECONDS - 1.0, DAY, True),
        # A gateway that lets flex wait ten minutes: half an hour would be always.
        (500.0, 600.0, False),
        (FLEX_MARGIN_RATIO * 600.0 - 1.0, 600.0, True),
        (-5.0, 600.0, True),
    ],
)
def test_the_lane_opens_near_the_first_deadline(
    left: float, patience: float | None, is_open: bool
) -> None:
    found = admission(observe(default=1.0, deadline=left, patience=patience))
    assert found.flex_open is is_open


def test_a_cost_cap_sheds_flex_first_and_default_only_when_priority_waits_too() -> None:
    capped = [Reason.MAX_REPLICAS, Reason.COST_TARGET]
    assert admission(observe(default=30.0)).shed_tiers == ()
    assert admission(observe(), capped).shed_tiers == ()
    assert admission(observe(default=30.0), capped).shed_tiers == (ServiceTier.FLEX,)
    # Up to the queue target of two replicas priority may wait.
    assert admission(observe(priority=8.0), capped).shed_tiers == (ServiceTier.FLEX,)
    both = (ServiceTier.FLEX, ServiceTier.DEFAULT)
    assert admission(observe(priority=9.0), capped).shed_tiers == both
    # Without a limit of cost more capacity is on its way, and nobody is refused.
    assert admission(observe(priority=9.0), [Reason.MAX_REPLICAS]).shed_tiers == ()


def test_a_decision_under_prefer_cost_sheds_what_it_does_not_buy_capacity_for() -> None:
    # Four dollars' worth of tokens an hour pay for two replicas; the queue asks for more.
    observation = observe(default=30.0, tokens_per_hour=4.1e6)
    decision, _ = decide(observation, SPEC, PipelineState(), DecisionId("d"))
    assert decision.binding is Reason.COST_TARGET
    assert decision.desired_replicas == 2
    assert decision.admission == Admission(flex_open=False, shed_tiers=(ServiceTier.FLEX,))
    assert replay(decision.as_record()) == decision


def test_people_are_told_of_lanes_and_of_flex_requests() -> None:
    observation = observe(default=30.0, tokens_per_hour=4.1e6, deadline=400.0, patience=600.0)
    decision, _ = decide(observation, SPEC, PipelineState(), DecisionId("d"))
    told = explain(decision)
    assert "lanes: flex waits for idle capacity; refused: flex" in told
    assert "flex: 3 wait, unknown (NotReported) in flight, the first has 400 s left" in told
    calm, _ = decide(observe(), SPEC, PipelineState(), DecisionId("d"))
    assert "lanes: flex may start\n" in explain(calm)


def test_prefer_latency_sheds_nobody() -> None:
    latency = CostTarget(target_usd_per_million_tokens=1.0)
    spec = SPEC.model_copy(update={"cost": latency})
    observation = observe(default=30.0, tokens_per_hour=4.1e6)
    decision, _ = decide(observation, spec, PipelineState(), DecisionId("d"))
    assert decision.desired_replicas > 2
    assert decision.admission.shed_tiers == ()


@pytest.mark.parametrize(("left", "wanted"), [(100.0, 1), (400.0, 0)])
def test_flex_alone_starts_a_replica_only_when_its_time_runs_out(left: float, wanted: int) -> None:
    variant = VariantSpec(name=CPU, max_replicas=2, cold_start_seconds=120.0)
    spec = ScalingSpec(variants=(variant,))
    observation = observe(ready=0, deadline=left, patience=600.0)
    gateway = observation.gateway
    quiet = TierSignals(default=Measured(0.0, NOW), flex=Measured(1.0, NOW))
    observation = Observation(
        now_unix_seconds=NOW,
        deployment="ns/m",
        model=ModelName("m"),
        variants=(VariantObservation(name=CPU),),
        gateway=GatewaySignals(
            arrivals_per_second=quiet,
            waiting_requests=quiet,
            flex_deadline_unix_seconds=gateway.flex_deadline_unix_seconds,
            flex_patience_seconds=gateway.flex_patience_seconds,
        ),
    )
    decision, _ = decide(observation, spec, PipelineState(), DecisionId("d"))
    assert decision.desired_replicas == wanted
