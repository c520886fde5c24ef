"""What holds over time, whatever the demand does, while the policy learns."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from trierarch.autoscaling.decision import ScalingDecision
from trierarch.autoscaling.pipeline import decide
from trierarch.autoscaling.replay import replay
from trierarch.autoscaling.signals import (
    EngineSignals,
    GatewaySignals,
    HourlyBudget,
    Measured,
    Observation,
    TierSignals,
    VariantObservation,
)
from trierarch.autoscaling.specification import (
    Behavior,
    CapacityType,
    LatencyObjective,
    ScaleDown,
    ScalingSpec,
    VariantSpec,
)
from trierarch.autoscaling.state import PipelineState
from trierarch.core.identifiers import DecisionId, ModelName, VariantName

FIRM, SPOT = VariantName("firm"), VariantName("spot")
TICK_SECONDS, DWELL_SECONDS, MOST = 60.0, 300.0, 12
PRICES = {FIRM: 10.0, SPOT: 4.0}
SPEC = ScalingSpec(
    variants=(
        VariantSpec(name=FIRM, min_replicas=1, max_replicas=MOST, max_running_requests=64),
        VariantSpec(
            name=SPOT, max_replicas=MOST, max_running_requests=64, capacity_type=CapacityType.SPOT
        ),
    ),
    slo=LatencyObjective(ttft_seconds=2.0, tpot_seconds=0.05, percentile=95.0),
    behavior=Behavior(
        interval_seconds=TICK_SECONDS,
        scale_down=ScaleDown(window_seconds=120.0, dwell_seconds=DWELL_SECONDS),
    ),
)


def observe(
    now: float, counts: dict[VariantName, int], rate: float, missed: float, budget: float | None
) -> Observation:
    def signal(value: float) -> Measured[float]:
        return Measured(value, now)

    return Observation(
        now_unix_seconds=now,
        deployment="ns/m",
        model=ModelName("m"),
        variants=tuple(
            VariantObservation(
                name=name,
                ready=count,
                price_usd_per_hour=signal(PRICES[name]),
                engine=EngineSignals(
                    running_requests=signal(min(64.0 * count, rate * count)),
                    waiting_requests=signal(0.0),
                ),
            )
            for name, count in counts.items()
        ),
        gateway=GatewaySignals(
            arrivals_per_second=TierSignals(default=signal(rate)),
            waiting_requests=TierSignals(default=signal(0.0)),
            mean_input_tokens=signal(400.0),
            mean_output_tokens=signal(100.0),
            completed_per_second=signal(rate),
            slo_met_ratio=signal(1.0 - missed),
            ttft_met_ratio=signal(1.0),
        ),
        budgets=() if budget is None else (HourlyBudget("team", budget),),
    )


@settings(max_examples=60, deadline=None)
@given(
    rates=st.lists(st.tuples(st.floats(0.0, 200.0), st.integers(1, 12)), min_size=2, max_size=6),
    limit=st.floats(2.0, 40.0),
    budget=st.one_of(st.none(), st.floats(20.0, 120.0)),
)
def test_bounds_budget_dwell_and_replay_hold_all_along(
    rates: list[tuple[float, int]], limit: float, budget: float | None
) -> None:
    counts, state, now = {FIRM: 2, SPOT: 0}, PipelineState(), 0.0
    added_at: float | None = None
    last: ScalingDecision | None = None
    for rate in (rate for rate, minutes in rates for _ in range(minutes)):
        load = rate / max(1, sum(counts.values())) / limit
        observation = observe(now, counts, rate, min(1.0, 0.02 * load**8), budget)
        decision, state = decide(observation, SPEC, state, DecisionId("d"))
        after = dict(decision.replicas)
        assert all(0 <= after[name] <= MOST for name in after)
        assert after[FIRM] >= 1
        cost = sum(PRICES[name] * after[name] for name in after)
        if budget is not None and any(after[name] > counts[name] for name in after):
            assert cost <= budget + 1e-6
        before, total = sum(counts.values()), sum(after.values())
        is_switching = before > (last.desired_replicas if last else before) or any(
            step.reason == "CheaperVariant" for step in (last.steps if last else ())
        )
        if total < before and added_at is not None and not is_switching:
            assert now - added_at >= DWELL_SECONDS - 1e-6
        if total > before and decision.reason != "CheaperVariant":
            added_at = now
        counts, last = after, decision
        now += TICK_SECONDS
    assert last is not None
    assert replay(last.as_record()) == last


@settings(max_examples=40, deadline=None)
@given(
    steady=st.floats(5.0, 60.0),
    low=st.floats(0.0, 150.0),
    factor=st.floats(1.0, 4.0),
    limit=st.floats(3.0, 30.0),
)
def test_more_demand_never_asks_for_fewer(
    steady: float, low: float, factor: float, limit: float
) -> None:
    counts, state, now = {FIRM: 4, SPOT: 0}, PipelineState(), 0.0
    for _ in range(30):
        load = steady / sum(counts.values()) / limit
        observation = observe(now, counts, steady, min(1.0, 0.02 * load**8), None)
        decision, state = decide(observation, SPEC, state, DecisionId("d"))
        counts = dict(decision.replicas)
        now += TICK_SECONDS

    def desired(rate: float) -> int:
        # The same misses: only the demand differs.
        observation = observe(now, counts, rate, 0.01, None)
        return decide(observation, SPEC, state, DecisionId("d"))[0].desired_replicas

    assert desired(low) <= desired(low * factor)
