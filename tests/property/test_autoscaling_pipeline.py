"""What holds for every load, however it comes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from trierarch.autoscaling.pipeline import decide
from trierarch.autoscaling.signals import (
    EngineSignals,
    GatewaySignals,
    HourlyBudget,
    Measured,
    Missing,
    Observation,
    TierSignals,
    VariantObservation,
)
from trierarch.autoscaling.specification import (
    Behavior,
    ScaleDown,
    ScaleUp,
    ScalingSpec,
    VariantSpec,
)
from trierarch.autoscaling.state import PipelineState
from trierarch.core.identifiers import DecisionId, ModelName, VariantName

SMALL = VariantName("small")
LARGE = VariantName("large")

counts = st.integers(min_value=0, max_value=6)
loads = st.one_of(st.none(), st.floats(min_value=0, max_value=500))
prices = st.one_of(st.none(), st.floats(min_value=0.01, max_value=20))


def signal(value: float | None, now: float) -> Measured[float] | Missing:
    return Missing() if value is None else Measured(value, now)


@st.composite
def observations(draw: st.DrawFn, now: float = 1000.0) -> Observation:
    variants = []
    for name in (SMALL, LARGE):
        ready = draw(counts)
        variants.append(
            VariantObservation(
                name=name,
                ready=ready,
                draining=draw(st.integers(min_value=0, max_value=2)),
                price_usd_per_hour=signal(draw(prices), now),
                engine=EngineSignals(
                    running_requests=signal(draw(loads), now),
                    waiting_requests=signal(draw(loads), now),
                ),
            )
        )
    budget = draw(st.one_of(st.none(), st.floats(min_value=0.01, max_value=60)))
    return Observation(
        now_unix_seconds=now,
        deployment="ns/m",
        model=ModelName("m"),
        variants=tuple(variants),
        gateway=GatewaySignals(
            arrivals_per_second=TierSignals(default=signal(draw(loads), now)),
            waiting_requests=TierSignals(default=signal(draw(loads), now)),
            in_flight_requests=signal(draw(loads), now),
            completed_per_second=signal(draw(loads), now),
        ),
        budgets=() if budget is None else (HourlyBudget("team", budget),),
    )


@st.composite
def specs(draw: st.DrawFn) -> ScalingSpec:
    variants = []
    for name in (SMALL, LARGE):
        low = draw(st.integers(min_value=0, max_value=2))
        variants.append(
            VariantSpec(
                name=name,
                min_replicas=low,
                max_replicas=low + draw(st.integers(min_value=1, max_value=6)),
                max_running_requests=draw(st.one_of(st.none(), st.integers(1, 64))),
            )
        )
    return ScalingSpec(
        variants=tuple(variants),
        behavior=Behavior(
            scale_up=ScaleUp(window_seconds=draw(st.sampled_from((0.0, 10.0)))),
            scale_down=ScaleDown(window_seconds=draw(st.sampled_from((0.0, 60.0)))),
        ),
    )


def is_unknown(observation: Observation) -> bool:
    waits = observation.gateway.waiting_requests.default
    engines = [v.engine.waiting_requests for v in observation.variants if v.ready]
    return isinstance(waits, Missing) and (
        not engines or any(isinstance(wait, Missing) for wait in engines)
    )


@settings(max_examples=300, deadline=None)
@given(observations(), specs())
def test_bounds_budgets_and_unknown_loads(observation: Observation, spec: ScalingSpec) -> None:
    decision, _ = decide(observation, spec, PipelineState(), DecisionId("d"))
    for variant in spec.variants:
        now = observation.variant(variant.name).current
        desired = decision.replicas[variant.name]
        assert desired <= max(variant.max_replicas, now)
        # A budget may hold a count below its minimum; it never takes what is there.
        assert desired >= min(variant.min_replicas, now)
    grows = any(decision.replicas[v.name] > v.current for v in observation.variants)
    for budget in observation.budgets:
        if grows:
            paid = [
                (decision.replicas[v.name] + v.draining, v.price_usd_per_hour)
                for v in observation.variants
            ]
            assert all(isinstance(price, Measured) for count, price in paid if count)
            cost = sum(count * price.value for count, price in paid if isinstance(price, Measured))
            assert cost <= budget.usd_per_hour + 1e-6
    if is_unknown(observation):
        assert all(decision.replicas[v.name] >= v.current for v in observation.variants)
    again, _ = decide(observation, spec, PipelineState(), DecisionId("d"))
    assert again == decision


@settings(max_examples=150, deadline=None)
@given(
    ready=st.integers(1, 8),
    waiting=st.floats(0, 300),
    more=st.floats(0, 300),
    running=st.floats(0, 128),
    arrivals=st.floats(0, 50),
    completed=st.floats(0.1, 20),
)
def test_more_waiting_never_means_fewer_replicas(
    ready: int, waiting: float, more: float, running: float, arrivals: float, completed: float
) -> None:
    spec = ScalingSpec(
        variants=(VariantSpec(name=SMALL, max_replicas=40, max_running_requests=16),),
        behavior=Behavior(scale_up=ScaleUp(), scale_down=ScaleDown(window_seconds=0.0)),
    )

    def desired(waits: float) -> int:
        observation = Observation(
            now_unix_seconds=0.0,
            deployment="ns/m",
            model=ModelName("m"),
            variants=(
                VariantObservation(
                    name=SMALL,
                    ready=ready,
                    engine=EngineSignals(
                        running_requests=Measured(running, 0.0),
                        waiting_requests=Measured(0.0, 0.0),
                    ),
                ),
            ),
            gateway=GatewaySignals(
                arrivals_per_second=TierSignals(default=Measured(arrivals, 0.0)),
                waiting_requests=TierSignals(default=Measured(waits, 0.0)),
                in_flight_requests=Measured(running, 0.0),
                completed_per_second=Measured(completed, 0.0),
            ),
        )
        return decide(observation, spec, PipelineState(), DecisionId("d"))[0].desired_replicas

    assert desired(waiting + more) >= desired(waiting)
