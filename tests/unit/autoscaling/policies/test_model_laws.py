"""WVA, Dynamo, SkyServe and the spread over variants, by hand from their formulas."""

from __future__ import annotations

import pytest

from trierarch.autoscaling.policies.dynamo_forecasts import predict_next
from trierarch.autoscaling.policies.dynamo_load import LATENCY, DynamoLoadPolicy
from trierarch.autoscaling.policies.dynamo_sla import DynamoSlaPolicy
from trierarch.autoscaling.policies.hpa_behavior import HpaBehavior
from trierarch.autoscaling.policies.one_target import spread
from trierarch.autoscaling.policies.replica_profile import largest_batch
from trierarch.autoscaling.policies.skyserve import SkyServePolicy
from trierarch.autoscaling.policies.wva_actuation import VariantLimits
from trierarch.autoscaling.policies.wva_queueing import (
    WvaQueueingPolicy,
    highest_rate,
    predict,
)
from trierarch.autoscaling.policies.wva_saturation import WvaSaturationPolicy
from trierarch.autoscaling.policies.wva_tokens import WvaTokensPolicy
from trierarch.autoscaling.signals import ReplicaLoad
from trierarch.core.identifiers import ReplicaId, VariantName

AT_ONCE = HpaBehavior(down_window_seconds=0.0, up_percent=None, up_replicas=None)
GPU, SPOT = VariantName("gpu"), VariantName("spot")
LIMITS = (VariantLimits(GPU, 0, 10), VariantLimits(SPOT, 0, 10))


def loads(*pairs: tuple[float, float]) -> tuple[ReplicaLoad, ...]:
    """Return replicas with (KV ratio, waiting requests)."""
    return tuple(
        ReplicaLoad(
            replica_id=ReplicaId(str(place)),
            running_requests=0.0,
            waiting_requests=waiting,
            kv_used_ratio=kv,
        )
        for place, (kv, waiting) in enumerate(pairs)
    )


@pytest.mark.parametrize(
    ("replicas", "step"),
    [
        (((0.9, 0), (0.5, 6)), 1),  # all saturated
        (((0.75, 0),), 1),  # spare KV 0.05
        (((0.1, 2.5),), 1),  # spare queue 2.5
        (((0.2, 0), (0.2, 0)), -1),  # 0.4 each on one fewer
        (((0.36, 0), (0.36, 0)), 0),  # 0.72 leaves 0.08
        (((0.2, 0),), 0),  # the last of the free ones
        (((0.1, 4), (0.1, 4), (0.1, 0)), 1),  # spare queue 2.33
        (((0.1, 5), (0.1, 5), (0.1, 0)), 0),  # more waits, and it asks for less: a known defect
    ],
)
def test_wva_saturation_step(profile, replicas, step: int) -> None:
    policy = WvaSaturationPolicy(limits=LIMITS, profiles=(profile(),))
    assert policy.step(loads(*replicas)) == step


def test_wva_saturation_adds_the_cheapest_and_removes_the_dearest(
    observe, variant, profile
) -> None:
    policy = WvaSaturationPolicy(limits=LIMITS, profiles=(profile(),), behavior=AT_ONCE)
    for kv, counts in ((0.75, {GPU: 2, SPOT: 1}), (0.1, {GPU: 1, SPOT: 0})):
        seen = observe(
            variant("gpu", ready=2, price=10, loads=((kv, 0, 0, 0),) * 2),
            variant("spot", ready=0, price=4),
        )
        recommendation, _ = policy.recommend(seen, policy.initial_state())
        assert dict(recommendation.replicas) == counts


def test_wva_saturation_freezes_in_transition(observe, profile) -> None:
    policy = WvaSaturationPolicy(limits=LIMITS, profiles=(profile(),), behavior=AT_ONCE)
    seen = observe(ready=1, starting=1, loads=((0.95, 9, 0, 0),))
    recommendation, _ = policy.recommend(seen, policy.initial_state())
    assert (recommendation.desired_replicas, recommendation.reason) == (2, "InTransition")


def test_wva_acts_four_minutes_late(observe, profile) -> None:
    policy = WvaSaturationPolicy(limits=LIMITS, profiles=(profile(),))
    state, counts = policy.initial_state(), []
    for now in range(0, 301, 30):
        recommendation, state = policy.recommend(
            observe(now=now, ready=1, loads=((0.95, 9, 0, 0),)), state
        )
        counts.append(recommendation.desired_replicas)
    assert counts == [1] * 8 + [2] * 3  # from 240 s on


def test_wva_tokens_capacity_and_growth(observe, profile, variant) -> None:
    policy = WvaTokensPolicy(limits=LIMITS, profiles=(profile(),), behavior=AT_ONCE)
    # Seats: min(8192 * 200 / 1200, 256) = 256, times 1100 tokens; memory: 80,000.
    assert policy.capacity(variant(), (), 1000.0, 200.0) == 80_000
    # 100,000 / 0.85 - 80,000 = 37,647 tokens lack: one more.
    seen = observe(ready=1, loads=((0.6, 0, 60_000, 40_000),))
    assert policy.recommend(seen, policy.initial_state())[0].desired_replicas == 2
    # What waits at the gateway counts with its output: 100 * (1000 + 200) more.
    seen = observe(ready=1, held=100, held_tokens=100_000, loads=((0.6, 0, 60_000, 40_000),))
    # 220,000 / 0.85 - 80,000 = 178,824: three more.
    assert policy.recommend(seen, policy.initial_state())[0].desired_replicas == 4


def test_wva_tokens_shrinks_by_what_is_spare(observe, profile) -> None:
    policy = WvaTokensPolicy(limits=LIMITS, profiles=(profile(),), behavior=AT_ONCE)
    # 240,000 - 30,000 / 0.7 = 197,143: two of 80,000.
    seen = observe(ready=3, loads=((0.1, 0, 10_000, 0),) * 3)
    assert policy.recommend(seen, policy.initial_state())[0].desired_replicas == 1


def test_wva_tokens_learns_from_saturated_replicas(observe, profile) -> None:
    policy = WvaTokensPolicy(limits=LIMITS, profiles=(profile(),), behavior=AT_ONCE)
    full = observe(ready=1, loads=((0.4, 6, 40_000, 40_000),))
    # Saturated at 40,000: 80,000 / 0.85 - 40,000 = 54,118: two more.
    recommendation, state = policy.recommend(full, policy.initial_state())
    assert recommendation.desired_replicas == 3
    assert state.seen[0].tokens == (40_000,)


def test_wva_queue_model_is_an_m_m_1_k_chain(profile) -> None:
    # One seat, one second each for prefill and the only token: mu = 0.5, K = 11.
    single = profile(alpha_seconds=1.0, maximum_requests=1)
    latency = predict(single, 0.0, 1.0, 0.25)
    assert latency.tpot_seconds == 1.0
    assert latency.ttft_seconds == pytest.approx(3.98927, abs=1e-4)
    rate = highest_rate(single, 0.0, 1.0, 3.98927, 2.0)
    assert rate == pytest.approx(0.25, rel=1e-3)
    assert highest_rate(single, 0.0, 1.0, 10.0, 0.5) == 0.0


def test_wva_queue_model_counts_and_pays_for_switching(observe, variant, profile) -> None:
    policy = WvaQueueingPolicy(
        limits=LIMITS,
        profiles=(profile("gpu"), profile("spot")),
        ttft_seconds=2.0,
        tpot_seconds=0.05,
        behavior=AT_ONCE,
    )
    rate = highest_rate(profile("gpu"), 1000.0, 200.0, 2.0, 0.05)
    # Spot at 9.5 saves 1 and costs a switch of 3.9; what runs stays until spot serves.
    for spot_price, counts in ((4.0, {GPU: 2, SPOT: 2}), (9.5, {GPU: 2, SPOT: 0})):
        seen = observe(
            variant("gpu", ready=2, price=10.0),
            variant("spot", ready=0, price=spot_price),
            rate=1.5 * rate,
        )
        recommendation, _ = policy.recommend(seen, policy.initial_state())
        assert dict(recommendation.replicas) == counts


@pytest.mark.parametrize(
    ("ratios", "step"),
    [
        ((1.2,), 1),
        ((0.2, 1.01), 1),
        ((0.4, 0.4), -1),  # 0.8 on one fewer
        ((0.5, 0.5), 0),  # 1.0 would be told to grow
        ((0.7, 0.2), 0),
        ((0.1,), 0),
    ],
)
def test_dynamo_load_step(profile, ratios, step: int) -> None:
    assert DynamoLoadPolicy(profile=profile()).step(ratios) == step


def test_dynamo_load_does_nothing_while_a_change_is_in_flight(observe, profile) -> None:
    policy = DynamoLoadPolicy(profile=profile(), up_ratio=LATENCY[0], down_ratio=LATENCY[1])
    full = ((0.5, 0, 50_000, 0),)
    two, state = policy.recommend(observe(ready=1, loads=full), policy.initial_state())
    assert two.desired_replicas == 2
    still, _ = policy.recommend(observe(now=5, ready=1, starting=1, loads=full), state)
    assert (still.desired_replicas, still.reason) == (2, "InFlight")


def test_dynamo_forecasts() -> None:
    assert predict_next((), "kalman") == 0.0
    assert predict_next((0, 0, 7), "constant") == 7
    assert predict_next((0, 5, 6), "kalman") == 6  # fewer than five points
    assert predict_next((10,) * 6, "kalman") == pytest.approx(10.0)
    rising = predict_next((10, 20, 30, 40, 50, 60), "kalman")
    assert 55 < rising < 75
    with pytest.raises(ValueError, match="predictor"):
        predict_next((1,), "prophet")


def sla_policy(profile) -> DynamoSlaPolicy:
    # A batch of 40 decodes in 50 ms; 40 / (0.05 + 99 * 0.05) = 8 requests per second.
    return DynamoSlaPolicy(
        profile=profile(request_seconds=0.001, kv_tokens=10_000_000),
        ttft_seconds=2.0,
        tpot_seconds=0.0505,
        predictor="constant",
    )


def test_dynamo_sla_floor_comes_from_the_forecast(observe, profile) -> None:
    policy = sla_policy(profile)
    assert policy.engine_rate(1000.0, 99.0) == pytest.approx(8.0)
    state, counts = policy.initial_state(), []
    for now in (0.0, 90.0, 180.0):
        recommendation, state = policy.recommend(
            observe(now=now, ready=1, rate=20.0, shape=(1000.0, 99.0)), state
        )
        counts.append(recommendation.desired_replicas)
    assert counts == [1, 1, 3]


def worker(running: float, waiting_tokens: float = 0.0) -> ReplicaLoad:
    return ReplicaLoad(
        replica_id=ReplicaId("w"),
        running_requests=running,
        waiting_requests=0.0,
        kv_used_ratio=0.0,
        waiting_tokens=waiting_tokens,
    )


@pytest.mark.parametrize(
    ("running", "step"),
    [
        ((45, 45), 1),  # 55 ms on both
        ((45, 30), 0),  # one keeps its objective
        ((14, 14), -1),  # 38 ms on one fewer, of 40.4
        ((16, 16), 0),  # 42 ms
        ((1,), 0),
    ],
)
def test_dynamo_sla_step(profile, running, step: int) -> None:
    workers = tuple(worker(count) for count in running)
    assert sla_policy(profile).step(workers, 1000.0, 99.0) == step


def test_skyserve_waits_before_it_moves(observe) -> None:
    policy = SkyServePolicy(target_requests_per_second=10.0)
    state, counts = policy.initial_state(), []
    for now in (0, 100, 200, 299, 300):
        recommendation, state = policy.recommend(observe(now=now, rate=25.0), state)
        counts.append(recommendation.desired_replicas)
    assert counts == [1, 1, 1, 1, 3]


def test_skyserve_stands_in_for_spot_that_does_not_serve(observe, variant) -> None:
    policy = SkyServePolicy(target_requests_per_second=10.0, spot_variants=(SPOT,))
    seen = observe(
        variant("gpu", ready=3, price=10.0), variant("spot", ready=1, price=4.0), rate=40.0
    )
    recommendation, _ = policy.recommend(seen, policy.initial_state())
    assert dict(recommendation.replicas) == {GPU: 3, SPOT: 4}
    alone = SkyServePolicy(
        target_requests_per_second=10.0, spot_variants=(SPOT,), dynamic_fallback=False
    )
    recommendation, _ = alone.recommend(seen, alone.initial_state())
    assert dict(recommendation.replicas) == {GPU: 0, SPOT: 4}


@pytest.mark.parametrize(
    ("gpu", "spot", "floor", "counts"),
    [
        # Spot is cheaper and there.
        ({"ready": 0}, {"ready": 4}, 0.0, {GPU: 0, SPOT: 4}),
        # A floor stays on what cannot be taken back.
        ({"ready": 1}, {"ready": 3}, 0.3, {GPU: 2, SPOT: 2}),
        # The market gives no more than one: the rest stands in, and spot is asked again.
        ({"ready": 0}, {"ready": 1, "not_obtained": 3}, 0.0, {GPU: 3, SPOT: 4}),
        # Stand-ins stay while spot starts.
        ({"ready": 3}, {"ready": 1, "starting": 3}, 0.0, {GPU: 3, SPOT: 4}),
        # Spot is on its way and nothing stands in: no more is bought.
        ({"ready": 0}, {"ready": 0, "starting": 4}, 0.0, {GPU: 0, SPOT: 4}),
    ],
)
def test_one_count_is_spread_over_variants(observe, variant, gpu, spot, floor, counts) -> None:
    seen = observe(variant("gpu", price=10.0, **gpu), variant("spot", price=4.0, **spot))
    assert dict(spread(seen, 4, mix="cheapest", floor_ratio=floor)) == counts
    assert dict(spread(seen, 4, mix="first", floor_ratio=floor)) == {GPU: 4, SPOT: 0}


def test_largest_batch_is_the_last_that_fits() -> None:
    assert largest_batch(100, lambda batch: batch <= 37) == 37
    assert largest_batch(100, lambda batch: True) == 100
    assert largest_batch(100, lambda batch: False) == 0
