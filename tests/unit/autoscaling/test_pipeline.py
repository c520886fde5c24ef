"""Decisions of the pipeline, each in a situation that people can follow by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from trierarch.autoscaling.decision import Reason, ScalingDecision
from trierarch.autoscaling.explanation import explain
from trierarch.autoscaling.pipeline import decide
from trierarch.autoscaling.replay import replay
from trierarch.autoscaling.signals import (
    CostSignals,
    EngineSignals,
    GatewaySignals,
    HourlyBudget,
    LatencySummary,
    Measured,
    Missing,
    Observation,
    Stale,
    StartingReplica,
    TierSignals,
    VariantObservation,
)
from trierarch.autoscaling.specification import (
    Behavior,
    CostTarget,
    LatencyObjective,
    OnConflict,
    ScaleDown,
    ScaleToZero,
    ScaleUp,
    ScalingSpec,
    VariantSpec,
)
from trierarch.autoscaling.state import PipelineState
from trierarch.core.identifiers import DecisionId, ModelName, VariantName

CPU = VariantName("cpu")
START = 1_000_000.0
INTERVAL_SECONDS = 3.0


def spec(**fields: Any) -> ScalingSpec:
    variant = {"name": CPU, "min_replicas": 1, "max_replicas": 2, "max_running_requests": 16}
    variant |= fields.pop("variant", {})
    behavior = {
        "interval_seconds": INTERVAL_SECONDS,
        "scale_up": ScaleUp(window_seconds=4.0),
        "scale_down": ScaleDown(window_seconds=30.0, dwell_seconds=20.0),
        **fields.pop("behavior", {}),
    }
    return ScalingSpec(
        variants=(VariantSpec(**variant),),
        target_queue_depth=4.0,
        behavior=Behavior(**behavior),
        **fields,
    )


def observe(
    now: float,
    *,
    ready: int = 1,
    starting: int = 0,
    draining: int = 0,
    waiting: float | None = 0.0,
    running: float | None = 0.0,
    arrivals: float | None = 0.0,
    completed: float | None = None,
    price: float | None = 0.05,
    **fields: Any,
) -> Observation:
    def signal(value: float | None) -> Measured[float] | Missing:
        return Missing() if value is None else Measured(value, now)

    return Observation(
        now_unix_seconds=now,
        deployment="local/pocket",
        model=ModelName("pocket"),
        variants=(
            VariantObservation(
                name=CPU,
                ready=ready,
                starting=(StartingReplica(now + 20.0),) * starting,
                draining=draining,
                price_usd_per_hour=signal(price),
                cold_starts_seconds=(20.0,),
                engine=EngineSignals(running_requests=signal(running), waiting_requests=signal(0.0))
                if ready
                else EngineSignals(),
            ),
        ),
        gateway=GatewaySignals(
            arrivals_per_second=TierSignals(default=signal(arrivals)),
            waiting_requests=TierSignals(default=signal(waiting)),
            in_flight_requests=signal(running),
            completed_per_second=signal(completed),
            **fields.pop("gateway", {}),
        ),
        **fields,
    )


def run(
    what: ScalingSpec, observations: list[Observation], state: PipelineState | None = None
) -> list[ScalingDecision]:
    state = state or PipelineState()
    decisions = []
    for number, observation in enumerate(observations):
        decision, state = decide(observation, what, state, DecisionId(f"d{number}"))
        decisions.append(decision)
    return decisions


def ticks(count: int, first: float = START, **fields: Any) -> list[Observation]:
    return [observe(first + INTERVAL_SECONDS * n, **fields) for n in range(count)]


def test_a_queue_that_lasts_adds_a_replica_and_says_so() -> None:
    first, second = run(spec(), ticks(2, waiting=12.0, running=16.0, arrivals=2.0))
    assert (first.desired_replicas, first.binding) == (1, Reason.STABILIZING)
    assert (second.desired_replicas, second.reason) == (2, Reason.QUEUE_DEPTH)
    assert second.changes
    assert "12.0 requests wait per ready replica, above the target of 4" in second.message
    assert second.message.startswith("scale from 1 to 2 replicas")


def test_a_queue_that_does_not_last_adds_nothing() -> None:
    decisions = run(
        spec(),
        [
            observe(START, waiting=12.0, running=16.0),
            observe(START + 3, waiting=0.0, running=6.0),
            observe(START + 6, waiting=12.0, running=16.0),
        ],
    )
    assert [decision.desired_replicas for decision in decisions] == [1, 1, 1]


def test_a_replica_on_its_way_counts_as_capacity() -> None:
    decision = run(spec(), ticks(3, starting=1, waiting=12.0, running=14.0))[-1]
    assert (decision.desired_replicas, decision.reason) == (2, Reason.STARTING_CREDIT)


def test_the_backlog_term_asks_for_more_than_one() -> None:
    what = spec(variant={"max_replicas": 8}, behavior={"scale_up": ScaleUp()})
    load = {"waiting": 60.0, "running": 16.0, "arrivals": 4.0, "completed": 1.0}
    decision = run(what, ticks(1, **load))[-1]
    # (4 + 60 / 60 s) over 1 per second and replica
    assert (decision.desired_replicas, decision.reason) == (5, Reason.BACKLOG)


def test_the_backlog_term_does_not_take_a_ramp_for_a_slow_pool() -> None:
    what = spec(variant={"max_replicas": 20}, behavior={"scale_up": ScaleUp()})

    def summary(seconds: float) -> Measured[LatencySummary]:
        return Measured(LatencySummary(20, seconds, ((0.5, seconds), (0.99, seconds))), START)

    gateway = {
        "ttft": summary(2.0),
        "queue_wait": summary(1.5),
        "tpot": summary(0.05),
        "mean_output_tokens": Measured(71.0, START),
    }
    # Hardly anything has finished yet, but 16 requests that stay 0.5 + 70 * 0.05 s are 4 a second:
    # (4 + 60 / 60 s) over 4 per second and replica is 2, not 50.
    load = {"waiting": 60.0, "running": 16.0, "arrivals": 4.0, "completed": 0.1}
    assert run(what, ticks(1, gateway=gateway, **load))[0].desired_replicas == 2
    assert run(what, ticks(1, **load))[0].desired_replicas > 4


def test_full_batches_add_a_replica_before_a_queue_forms() -> None:
    decision = run(spec(), ticks(3, running=16.0, arrivals=1.0))[-1]
    assert (decision.desired_replicas, decision.reason) == (2, Reason.SATURATION)


def test_a_missed_objective_adds_a_replica() -> None:
    slow = Measured(LatencySummary(20, 2.0, ((0.5, 2.0), (0.95, 3.0))), START)
    what = spec(slo=LatencyObjective(ttft_seconds=1.0), behavior={"scale_up": ScaleUp()})
    decision = run(what, [observe(START, running=3.0, arrivals=1.0, gateway={"ttft": slow})])[-1]
    assert (decision.desired_replicas, decision.reason) == (2, Reason.LATENCY)
    assert decision.condition("SLOMet").status == "False"


def test_the_bound_keeps_the_count_and_names_itself() -> None:
    decision = run(spec(), ticks(3, ready=2, waiting=40.0, running=32.0))[-1]
    assert (decision.desired_replicas, decision.binding) == (2, Reason.MAX_REPLICAS)
    assert "20.0 requests wait" in decision.message
    assert decision.condition("ScalingLimited").status == "True"


def test_quiet_removes_a_replica_after_its_window_and_not_before() -> None:
    decisions = run(spec(), ticks(14, ready=2))
    counts = [decision.desired_replicas for decision in decisions]
    first_removal = counts.index(1)
    assert 27.0 <= first_removal * INTERVAL_SECONDS <= 33.0
    assert decisions[first_removal].reason is Reason.IDLE
    assert decisions[first_removal - 1].reason is Reason.STABILIZING


def test_a_fresh_replica_is_not_removed_at_once() -> None:
    what = spec(behavior={"scale_down": ScaleDown(window_seconds=0.0, dwell_seconds=20.0)})
    state = PipelineState(last_addition_unix_seconds=START - 5.0)
    decisions = run(what, ticks(8, ready=2), state)
    assert decisions[0].reason is Reason.DWELL
    removed = [d for d in decisions if d.desired_replicas == 1]
    assert removed[0].at_unix_seconds - (START - 5.0) >= 20.0


def test_a_load_that_one_replica_could_not_carry_relaxed_keeps_two() -> None:
    # 12 running requests fill more than 0.6 of 16 seats.
    assert run(spec(), ticks(20, ready=2, running=12.0, arrivals=1.0))[-1].desired_replicas == 2
    assert run(spec(), ticks(20, ready=2, running=9.0, arrivals=1.0))[-1].desired_replicas == 1


def test_unknown_load_removes_nothing_and_adds_nothing() -> None:
    decisions = run(spec(), ticks(40, ready=2, waiting=None, running=None, arrivals=None))
    assert {decision.desired_replicas for decision in decisions} == {2}
    assert decisions[-1].reason is Reason.METRICS_MISSING


def test_incomplete_signals_may_add_but_not_remove() -> None:
    what = spec()
    kept = run(what, ticks(40, ready=2, running=None, arrivals=None))
    assert {decision.desired_replicas for decision in kept} == {2}
    assert run(what, ticks(3, waiting=12.0, running=None))[-1].desired_replicas == 2


def test_stale_signals_hold() -> None:
    now = START + 100.0
    observation = observe(now, ready=2)
    old = TierSignals(default=Stale(0.0, START))
    gateway = dataclasses.replace(observation.gateway, waiting_requests=old)
    variant = dataclasses.replace(observation.variants[0], engine=EngineSignals())
    observation = dataclasses.replace(observation, gateway=gateway, variants=(variant,))
    [decision] = run(spec(), [observation])
    assert (decision.desired_replicas, decision.reason) == (2, Reason.METRICS_STALE)
    assert decision.condition("MetricsFresh").status == "False"


def test_without_any_metrics_the_minimum_is_still_brought_up() -> None:
    [decision] = run(spec(variant={"min_replicas": 2}), ticks(1, waiting=None, arrivals=None))
    assert (decision.desired_replicas, decision.binding) == (2, Reason.MIN_REPLICAS)


def test_zero_is_reached_only_if_allowed_and_left_at_the_first_request() -> None:
    what = spec(variant={"min_replicas": 0}, behavior={"scale_to_zero": ScaleToZero(enabled=True)})
    assert run(what, ticks(14))[-1].desired_replicas == 0
    assert run(spec(), ticks(14))[-1].desired_replicas == 1
    [decision] = run(what, [observe(START, ready=0, waiting=1.0, running=None, arrivals=0.3)])
    assert (decision.desired_replicas, decision.reason) == (1, Reason.ACTIVATION)


@pytest.mark.parametrize(
    ("fields", "removed_after_seconds"),
    [
        ({}, 30.0),  # the start of 20 s is shorter than the window of 30 s
        ({"idle_seconds": 90.0}, 90.0),
        # 0.05 USD an hour: a miss of 0.001 USD is worth 72 s of idling, on top of the start.
        ({"cold_start_miss_usd": 0.001}, 92.0),
    ],
    ids=["start-only", "as-told", "dear-miss"],
)
def test_the_last_replica_goes_when_idling_has_cost_a_start(
    fields: dict[str, float], removed_after_seconds: float
) -> None:
    what = spec(
        variant={"min_replicas": 0},
        behavior={"scale_to_zero": ScaleToZero(enabled=True, **fields)},
    )
    counts = [decision.desired_replicas for decision in run(what, ticks(40))]
    idle_seconds = counts.index(0) * INTERVAL_SECONDS
    assert abs(idle_seconds - removed_after_seconds) <= INTERVAL_SECONDS


def test_a_budget_counts_what_drains_and_stops_growth() -> None:
    what = spec(variant={"max_replicas": 8}, behavior={"scale_up": ScaleUp()})
    load: dict[str, Any] = {"waiting": 60.0, "running": 16.0, "arrivals": 4.0, "completed": 1.0}
    budget = (HourlyBudget("team", 0.20),)
    [decision] = run(what, ticks(1, draining=1, budgets=budget, **load))
    # 0.05 each: three and the draining one
    assert (decision.desired_replicas, decision.binding) == (3, Reason.BUDGET)
    [unpriced] = run(what, ticks(1, price=None, budgets=budget, **load))
    assert unpriced.desired_replicas == 1


def test_growth_above_an_amount_waits_for_a_person() -> None:
    what = spec(behavior={"scale_up": ScaleUp()}, approval_above_usd_per_hour=0.05)
    load = {"waiting": 12.0, "running": 16.0}
    [held] = run(what, ticks(1, **load))
    assert (held.desired_replicas, held.binding) == (1, Reason.APPROVAL_REQUIRED)
    [granted] = run(what, ticks(1, approved_usd_per_hour=0.10, **load))
    assert granted.desired_replicas == 2


@pytest.mark.parametrize(
    ("on_conflict", "count"), [(OnConflict.PREFER_COST, 1), (OnConflict.PREFER_LATENCY, 2)]
)
def test_the_cost_target_gives_way_or_binds(on_conflict: OnConflict, count: int) -> None:
    target = CostTarget(target_usd_per_million_tokens=0.6, on_conflict=on_conflict)
    what = spec(cost=target, behavior={"scale_up": ScaleUp()})
    cost = CostSignals(
        spend_usd_per_hour=Measured(0.05, START),
        input_tokens_per_hour=Measured(50_000.0, START),
        output_tokens_per_hour=Measured(50_000.0, START),
    )
    [decision] = run(what, [observe(START, waiting=12.0, running=16.0, cost=cost)])
    assert decision.desired_replicas == count
    assert decision.condition("CostTargetMet").status == "True"  # 0.05 USD for 0.1 M tokens
    counterfactual = decision.counterfactual
    assert counterfactual is not None
    assert counterfactual.chosen.usd_per_million_tokens == pytest.approx(0.5 * count)


def test_a_record_says_everything_and_gives_the_same_decision_again() -> None:
    decisions = run(spec(), ticks(3, waiting=12.0, running=16.0, arrivals=2.0, completed=0.5))
    for decision in decisions:
        record = decision.as_record()
        assert ScalingDecision.from_record(record) == decision
        assert replay(record) == decision


def test_a_record_of_a_version_with_more_fields_is_still_read() -> None:
    [decision] = run(spec(), ticks(1, waiting=12.0, running=16.0, arrivals=2.0, completed=0.5))
    record = decision.as_record()
    record["inputs"]["spec"]["behavior"]["miss_to_idle_ratio"] = 3.0
    assert ScalingDecision.from_record(record) == decision
    assert replay(record) == decision
    assert ScalingSpec.from_record(record["inputs"]["spec"]) == decision.inputs.spec
    record["inputs"]["spec"]["behavior"]["never_known"] = 3.0
    with pytest.raises(ValueError, match="never_known"):
        ScalingDecision.from_record(record)


def test_the_words_name_inputs_steps_bound_and_choices() -> None:
    told = explain(run(spec(), ticks(2, waiting=12.0, running=16.0, arrivals=2.0))[-1])
    for words in (
        "scale from 1 to 2 replicas",
        "bound by QueueDepth",
        "2 requests/s arrive, 12 wait, 16 in flight",
        "recommend  1 -> 2",
        "chosen         2 x cpu, 0.1000 USD/h",
        "one fewer      1 x cpu, 0.0500 USD/h",
        "unit cost: unknown",
    ):
        assert words in told, told


@pytest.mark.parametrize("completed", [5e-324, 1e-300])
def test_a_rate_of_nearly_nothing_asks_for_all_there_is(completed: float) -> None:
    seen = observe(START, waiting=50.0, arrivals=1.0, running=16.0, completed=completed)
    what = spec(behavior={"scale_up": ScaleUp()})
    assert run(what, [seen])[0].desired_replicas == 2
