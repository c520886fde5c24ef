"""The simulated fleet against formulas, and its books against each other."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from trierarch.autoscaling.signals import Measured, Missing, Stale
from trierarch.core.admission import OPEN, Admission
from trierarch.core.errors import InvalidInput
from trierarch.core.usage import ServiceTier
from trierarch.simulation.engine.records import COMPLETED, LOST, SHED
from trierarch.simulation.fleet.ledger import cost_usd, replica_hours
from trierarch.simulation.fleet.replicas import ReplicaPool
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
from trierarch.simulation.fleet.snapshot import FleetSnapshot
from trierarch.simulation.observing import ObservationBuilder
from trierarch.simulation.schedules import StaticController
from trierarch.simulation.service import ServiceCoefficients
from trierarch.simulation.summary import summarize
from trierarch.simulation.traces import SpotTrace, Tier, Trace
from trierarch.simulation.traces.trace import build_trace

HOUR = 3600.0


def service(**changes: float) -> ServiceCoefficients:
    """Return one seat, a step of 10 ms, and nothing else that takes time."""
    values: dict[str, float] = {
        "step_seconds": 0.010,
        "expert_seconds": 0.0,
        "expert_share_ratio": 0.0,
        "decode_token_seconds": 0.0,
        "prefill_token_seconds": 0.0,
        "context_token_seconds": 0.0,
        "prefill_context_seconds": 0.0,
        "maximum_requests": 1,
        "step_tokens": 1000,
        "kv_limit_tokens": 10_000_000,
    }
    return ServiceCoefficients(**{**values, **changes})  # type: ignore[arg-type]  # counts are ints


def fleet(model: ServiceCoefficients, replicas: int = 1, **changes: object) -> FleetSetup:
    """Return a fleet of one variant whose replicas are there from the start."""
    names = {field.name for field in dataclasses.fields(VariantSetup)}
    variant = VariantSetup(
        name="only",
        service=model,
        price=PriceSteps.constant(3.6),
        cold_start=ColdStart(30.0),
        maximum_replicas=8,
    )
    mine = {name: value for name, value in changes.items() if name in names}
    rest = {name: value for name, value in changes.items() if name not in names}
    base = FleetSetup(
        name="test",
        variants=(dataclasses.replace(variant, **mine),),
        objective=Objective(),
        initial_replicas=(replicas,),
        queue_timeout_seconds=1e9,
    )
    return dataclasses.replace(base, **rest)


def requests(
    times: object, inputs: object = 1, outputs: object = 1, tiers: object = Tier.DEFAULT
) -> Trace:
    """Return a trace from columns or constants."""
    arrivals = np.asarray(times, np.float64)
    count = len(arrivals)
    return build_trace(
        "test",
        "test",
        arrivals,
        np.broadcast_to(np.asarray(inputs, np.int64), (count,)),
        np.broadcast_to(np.asarray(outputs, np.int64), (count,)),
        tiers=np.broadcast_to(np.asarray(tiers, np.int8), (count,)).copy(),
    )


def run(setup: FleetSetup, trace: Trace, replicas: int | None = None, **options: int) -> RunResult:
    """Run a fixed fleet."""
    count = setup.initial_replicas[0] if replicas is None else replicas
    return simulate(setup, trace, StaticController([count]), seed=options.pop("seed", 0), **options)


def mixed_load(count: int = 600, seed: int = 3) -> Trace:
    """Return random requests of all tiers that overfill a small replica."""
    generator = np.random.default_rng(seed)
    return requests(
        np.sort(generator.uniform(0, 120, count)),
        generator.integers(1, 900, count),
        generator.integers(1, 200, count),
        generator.choice([0, 1, 1, 2], count),
    )


SMALL = service(
    maximum_requests=16,
    step_tokens=256,
    kv_limit_tokens=4000,
    decode_token_seconds=1e-4,
    prefill_token_seconds=2e-5,
    context_token_seconds=1e-7,
)


class Scripted:
    """Wants what a list of (from seconds, counts) says, and keeps what it was shown."""

    name = "scripted"
    tick_seconds: float | None = None

    def __init__(
        self,
        *steps: tuple[float, tuple[int, ...]],
        flex_from_seconds: float = 0.0,
        shed: dict[float, tuple[ServiceTier, ...]] | None = None,
    ) -> None:
        self._steps = steps
        self._flex_from_seconds = flex_from_seconds
        self._shed = shed or {}
        self.admission = OPEN
        self.seen: list[FleetSnapshot] = []

    def begin(self, setup: FleetSetup, pool: ReplicaPool) -> None:
        """Nothing to prepare."""

    def decide(self, snapshot: FleetSnapshot) -> tuple[int, ...]:
        """Return the newest counts that apply."""
        self.seen.append(snapshot)
        self.admission = Admission(
            snapshot.now_seconds >= self._flex_from_seconds,
            self._shed.get(snapshot.now_seconds, self.admission.shed_tiers),
        )
        return next(c for at, c in reversed(self._steps) if at <= snapshot.now_seconds)


def test_one_seat_with_equal_services_waits_as_md1_says() -> None:
    generator = np.random.default_rng(1)
    load, duration = 0.7, 0.010
    gaps = generator.exponential(duration / load, 60_000)
    result = run(fleet(service()), requests(np.cumsum(gaps)))
    waits = result.requests["dispatch_seconds"] - result.requests["arrival_seconds"]
    expected = load * duration / (2 * (1 - load))
    assert waits.mean() == pytest.approx(expected, rel=0.05)


def test_several_seats_with_exponential_services_wait_as_erlang_c_says() -> None:
    generator = np.random.default_rng(2)
    servers, load, mean_steps = 3, 0.7, 400.0
    count = 60_000
    outputs = np.maximum(1, np.ceil(generator.exponential(mean_steps, count)))
    mean_seconds = float(outputs.mean()) * 0.010
    gaps = generator.exponential(mean_seconds / (servers * load), count)
    result = run(fleet(service(), servers), requests(np.cumsum(gaps), 1, outputs))
    waits = result.requests["dispatch_seconds"] - result.requests["arrival_seconds"]
    offered = servers * load
    full = offered**servers / math.factorial(servers) / (1 - load)
    busy = full / (sum(offered**k / math.factorial(k) for k in range(servers)) + full)
    expected = busy * mean_seconds / (servers * (1 - load))
    assert waits.mean() == pytest.approx(expected, rel=0.08)


def test_a_lone_request_takes_the_steps_the_service_model_gives() -> None:
    model = service(
        expert_seconds=0.004,
        expert_share_ratio=0.25,
        decode_token_seconds=1e-3,
        prefill_token_seconds=1e-5,
        context_token_seconds=1e-6,
        prefill_context_seconds=1e-9,
    )
    result = run(fleet(model), requests([0.0], 2500, 4))
    prefill = sum(
        model.step_time_seconds(
            decoding=0, prefill_tokens=chunk, prefill_pairs=chunk * (before + chunk / 2)
        )
        for before, chunk in ((0, 1000), (1000, 1000), (2000, 500))
    )
    decode = sum(
        model.step_time_seconds(decoding=1, context_tokens=context)
        for context in (2500, 2501, 2502)
    )
    assert result.requests["first_token_seconds"][0] == pytest.approx(prefill)
    assert result.requests["finish_seconds"][0] == pytest.approx(prefill + decode)


def test_runs_of_many_steps_give_what_single_steps_give() -> None:
    trace = dataclasses.replace(mixed_load(), tiers=np.ones(600, np.int8))
    setup = fleet(dataclasses.replace(SMALL, kv_limit_tokens=10_000_000), 2)
    many, single = run(setup, trace), run(setup, trace, maximum_run_steps=1)
    for name in ("dispatch_seconds", "first_token_seconds", "finish_seconds"):
        # One prompt token may fall into the next step: rounding decides at a step's very end.
        np.testing.assert_allclose(many.requests[name], single.requests[name], atol=1e-4)


def test_a_seed_gives_the_same_run_and_another_gives_another() -> None:
    setup = fleet(SMALL, 1, cold_start=ColdStart(20.0, 0.5))
    first, again, other = (run(setup, mixed_load(), 3, seed=seed) for seed in (5, 5, 6))
    assert summarize(first) == summarize(again)
    assert first.requests.tobytes() == again.requests.tobytes()
    assert [life.ready_seconds for life in first.lives] != [
        life.ready_seconds for life in other.lives
    ]


def test_every_request_ends_once_and_the_books_agree() -> None:
    setup = fleet(SMALL, 1, queue_timeout_seconds=20.0, queue_limit=150)
    trace = mixed_load(1500)
    result = run(setup, trace)
    summary = summarize(result)
    status = result.requests["status"]
    completed = status == COMPLETED
    assert completed.sum() + (status == LOST).sum() + summary.unfinished_requests == len(trace)
    assert summary.lost_requests > 0
    assert np.isfinite(result.requests["finish_seconds"][completed]).all()
    assert np.isnan(result.requests["finish_seconds"][~completed]).all()
    generated = result.requests["generated_tokens"]
    assert (generated[completed] == trace.output_tokens[completed]).all()
    (life,) = result.lives
    seconds = life.released_seconds - life.provisioned_seconds
    assert life.busy_seconds <= seconds + 1e-6
    assert summary.replica_hours == pytest.approx(seconds / HOUR)
    assert summary.cost_usd == pytest.approx(3.6 * seconds / HOUR)


def test_kv_memory_is_never_overdrawn_and_preempted_requests_still_end() -> None:
    result = run(fleet(dataclasses.replace(SMALL, kv_limit_tokens=1500)), mixed_load())
    assert result.preemptions > 0
    assert max(life.most_kv_tokens for life in result.lives) <= 1500
    interactive = result.requests["tier"] != Tier.FLEX
    assert (result.requests["status"][interactive] == COMPLETED).all()


def test_a_request_that_no_replica_can_hold_is_lost_at_once() -> None:
    result = run(fleet(SMALL), requests([0.0, 1.0], [3999, 10], [2, 2]))
    assert list(result.requests["status"]) == [LOST, COMPLETED]


def test_the_gateway_serves_priority_then_default_then_flex() -> None:
    tiers = [Tier.DEFAULT, Tier.FLEX, Tier.DEFAULT, Tier.PRIORITY]
    result = run(fleet(service()), requests([0.0, 0.1, 0.2, 0.3], 1, 100, tiers))
    order = np.argsort(result.requests["dispatch_seconds"], kind="stable")
    assert list(order) == [0, 3, 2, 1]


def test_who_can_no_longer_be_in_time_waits_for_those_who_can() -> None:
    trace = requests([0.0, 0.1, 0.2, 1.5], 1, 100)
    order = {
        late_last: np.argsort(
            run(fleet(service(), late_requests_last=late_last), trace).requests["dispatch_seconds"]
        ).tolist()
        for late_last in (False, True)
    }
    assert order == {False: [0, 1, 2, 3], True: [0, 1, 3, 2]}


def test_late_requests_stay_inside_their_tier_and_flex_keeps_its_order() -> None:
    tiers = [Tier.DEFAULT, Tier.FLEX, Tier.DEFAULT, Tier.PRIORITY, Tier.DEFAULT, Tier.FLEX]
    result = run(fleet(service()), requests([0.0, 0.1, 0.2, 0.3, 2.6, 2.7], 1, 300, tiers))
    order = np.argsort(result.requests["dispatch_seconds"], kind="stable")
    assert order.tolist() == [0, 3, 2, 4, 1, 5]


def test_an_overloaded_replica_still_answers_what_it_can_in_time() -> None:
    # One second of work for a seat arrives in every 0.8 s, for ten minutes.
    trace = requests(np.arange(0, 600, 0.8), 1, 100)
    first_come, late_last = (
        summarize(run(fleet(service(), late_requests_last=last), trace)).slo_attainment.ttft
        for last in (False, True)
    )
    assert first_come < 0.02
    assert late_last > 0.75


def test_late_requests_that_start_again_are_the_first_of_the_late() -> None:
    setup = spot_fleet(0.0)
    model = dataclasses.replace(setup.variants[0].service, maximum_requests=1)
    setup = dataclasses.replace(
        setup, variants=(dataclasses.replace(setup.variants[0], service=model),)
    )
    # Both replicas are lost in their first prompt, while a late request waits.
    result = run(setup, requests([10.0, 10.1, 11.0], [4_000_000, 4_000_000, 10], 10))
    assert result.requests["restarts"].tolist() == [1, 1, 0]
    first_token = result.requests["first_token_seconds"]
    assert first_token[:2].max() < first_token[2]


def test_a_closed_flex_lane_starts_nothing_until_it_opens() -> None:
    tiers = [Tier.DEFAULT, Tier.FLEX, Tier.DEFAULT, Tier.FLEX]
    trace = requests([0.0, 1.0, 2.0, 3.0], 1, 100, tiers)
    controller = Scripted((0.0, (1,)), flex_from_seconds=60.0)
    result = simulate(fleet(service(maximum_requests=8)), trace, controller, seed=0)
    started = result.requests["dispatch_seconds"]
    assert started[2] == pytest.approx(2.0, abs=0.1)
    assert (started[[1, 3]] >= 60.0).all()
    assert (result.requests["status"] == COMPLETED).all()
    assert [m.admission.flex_open for m in result.moments] == [
        m.at_seconds >= 60 for m in result.moments
    ]
    waiting = [s.scrape for s in controller.seen if s.scrape and s.scrape.waiting_requests[2]]
    assert waiting
    assert all(scrape.flex_deadline_seconds is not None for scrape in waiting)


def test_requests_of_a_shed_lane_are_refused_until_it_is_taken_back() -> None:
    tiers = [Tier.PRIORITY, Tier.DEFAULT, Tier.FLEX] * 2
    trace = requests([0.0, 1.0, 2.0, 31.0, 32.0, 33.0], 1, 100, tiers)
    both = (ServiceTier.FLEX, ServiceTier.DEFAULT)
    controller = Scripted((0.0, (1,)), shed={0.0: both, 30.0: (ServiceTier.FLEX,)})
    result = simulate(fleet(service(maximum_requests=8)), trace, controller, seed=0)
    assert list(result.requests["status"]) == [COMPLETED, LOST, LOST, COMPLETED, COMPLETED, LOST]
    lost = result.requests[result.requests["status"] == LOST]
    assert set(lost["lost_reason"]) == {SHED}
    assert summarize(result).lost_requests == 3


def test_draining_loses_nothing_and_costs_until_the_last_token() -> None:
    trace = requests(np.arange(0, 10, 0.1), 10, 3000)
    model = service(maximum_requests=64, step_tokens=256)
    controller = Scripted((0.0, (2,)), (15.0, (1,)))
    result = simulate(fleet(model, 2), trace, controller, seed=0)
    assert (result.requests["status"] == COMPLETED).all()
    assert (result.requests["restarts"] == 0).all()
    drained = next(life for life in result.lives if life.drain_seconds == 15.0)
    mine = result.requests["finish_seconds"][result.requests["replica"] == drained.slot]
    assert drained.released_seconds == pytest.approx(mine.max())
    assert drained.released_seconds > 15.0


def spot_fleet(notice_seconds: float) -> FleetSetup:
    """Return two spot replicas that the market takes back at 30 s, and a market that reopens."""
    market = SpotTrace(
        "market",
        np.array([0.0, 30.0, 60.0]),
        np.array([1.0, 0.0, 1.0]),
        np.array([0.0, 1.0, 0.0]),
        1e6,
    )
    model = service(maximum_requests=64, step_tokens=256)
    return fleet(
        model, 2, capacity_type=SPOT, supply=SpotSupply(market, 2, notice_seconds=notice_seconds)
    )


def test_a_reclaimed_replica_is_gone_after_its_notice_and_its_requests_start_again() -> None:
    result = run(spot_fleet(5.0), requests(np.arange(0, 20, 0.2), 10, 4000))
    reclaimed = [life for life in result.lives if life.reclaimed]
    assert len(reclaimed) == 2
    assert all(life.drain_seconds == 30.0 for life in reclaimed)
    assert all(life.released_seconds == pytest.approx(35.0) for life in reclaimed)
    assert result.migrated == 100
    assert (result.requests["status"] == COMPLETED).all()
    assert (result.requests["restarts"] > 0).all()


def test_a_policy_is_told_what_the_market_took_and_did_not_give() -> None:
    controller = Scripted((0.0, (2,)))
    simulate(spot_fleet(5.0), requests([0.0, 100.0]), controller, seed=0)
    by_time = {snapshot.now_seconds: snapshot.variants[0] for snapshot in controller.seen}
    assert by_time[15.0].reclaimed == 0
    assert by_time[30.0].reclaimed == 2
    assert by_time[45.0].not_obtained == 2


def test_prices_are_those_of_the_time() -> None:
    steps = PriceSteps(((0.0, 2.0), (100.0, 8.0)))
    assert steps.charge_usd(50.0, 150.0) == pytest.approx((50 * 2 + 50 * 8) / HOUR)
    result = run(fleet(service(), price=steps), requests([0.0, 200.0]))
    end = result.lives[0].released_seconds
    assert cost_usd(result.setup, result.lives) == pytest.approx((100 * 2 + (end - 100) * 8) / HOUR)
    assert replica_hours(result.lives) == pytest.approx(end / HOUR)


@pytest.mark.parametrize("steps", [(), ((1.0, 2.0),), ((0.0, math.nan),), ((0.0, -1.0),)])
def test_prices_that_make_no_sense_are_refused(steps: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(InvalidInput):
        PriceSteps(steps)


def test_metrics_are_as_old_as_the_lag() -> None:
    controller = Scripted((0.0, (1,)))
    setup = fleet(service(), metrics_lag_seconds=20.0)
    simulate(setup, requests([0.0, 300.0]), controller, seed=0)
    ages = [s.now_seconds - s.scrape.at_seconds for s in controller.seen if s.scrape is not None]
    assert controller.seen[0].scrape is None
    assert controller.seen[1].scrape is None
    assert set(ages) == {20.0}


def test_lost_metrics_reach_a_policy_as_missing_and_then_stale() -> None:
    controller = Scripted((0.0, (1,)))
    setup = fleet(service(), metrics_loss_ratio=0.5)
    simulate(setup, requests(np.arange(0, 600, 1.0)), controller, seed=1)
    builder = ObservationBuilder(setup)
    seen = [(s, builder.build(s).gateway.in_flight_requests) for s in controller.seen]
    kinds = {type(signal) for _, signal in seen}
    assert kinds == {Missing, Measured, Stale}
    assert all(isinstance(signal, Missing) for s, signal in seen if s.scrape is None)
    failed = [signal for s, signal in seen if s.scrape is not None and s.scrape_failed]
    assert failed
    assert all(isinstance(signal, Stale) for signal in failed)


def test_cold_starts_are_drawn_around_the_median_and_equal_for_every_policy() -> None:
    start = ColdStart(100.0, 0.5)
    draws = start.draw(7, 0)
    assert np.median(draws) == pytest.approx(100.0, rel=0.05)
    assert np.log(draws).std() == pytest.approx(0.5, rel=0.05)
    setup = fleet(service(), 0, cold_start=start)
    for script in (((0.0, (3,)),), ((0.0, (1,)), (30.0, (3,)))):
        result = simulate(setup, requests([0.0, 900.0]), Scripted(*script), seed=7)
        lasted = [life.serving_seconds - life.provisioned_seconds for life in result.lives]
        assert lasted == pytest.approx(list(draws[:3]))


def test_a_bound_of_the_variant_holds_whatever_a_policy_wants() -> None:
    setup = fleet(service(), 1, minimum_replicas=1, maximum_replicas=3)
    controller = Scripted((0.0, (99,)), (60.0, (0,)))
    result = simulate(setup, requests([0.0, 300.0]), controller, seed=0)
    counts = [moment.ready[0] + moment.starting[0] for moment in result.moments]
    assert max(counts) == 3
    assert min(counts) == 1
