"""The closed loop on cost and latency: what happens to counts, reasons and conditions.

A small fleet is played by hand: a decision is carried out at once, what starts
serves one cold start later, and requests miss the objective from a known load on.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from trierarch.autoscaling.decision import ConditionStatus, Reason, ScalingDecision
from trierarch.autoscaling.miss_curve import MissCurve, learn_misses
from trierarch.autoscaling.pipeline import decide
from trierarch.autoscaling.replay import replay
from trierarch.autoscaling.signals import (
    CostSignals,
    EngineSignals,
    GatewaySignals,
    Measured,
    Observation,
    Signal,
    Stale,
    StartingReplica,
    TierSignals,
    VariantObservation,
)
from trierarch.autoscaling.specification import (
    Behavior,
    CapacityType,
    CostTarget,
    LatencyObjective,
    OnConflict,
    ScalingSpec,
    ServicePrior,
    VariantSpec,
)
from trierarch.autoscaling.state import PipelineState
from trierarch.core.admission import Admission
from trierarch.core.identifiers import DecisionId, ModelName, VariantName
from trierarch.core.usage import ServiceTier

FIRM, SPOT = VariantName("firm"), VariantName("spot")
TICK_SECONDS, COLD_START_SECONDS = 15.0, 120.0
INPUT_TOKENS, OUTPUT_TOKENS = 500.0, 200.0
PRIOR = ServicePrior(step_seconds=0.02, prefill_token_seconds=3e-5, decode_token_seconds=1e-4)
RATE_AT_LIMIT = 12.0
"""Requests per second and replica from which the played fleet misses its objective."""


def build_spec(**fields: Any) -> ScalingSpec:
    variant: dict[str, Any] = {
        "max_replicas": 20,
        "cold_start_seconds": COLD_START_SECONDS,
        "max_running_requests": 128,
        "service_prior": PRIOR,
    }
    least = fields.pop("least", 1)
    variants = [VariantSpec(name=FIRM, min_replicas=least, **variant)]
    if fields.pop("with_spot", False):
        variants.append(VariantSpec(name=SPOT, capacity_type=CapacityType.SPOT, **variant))
    fields.setdefault("slo", LatencyObjective(ttft_seconds=2.0, tpot_seconds=0.06, percentile=99))
    return ScalingSpec(
        variants=tuple(variants), behavior=Behavior(interval_seconds=TICK_SECONDS), **fields
    )


@dataclasses.dataclass
class Fleet:
    """What is played; prices and the spot market can be changed between ticks."""

    spec: ScalingSpec
    ready: dict[VariantName, int]
    prices: dict[VariantName, float]
    now: float = 0.0
    limit: float = RATE_AT_LIMIT
    spot_available: int = 20
    metrics_lost: bool = False
    state: PipelineState = dataclasses.field(default_factory=PipelineState)
    starting: list[tuple[float, VariantName]] = dataclasses.field(default_factory=list)
    refused: dict[VariantName, int] = dataclasses.field(default_factory=dict)
    decisions: list[ScalingDecision] = dataclasses.field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.ready.values()) + len(self.starting)

    def observe(self, rate: float) -> Observation:
        now, serving = self.now, sum(self.ready.values())
        load = rate / serving / self.limit if serving else 2.0
        missed = min(1.0, 0.003 * load**16)
        waiting = max(0.0, load - 1.0) * 40.0 * serving

        def signal(value: float) -> Signal:
            return Stale(value, now - 600.0) if self.metrics_lost else Measured(value, now)

        per_hour = rate * 3600.0
        spend = sum(self.prices[name] * count for name, count in self.ready.items())
        return Observation(
            now_unix_seconds=now,
            deployment="ns/m",
            model=ModelName("m"),
            variants=tuple(
                VariantObservation(
                    name=variant.name,
                    ready=self.ready[variant.name],
                    starting=tuple(
                        StartingReplica(at) for at, name in self.starting if name == variant.name
                    ),
                    price_usd_per_hour=Measured(self.prices[variant.name], now),
                    not_obtained=self.refused.get(variant.name, 0),
                    engine=EngineSignals(
                        running_requests=signal(8.0 * self.ready[variant.name] * min(load, 1.0)),
                        waiting_requests=signal(0.0),
                    ),
                )
                for variant in self.spec.variants
            ),
            gateway=GatewaySignals(
                arrivals_per_second=TierSignals(default=signal(rate)),
                waiting_requests=TierSignals(default=signal(waiting)),
                in_flight_requests=signal(8.0 * serving),
                mean_input_tokens=signal(INPUT_TOKENS),
                mean_output_tokens=signal(OUTPUT_TOKENS),
                completed_per_second=signal(rate),
                slo_met_ratio=signal(1.0 - missed),
                ttft_met_ratio=signal(1.0),
            ),
            cost=CostSignals(
                spend_usd_per_hour=Measured(spend, now),
                input_tokens_per_hour=Measured(INPUT_TOKENS * per_hour, now),
                output_tokens_per_hour=Measured(OUTPUT_TOKENS * per_hour, now),
            ),
        )

    def tick(self, rate: float) -> ScalingDecision:
        decision, self.state = decide(
            self.observe(rate), self.spec, self.state, DecisionId(f"d{len(self.decisions)}")
        )
        self.decisions.append(decision)
        self.refused = {}
        for name, count in decision.replicas.items():
            self._carry_out(name, count)
        self.now += TICK_SECONDS
        arrived = [start for start in self.starting if start[0] <= self.now]
        self.starting = [start for start in self.starting if start[0] > self.now]
        for _, name in arrived:
            self.ready[name] += 1
        return decision

    def _carry_out(self, name: VariantName, count: int) -> None:
        mine = [start for start in self.starting if start[1] == name]
        missing = count - self.ready[name] - len(mine)
        if name == SPOT and missing > 0:
            given = max(0, min(missing, self.spot_available - self.ready[name] - len(mine)))
            self.refused[name], missing = missing - given, given
        self.starting += [(self.now + COLD_START_SECONDS, name)] * max(0, missing)
        for _ in range(-missing):
            if mine:
                self.starting.remove(mine.pop())
            else:
                self.ready[name] -= 1

    def run(self, minutes: float, rate: Callable[[float], float] | float) -> ScalingDecision:
        for _ in range(round(minutes * 60 / TICK_SECONDS)):
            decision = self.tick(rate(self.now) if callable(rate) else rate)
        return decision


def single(replicas: int = 4, **fields: Any) -> Fleet:
    return Fleet(build_spec(**fields), {FIRM: replicas}, {FIRM: 10.0})


def mixed(firm: int = 6, spot: int = 0, **fields: Any) -> Fleet:
    what = build_spec(with_spot=True, **fields)
    return Fleet(what, {FIRM: firm, SPOT: spot}, {FIRM: 10.0, SPOT: 4.0})


def target(usd: float, on_conflict: OnConflict = OnConflict.PREFER_LATENCY) -> CostTarget:
    return CostTarget(target_usd_per_million_tokens=usd, on_conflict=on_conflict)


def cost_condition(decision: ScalingDecision) -> tuple[str, str]:
    found = decision.condition("CostTargetMet")
    return found.status.value, found.reason


def test_steady_demand_settles_below_the_limit_and_stays() -> None:
    fleet = single(8)
    fleet.run(90, 40.0)
    counts = [sum(decision.replicas.values()) for decision in fleet.decisions[-80:]]
    # 40 a second at 12 each: 4 or 5 keep 99 %.
    assert set(counts) <= {4, 5}
    changes = sum(a != b for a, b in itertools.pairwise(counts))
    assert changes <= 2


def test_demand_falls() -> None:
    fleet = single(5)
    fleet.run(60, 40.0)
    before = fleet.total
    decision = fleet.run(60, 10.0)
    assert fleet.total <= 2 < before
    removals = [d for d in fleet.decisions if sum(d.replicas.values()) < sum(d.previous.values())]
    assert {d.reason for d in removals} == {Reason.LOW_LOAD}
    assert decision.condition("MetricsFresh").status is ConditionStatus.TRUE


def test_demand_ramps_and_the_count_is_there_in_time() -> None:
    fleet = single(4)
    fleet.run(60, 30.0)
    start = fleet.now
    fleet.run(40, lambda now: 30.0 + (now - start) / 60.0)
    assert sum(fleet.ready.values()) * RATE_AT_LIMIT >= 69.0
    assert Reason.FORECAST in {decision.reason for decision in fleet.decisions}


def test_a_burst_moves_the_count_by_no_more_than_its_pace() -> None:
    fleet = single(5)
    fleet.run(60, 40.0)
    before = fleet.total
    fleet.run(0.5, 80.0)
    assert before < fleet.total <= 3 * before
    fleet.run(60, 40.0)
    assert fleet.total <= before + 1


@pytest.mark.parametrize(
    ("usd", "fields", "status", "reason"),
    [
        (1.0, {}, "True", "AtOrBelowTarget"),
        (0.01, {}, "False", "PricesTooHigh"),
        (1.1, {"least": 12}, "False", "MinReplicas"),
    ],
    ids=["in-reach", "no-full-replica-is-that-cheap", "the-minimum-costs-it"],
)
def test_the_cost_condition_names_what_binds(
    usd: float, fields: dict[str, Any], status: str, reason: str
) -> None:
    fleet = single(fields.get("least", 5), cost=target(usd), **fields)
    decision = fleet.run(60, 40.0)
    assert cost_condition(decision) == (status, reason)
    feasible = decision.feasible_usd_per_million_tokens
    assert feasible is not None
    if reason == "PricesTooHigh":
        assert feasible > usd
        assert f"feasible now {feasible:.4f}" in decision.condition("CostTargetMet").message


def test_low_demand_cannot_pay_for_one_replica() -> None:
    decision = single(1, cost=target(0.5)).run(60, 3.0)
    # 10 USD an hour for 7.6 million tokens.
    assert cost_condition(decision) == ("False", "DemandTooLow")
    assert decision.feasible_usd_per_million_tokens == pytest.approx(10 / 7.56, rel=0.01)


def test_prices_rise_and_the_feasible_target_rises_with_them() -> None:
    fleet = single(5, cost=target(0.5))
    before = fleet.run(60, 40.0)
    fleet.prices[FIRM] = 30.0
    after = fleet.run(10, 40.0)
    assert cost_condition(before)[0] == "True"
    assert cost_condition(after)[0] == "False"
    assert before.feasible_usd_per_million_tokens is not None
    assert after.feasible_usd_per_million_tokens == pytest.approx(
        3 * before.feasible_usd_per_million_tokens
    )
    # Latency is preferred: the count stays.
    assert sum(after.replicas.values()) == sum(before.replicas.values())


def test_prefer_cost_gives_up_replicas_for_the_target() -> None:
    dear = single(5, cost=target(0.25, OnConflict.PREFER_COST)).run(30, 40.0)
    assert dear.binding is Reason.COST_TARGET
    # 0.25 USD for each of 100.8 million tokens an hour pays for 2 replicas at 10.
    assert sum(dear.replicas.values()) == 2


def test_prefer_cost_never_goes_below_the_minimum() -> None:
    dear = single(5, least=4, cost=target(0.25, OnConflict.PREFER_COST)).run(30, 40.0)
    assert sum(dear.replicas.values()) == 4


def test_prefer_cost_sheds_flex_while_requests_wait_for_what_it_does_not_buy() -> None:
    fleet = single(5, cost=target(0.15, OnConflict.PREFER_COST))
    capped = fleet.run(30, 60.0)
    # Two replicas keep twelve requests a second each, and sixty come.
    assert sum(fleet.ready.values()) * RATE_AT_LIMIT < 60.0
    assert capped.admission == Admission(flex_open=False, shed_tiers=(ServiceTier.FLEX,))
    fleet.spec = build_spec(cost=target(0.15))
    assert fleet.run(60, 60.0).admission == Admission(flex_open=True)


def test_a_cheaper_variant_takes_over_before_the_dear_one_goes() -> None:
    fleet = mixed(firm=5)
    fleet.run(40, 40.0)
    assert fleet.ready[SPOT] >= 2
    assert fleet.ready[FIRM] <= 3
    # Capacity never fell below what served at first while they changed places.
    assert (
        min(
            sum(d.inputs.observation.variant(n).ready for n in (FIRM, SPOT))
            for d in fleet.decisions[:40]
        )
        >= 4
    )
    assert Reason.CHEAPER_VARIANT in {decision.reason for decision in fleet.decisions}


def test_spot_vanishes_and_on_demand_carries_the_rest() -> None:
    fleet = mixed(firm=5)
    fleet.run(60, 40.0)
    wanted = sum(fleet.ready.values())
    fleet.spot_available, fleet.ready[SPOT] = 0, 0
    # The floor keeps serving meanwhile.
    assert fleet.ready[FIRM] >= 0.3 * wanted - 1
    fleet.run(15, 40.0)
    assert fleet.ready[FIRM] >= 4
    assert fleet.ready[SPOT] == 0


def test_the_objective_tightens() -> None:
    fleet = single(5)
    fleet.run(60, 40.0)
    before = fleet.total
    fleet.limit = 7.0
    fleet.run(60, 40.0)
    assert fleet.total > before


def test_an_objective_that_no_load_keeps_does_not_end_the_decisions() -> None:
    fleet = single(5)
    fleet.run(30, 40.0)
    late = MissCurve()
    for load in (0.3, 0.6, 0.9):
        late = learn_misses(
            late, now_unix_seconds=fleet.now, load=load, requests=1e5, misses=1e5, late=1e5
        )
    sizing = dataclasses.replace(fleet.state.sizing, curve=late)
    fleet.state = dataclasses.replace(fleet.state, sizing=sizing)
    assert sum(fleet.run(10, 40.0).replicas.values()) >= 1


def test_lost_metrics_hold_what_there_is() -> None:
    fleet = single(5)
    fleet.run(30, 40.0)
    before = fleet.total
    fleet.metrics_lost = True
    decision = fleet.run(30, 40.0)
    assert fleet.total == before
    assert decision.condition("MetricsFresh").status is ConditionStatus.FALSE


def test_neighbours_are_predicted_and_the_record_decides_the_same() -> None:
    decision = single(5).run(60, 40.0)
    found = decision.counterfactual
    assert found is not None
    assert found.one_fewer is not None
    assert found.one_more is not None
    assert found.one_more.tpot_seconds is not None
    assert found.chosen.meets_slo is True
    assert found.one_fewer.meets_slo in (True, False)
    assert replay(decision.as_record()) == decision


def test_flex_is_let_in_while_the_objective_has_room() -> None:
    calm = single(8, least=4).run(90, 30.0)
    assert calm.admission.flex_open
    full = single(2)
    full.run(1, 60.0)
    assert not full.decisions[-1].admission.flex_open
