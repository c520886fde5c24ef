"""HPA, its behavior and KEDA, by hand from their formulas."""

from __future__ import annotations

import pytest

from trierarch.autoscaling.policies.hpa import (
    PODS,
    WAITING,
    HpaPolicy,
    replicas_for_average,
    replicas_for_total,
)
from trierarch.autoscaling.policies.hpa_behavior import (
    NO_MEMORY,
    HpaBehavior,
    apply_behavior,
)
from trierarch.autoscaling.policies.keda import KedaPolicy

AT_ONCE = HpaBehavior(down_window_seconds=0.0, up_percent=None, up_replicas=None)


@pytest.mark.parametrize(
    ("total", "reporting", "missing", "unready", "current", "wanted"),
    [
        (50 * 90, 50, 0, 0, 50, 60),  # 90 / 75 = 1.2
        (50 * 80, 50, 0, 0, 50, 50),  # 1.067 is inside the tolerance
        (40 * 90, 40, 0, 10, 50, 50),  # unready count as 0: 0.96 turns the direction
        (40 * 180, 40, 0, 10, 50, 96),  # 7200 / 50 / 75 = 1.92
        (8 * 30, 8, 2, 0, 10, 6),  # missing on target: (240 + 150) / 10 / 75 = 0.52
        (8 * 150, 8, 2, 0, 10, 16),  # missing idle: 1200 / 10 / 75 = 1.6
        (0, 0, 3, 0, 3, 3),  # nobody reports
    ],
)
def test_hpa_pods_metric(
    total: float, reporting: int, missing: int, unready: int, current: int, wanted: int
) -> None:
    assert (
        replicas_for_average(
            total,
            reporting=reporting,
            missing=missing,
            unready=unready,
            target=75.0,
            current=current,
            tolerance=0.1,
        )
        == wanted
    )


@pytest.mark.parametrize(
    ("total", "current", "wanted"),
    [(250, 2, 3), (215, 2, 2), (215, 0, 3), (0, 2, 0), (180, 2, 2), (179, 2, 2), (99, 2, 1)],
)
def test_hpa_average_value(total: float, current: int, wanted: int) -> None:
    assert replicas_for_total(total, target=100.0, current=current, tolerance=0.1) == wanted


def test_hpa_behavior_doubles_or_adds_four_in_a_period() -> None:
    behavior = HpaBehavior()
    ten, state = apply_behavior(behavior, NO_MEMORY, now_seconds=0, current=10, desired=100)
    assert ten == 20
    same, _ = apply_behavior(behavior, state, now_seconds=10, current=20, desired=100)
    assert same == 20
    more, _ = apply_behavior(behavior, state, now_seconds=15, current=20, desired=100)
    assert more == 40
    one, _ = apply_behavior(behavior, NO_MEMORY, now_seconds=0, current=1, desired=100)
    assert one == 5


def test_hpa_behavior_waits_for_the_whole_down_window() -> None:
    state, counts = NO_MEMORY, []
    for now in (0, 150, 299, 301):
        count, state = apply_behavior(HpaBehavior(), state, now_seconds=now, current=10, desired=2)
        counts.append(count)
    assert counts == [10, 10, 10, 2]


def test_hpa_behavior_takes_the_smallest_of_the_up_window() -> None:
    behavior = HpaBehavior(up_window_seconds=60.0)
    _, state = apply_behavior(behavior, NO_MEMORY, now_seconds=0, current=2, desired=2)
    two, state = apply_behavior(behavior, state, now_seconds=30, current=2, desired=5)
    assert two == 2
    five, _ = apply_behavior(behavior, state, now_seconds=61, current=2, desired=6)
    assert five == 5


def test_hpa_behavior_limits_the_way_down() -> None:
    behavior = HpaBehavior(
        down_window_seconds=0.0, down_percent=None, down_replicas=1, down_period_seconds=120.0
    )
    nine, state = apply_behavior(behavior, NO_MEMORY, now_seconds=0, current=10, desired=2)
    assert nine == 9
    still, state = apply_behavior(behavior, state, now_seconds=60, current=9, desired=2)
    assert still == 9
    eight, _ = apply_behavior(behavior, state, now_seconds=121, current=9, desired=2)
    assert eight == 8


def test_hpa_counts_what_waits_and_what_runs(observe) -> None:
    policy = HpaPolicy(target=50.0)
    recommendation, _ = policy.recommend(observe(held=30, running=70), policy.initial_state())
    assert recommendation.desired_replicas == 2


def test_hpa_leaves_flex_out_unless_told(observe) -> None:
    seen = observe(held=30, running=70, held_flex=200)
    for counts_flex, wanted in ((False, 2), (True, 5)):
        policy = HpaPolicy(target=50.0, counts_flex=counts_flex, behavior=AT_ONCE)
        assert policy.recommend(seen, policy.initial_state())[0].desired_replicas in (wanted, 6)


@pytest.mark.parametrize("metrics", ["stale", "missing"])
def test_hpa_holds_without_its_metric(observe, metrics: str) -> None:
    policy = HpaPolicy(target=50.0, behavior=AT_ONCE)
    recommendation, _ = policy.recommend(
        observe(running=1000, ready=3, metrics=metrics), policy.initial_state()
    )
    assert (recommendation.desired_replicas, recommendation.reason) == (3, "MetricsMissing")


def test_hpa_on_waiting_holds_while_none_is_ready(observe) -> None:
    policy = HpaPolicy(target=5.0, metric=WAITING, kind=PODS, behavior=AT_ONCE)
    recommendation, _ = policy.recommend(
        observe(held=100, ready=0, starting=2), policy.initial_state()
    )
    assert recommendation.desired_replicas == 2


def test_hpa_replaces_what_was_lost(observe) -> None:
    policy = HpaPolicy(target=50.0)
    _, state = policy.recommend(observe(running=200, ready=4), policy.initial_state())
    recommendation, _ = policy.recommend(observe(now=15, running=200, ready=2), state)
    assert recommendation.desired_replicas == 4


@pytest.mark.parametrize(
    "fields", [{"target": 0.0}, {"target": 1.0, "metric": "cpu"}, {"target": 1.0, "kind": "sum"}]
)
def test_hpa_refuses_impossible_settings(fields) -> None:
    with pytest.raises(ValueError, match="must be"):
        HpaPolicy(**fields)


def test_keda_scales_by_the_total_over_the_threshold(observe) -> None:
    policy = KedaPolicy(behavior=AT_ONCE)
    recommendation, _ = policy.recommend(observe(held=12), policy.initial_state())
    assert recommendation.desired_replicas == 3


def test_keda_wakes_at_a_poll_and_sleeps_after_the_cooldown(observe) -> None:
    policy = KedaPolicy(minimum_replicas=0, behavior=AT_ONCE)
    state, seen = policy.initial_state(), []
    for now, held, ready in (
        (0, 0, 0),  # polled: nothing
        (15, 7, 0),  # not polled yet
        (30, 7, 0),  # polled: active
        (60, 0, 1),  # inactive; the HPA's count is at least one
        (315, 0, 1),  # 285 s after it was last active
        (330, 0, 1),  # 300 s after it
    ):
        recommendation, state = policy.recommend(observe(now=now, held=held, ready=ready), state)
        seen.append(recommendation.desired_replicas)
    assert seen == [0, 0, 1, 1, 1, 0]


def test_keda_falls_back_after_three_failures(observe) -> None:
    policy = KedaPolicy(fallback_replicas=6)
    state, seen = policy.initial_state(), []
    for now in (0, 30, 60):
        recommendation, state = policy.recommend(
            observe(now=now, ready=2, metrics="missing"), state
        )
        seen.append(recommendation.desired_replicas)
    assert seen == [2, 2, 6]
