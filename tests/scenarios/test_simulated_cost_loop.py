"""The closed loop on cost in the simulator: real queues, batches, cold starts, market and bills."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from trierarch.autoscaling.decision import Reason, ScalingDecision
from trierarch.autoscaling.replay import replay
from trierarch.core.usage import ServiceTier
from trierarch.simulation.controllers import PipelineController
from trierarch.simulation.defaults import H200_NODE_SERVICE
from trierarch.simulation.engine.records import SHED
from trierarch.simulation.fleet.ledger import cost_usd
from trierarch.simulation.fleet.setup import (
    SPOT,
    ColdStart,
    FleetSetup,
    Objective,
    PriceSteps,
    SpotSupply,
    VariantSetup,
)
from trierarch.simulation.fleet.simulator import RunResult, simulate
from trierarch.simulation.summary import summarize
from trierarch.simulation.traces import SpotTrace, Trace
from trierarch.simulation.traces.trace import Tier, build_trace

DURATION_SECONDS, CHANGE_SECONDS = 5400.0, 3000.0
REQUESTS_PER_SECOND = 9.0
USD_PER_HOUR, SPOT_USD_PER_HOUR = 27.0, 12.0
FIRM, CHEAP = 0, 1
SMALL_SERVICE = dataclasses.replace(H200_NODE_SERVICE, maximum_requests=16)
"""Sixteen seats: a few requests a second fill a replica."""


def steady_traffic(flex_ratio: float = 0.0) -> Trace:
    generator = np.random.default_rng(5)
    count = int(REQUESTS_PER_SECOND * DURATION_SECONDS)
    times = np.sort(generator.uniform(0.0, DURATION_SECONDS, count))
    tiers = np.where(generator.random(count) < flex_ratio, Tier.FLEX, Tier.DEFAULT)
    return build_trace(
        "steady",
        "test",
        times,
        np.full(count, 1000),
        generator.integers(100, 300, count),
        tiers=tiers.astype(np.int8),
    )


def fleet(*variants: VariantSetup, initial: tuple[int, ...]) -> FleetSetup:
    objective = Objective(ttft_seconds=2.0, tpot_seconds=0.05, percentile=99.0)
    return FleetSetup("test", variants, objective=objective, initial_replicas=initial)


def firm(price: PriceSteps) -> VariantSetup:
    return VariantSetup(
        "firm",
        SMALL_SERVICE,
        price,
        ColdStart(120.0),
        minimum_replicas=1,
        maximum_replicas=16,
    )


def play(
    setup: FleetSetup, trace: Trace, **overrides: object
) -> tuple[RunResult, list[ScalingDecision]]:
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    controller = PipelineController(setup, named, name="trierarch")
    return simulate(setup, trace, controller, seed=1), controller.decisions


def before_and_after(decisions: list[ScalingDecision]) -> tuple[ScalingDecision, ScalingDecision]:
    """Return the last decision before the change and the last while requests arrive."""
    known = [d for d in decisions if d.at_unix_seconds <= DURATION_SECONDS]
    return [d for d in known if d.at_unix_seconds < CHANGE_SECONDS][-1], known[-1]


def test_prices_rise_and_the_bill_the_condition_and_the_feasible_target_follow() -> None:
    rising = PriceSteps(((0.0, USD_PER_HOUR), (CHANGE_SECONDS, 3 * USD_PER_HOUR)))
    target = {"cost__target_usd_per_million_tokens": 5.0}
    dear, decisions = play(fleet(firm(rising), initial=(5,)), steady_traffic(), **target)
    before, after = before_and_after(decisions)
    assert before.condition("CostTargetMet").status.value == "True"
    assert after.condition("CostTargetMet").status.value == "False"
    assert before.feasible_usd_per_million_tokens is not None
    assert after.feasible_usd_per_million_tokens is not None
    ratio = after.feasible_usd_per_million_tokens / before.feasible_usd_per_million_tokens
    assert ratio == pytest.approx(3.0, rel=0.35)
    # Latency is preferred: dearer replicas are no fewer, and the promise is kept on them.
    assert abs(after.desired_replicas - before.desired_replicas) <= 1
    steady = PriceSteps.constant(USD_PER_HOUR)
    same, _ = play(fleet(firm(steady), initial=(5,)), steady_traffic(), **target)
    assert cost_usd(dear.setup, dear.lives) > 1.5 * cost_usd(same.setup, same.lives)
    assert summarize(dear).slo_attainment.both > 0.95
    assert replay(after.as_record()) == after


def test_spot_takes_over_vanishes_and_on_demand_carries_the_rest() -> None:
    market = SpotTrace(
        "market",
        np.array([0.0, CHANGE_SECONDS]),
        np.array([1.0, 0.0]),
        np.array([0.0, 1.0]),
        1e6,
    )
    spot = VariantSetup(
        "spot",
        SMALL_SERVICE,
        PriceSteps.constant(SPOT_USD_PER_HOUR),
        ColdStart(120.0),
        maximum_replicas=16,
        capacity_type=SPOT,
        supply=SpotSupply(market, 16, notice_seconds=30.0),
    )
    setup = fleet(firm(PriceSteps.constant(USD_PER_HOUR)), spot, initial=(5, 0))
    result, decisions = play(setup, steady_traffic())
    moments = [m for m in result.moments if m.at_seconds <= DURATION_SECONDS]
    before = [m for m in moments if m.at_seconds < CHANGE_SECONDS][-1]
    assert before.ready[CHEAP] >= 2
    assert before.ready[FIRM] <= 3
    # The floor that spot may never carry still serves when all of it is gone at once.
    assert before.ready[FIRM] >= 1
    assert moments[-1].ready[CHEAP] == 0
    assert moments[-1].ready[FIRM] >= 3
    assert "CheaperVariant" in {decision.reason.value for decision in decisions}
    reclaimed = [life for life in result.lives if life.reclaimed]
    assert len(reclaimed) == before.ready[CHEAP] + before.starting[CHEAP]
    summary = summarize(result)
    assert summary.lost_requests == 0
    assert summary.slo_attainment.both > 0.8


def test_prefer_cost_sheds_flex_and_nobody_else() -> None:
    trace = steady_traffic(flex_ratio=0.3)
    setup = fleet(firm(PriceSteps.constant(USD_PER_HOUR)), initial=(3,))
    target = {"cost__target_usd_per_million_tokens": 1.5, "cost__on_conflict": "PreferCost"}
    result, decisions = play(setup, trace, **target)
    shedding = [d for d in decisions if d.admission.shed_tiers]
    assert {d.admission.shed_tiers for d in shedding} == {(ServiceTier.FLEX,)}
    assert {Reason.COST_TARGET} <= {d.binding for d in shedding}
    refused = result.requests[result.requests["lost_reason"] == SHED]
    assert len(refused) > 0
    assert set(refused["tier"]) == {Tier.FLEX}
    said = {m.at_seconds: m.admission for m in result.moments}
    assert said == {d.at_unix_seconds: d.admission for d in decisions}
    # Nobody pays for what is not served: the same traffic with latency first costs more.
    latency, _ = play(setup, trace, cost__target_usd_per_million_tokens=1.5)
    assert cost_usd(result.setup, result.lives) < cost_usd(latency.setup, latency.lives)
    assert not (latency.requests["lost_reason"] == SHED).any()


def test_the_flex_lane_opens_and_closes_as_decided() -> None:
    setup = fleet(firm(PriceSteps.constant(USD_PER_HOUR)), initial=(1,))
    setup = dataclasses.replace(setup, flex_deadline_seconds=20_000.0, tail_seconds=8000.0)
    result, decisions = play(setup, steady_traffic(flex_ratio=0.3))
    said = {d.at_unix_seconds: d.admission.flex_open for d in decisions}
    assert {m.at_seconds: m.admission.flex_open for m in result.moments} == said
    assert set(said.values()) == {True, False}
    requests = result.requests[result.requests["tier"] == Tier.FLEX]
    started = requests["dispatch_seconds"]
    ticks = np.array(sorted(said))
    started = started[np.isfinite(started)]
    # None starts in an interval for which the lane was closed; what a replica takes that becomes
    # ready at a tick, it takes before the decision of that tick.
    place = np.searchsorted(ticks, started, side="left") - 1
    opened_now = np.isin(started, [tick for tick, is_open in said.items() if is_open])
    assert all(said[ticks[index]] for index in place[~opened_now])
    assert summarize(result).flex_attainment == 1.0
