"""Knative, Ray Serve, AIBrix and the ratio law of llm-d, by hand from their formulas."""

from __future__ import annotations

import pytest

from trierarch.autoscaling.policies.aibrix_apa import AibrixApaPolicy
from trierarch.autoscaling.policies.aibrix_kpa import AibrixKpaPolicy
from trierarch.autoscaling.policies.knative import KnativePolicy
from trierarch.autoscaling.policies.llm_d_slo import LlmDSloPolicy
from trierarch.autoscaling.policies.ray_serve import RayServePolicy
from trierarch.autoscaling.policies.series import (
    Sample,
    extend,
    mean,
    since,
    time_weighted_mean,
)

KNATIVE, RAY = KnativePolicy(), RayServePolicy()


def run(policy, *observations):
    """Return the counts of a sequence of observations."""
    state, counts = policy.initial_state(), []
    for observation in observations:
        recommendation, state = policy.recommend(observation, state)
        counts.append(recommendation.desired_replicas)
    return counts


def test_windows_forget_and_take_no_reading_twice() -> None:
    series = extend((Sample(0, 1.0), Sample(5, 2.0)), Sample(10, 3.0), keep_seconds=5.0)
    assert series == (Sample(5, 2.0), Sample(10, 3.0))
    assert extend(series, Sample(10, 9.0), keep_seconds=5.0) == series
    assert since(series, 5.0, 10.0) == (Sample(10, 3.0),)
    assert mean(series) == 2.5


def test_a_step_function_is_weighted_by_time() -> None:
    # 2 holds for 10 s and 8 for 20 s; the last value has not held yet.
    series = (Sample(0, 2.0), Sample(10, 8.0), Sample(30, 100.0))
    assert time_weighted_mean(series, 30.0) == pytest.approx(6.0)
    assert time_weighted_mean(series, 20.0) == pytest.approx(8.0)
    assert time_weighted_mean(series[:1], 30.0) == 2.0
    with pytest.raises(ValueError, match="no mean"):
        time_weighted_mean((), 30.0)


def test_knative_stable(observe) -> None:
    assert run(KNATIVE, observe(running=140, ready=2)) == [2]


def test_knative_panics_and_does_not_go_down_until_it_is_over(observe) -> None:
    counts = run(
        KNATIVE,
        observe(now=0, running=210, ready=1),  # ceil(210 / 70) / 1 >= 2
        observe(now=10, running=0, ready=3),
        observe(now=60, running=0, ready=3),
        observe(now=75, running=0, ready=3),  # over; at least half of the ready ones stay
    )
    assert counts == [3, 3, 3, 1]


def test_knative_keeps_the_largest_of_its_down_delay(observe) -> None:
    policy = KnativePolicy(down_delay_seconds=100.0)
    counts = run(
        policy,
        observe(now=0, running=140, ready=1),
        observe(now=70, running=0, ready=2),
        observe(now=140, running=0, ready=2),
    )
    assert counts == [2, 2, 1]


@pytest.mark.parametrize("metrics", ["stale", "missing"])
def test_knative_holds_without_data(observe, metrics: str) -> None:
    assert run(KNATIVE, observe(running=900, ready=4, metrics=metrics)) == [4]


@pytest.mark.parametrize(
    ("total", "current", "up", "down", "wanted"),
    [
        (10, 2, 1.0, 1.0, 5),  # 10 / 2
        (10, 2, 0.5, 1.0, 4),  # ceil(2 + 0.5 * 3)
        (6, 4, 1.0, 0.5, 3),  # ceil(4 - 0.5) would stay: one fewer
        (1, 0, 1.0, 1.0, 1),
        (9, 0, 1.0, 1.0, 5),
        (0, 0, 1.0, 1.0, 0),
    ],
)
def test_ray_serve_count(total: float, current: int, up: float, down: float, wanted: int) -> None:
    policy = RayServePolicy(upscaling_factor=up, downscaling_factor=down)
    assert policy.wanted(total, current) == wanted


def test_ray_serve_acts_when_a_wish_has_lasted(observe) -> None:
    steady = [observe(now=now, running=10, ready=2) for now in (0, 10, 20, 30)]
    assert run(RAY, *steady) == [2, 2, 2, 5]


def test_ray_serve_starts_its_timer_again_when_the_wish_ends(observe) -> None:
    policy = RayServePolicy(look_back_seconds=1.0)
    counts = run(
        policy,
        *(
            observe(now=now, running=running, ready=2)
            for now, running in ((0, 10), (10, 10), (20, 4), (30, 4), (40, 10), (60, 10))
        ),
    )
    assert counts == [2] * 6


def test_ray_serve_lets_the_last_replica_go_on_its_own(observe) -> None:
    policy = RayServePolicy(minimum_replicas=0, downscale_delay_seconds=20.0)
    counts = run(policy, *(observe(now=now, ready=3) for now in (0, 10, 20, 30, 40, 50)))
    assert counts == [3, 3, 1, 1, 1, 0]


def test_ray_serve_wakes_at_once(observe) -> None:
    policy = RayServePolicy(minimum_replicas=0)
    assert run(policy, observe(held=3, ready=0)) == [2]


APA = AibrixApaPolicy(target=10.0)
KPA = AibrixKpaPolicy(target=10.0)
KPA_AS_CODED = AibrixKpaPolicy(target=10.0, as_coded=True)


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [(12, 6), (50, 10), (10.5, 5), (9.5, 5), (2, 2), (8, 4)],
)
def test_aibrix_apa_count_of_five(usage: float, wanted: int) -> None:
    assert APA.wanted(usage, 5) == wanted


def test_aibrix_kpa_as_documented_and_as_coded() -> None:
    assert KPA.wanted(12.0, 5) == 6  # ceil(5 * 12 / 10)
    assert KPA_AS_CODED.wanted(12.0, 5) == 2  # ceil(12 / 10): the number of replicas is left out
    assert KPA_AS_CODED.wanted(10.5, 5) == 5
    assert KPA.wanted(90.0, 5) == 10
    assert KPA.wanted(0.0, 1) == 0
    assert (KPA.is_panic(10.0, 21.0), KPA.is_panic(10.0, 20.0)) == (True, False)
    assert (KPA.is_panic(0.0, 0.0), KPA_AS_CODED.is_panic(0.0, 0.0)) == (False, True)


def test_aibrix_kpa_as_coded_answers_more_load_with_fewer(observe) -> None:
    def settled(policy: AibrixKpaPolicy, running: float) -> int:
        return run(policy, *(observe(now=now, running=running, ready=8) for now in (0, 400)))[-1]

    # 85 on 8 replicas is 10.6 each, inside the tolerance of a target of 10; 89 is 11.1 each, of
    # which the code makes ceil(1.11) replicas, halving at most at each of the two readings.
    assert (settled(KPA_AS_CODED, 85), settled(KPA_AS_CODED, 89)) == (8, 2)
    # As documented it multiplies by the count it has set: ceil(8 * 1.11), then ceil(9 * 1.11).
    assert (settled(KPA, 85), settled(KPA, 89)) == (8, 11)


def test_aibrix_cooldown_as_documented_and_as_coded(observe) -> None:
    seen = [
        observe(now=now, running=running, ready=4)
        for now, running in ((0, 40), (200, 20), (400, 40), (600, 40), (800, 32))
    ]
    # Alone in the observe window, the readings ask for 4, 2, 4, 4 and 4 * 0.8 = 4.
    assert run(APA, *seen)[1] == 4
    as_coded = AibrixApaPolicy(target=10.0, as_coded=True)
    assert run(as_coded, *seen)[1] == 2


def test_aibrix_kpa_remembers_a_panic_only_as_documented(observe) -> None:
    calm = [observe(now=now, running=20, ready=2) for now in range(0, 170, 10)]
    burst = [observe(now=now, running=400, ready=2) for now in (170, 180, 190)]
    after = [observe(now=now, running=0, ready=2) for now in (370, 510, 700)]
    documented = run(KPA, *calm, *burst, *after)
    assert documented[len(calm) - 1] == 2
    # At 170 s the short mean is 250 / 6, the long one 370 / 18: more than twice.
    # The panic lasts until 180 s after its last sign, the cooldown 300 s more.
    assert documented[len(calm) :] == [4, 8, 16, 16, 16, 8]
    as_coded = run(AibrixKpaPolicy(target=2.0, as_coded=True), *calm, *burst, *after[1:])
    assert as_coded[-3] > as_coded[-2] > as_coded[-1]


@pytest.mark.parametrize("policy", [APA, KPA], ids=["apa", "kpa"])
def test_aibrix_holds_without_metric_or_replica(observe, policy) -> None:
    assert run(policy, observe(running=900, ready=3, metrics="stale")) == [3]
    assert run(policy, observe(held=900, ready=0, starting=2)) == [2]


LLM_D = LlmDSloPolicy(ttft_seconds=2.0, tpot_seconds=0.05)


@pytest.mark.parametrize(
    ("ratio", "current", "ready", "wanted"),
    [
        (1.1, 4, 4, 8),  # 4 + ceil(4 * (2 - 1))
        (1.1, 4, 2, 4),  # credit of one half
        (0.6, 8, 4, 5),  # the growth rule asks for fewer: 8 + ceil(8 * (0.3 / 0.55 - 1))
        (0.5, 8, 8, 8),
        (0.2, 8, 8, 4),  # 8 - floor(8 / 2)
        (0.2, 8, 4, 4),  # no credit on the way down
        (0.0, 8, 8, 0),
    ],
)
def test_llm_d_count(ratio: float, current: int, ready: int, wanted: int) -> None:
    assert LLM_D.wanted(ratio, current, ready) == wanted


def test_llm_d_takes_the_worse_latency_and_waits_for_its_window(observe) -> None:
    seen = [observe(now=now, ttft=0.2, tpot=0.055, ready=4) for now in (0, 15, 30, 45)]
    # The ratio is 1.1 throughout; the count found at first is forgotten after 30 s.
    assert run(LLM_D, *seen) == [4, 4, 8, 8]


def test_llm_d_reads_missing_metrics_as_idle_unless_told(observe) -> None:
    lost = [observe(now=now, metrics="missing", ready=3) for now in (0, 100, 200, 300, 400)]
    assert run(LLM_D, *lost) == [3, 3, 2, 2, 1]
    careful = LlmDSloPolicy(ttft_seconds=2.0, tpot_seconds=0.05, missing_is_idle=False)
    assert run(careful, *lost) == [3] * 5


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (KnativePolicy, {"target": 0.0}),
        (RayServePolicy, {"target_ongoing_requests": 0.0}),
        (AibrixApaPolicy, {"target": 1.0, "up_rate": 1.0}),
        (LlmDSloPolicy, {"ttft_seconds": 1.0, "tpot_seconds": 1.0, "down_ratio": 0.6}),
        (KnativePolicy, {"mix": "dearest"}),
        (KnativePolicy, {"minimum_replicas": 2, "maximum_replicas": 1}),
    ],
)
def test_impossible_settings_are_refused(make, fields) -> None:
    with pytest.raises(ValueError, match="must"):
        make(**fields)
