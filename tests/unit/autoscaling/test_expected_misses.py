"""What a fleet is expected to miss, and which one costs least."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trierarch.autoscaling.expected_misses import (
    MOST_PLANS,
    PRIOR_DEVIATIONS,
    PRIOR_PLANS,
    Deviations,
    ExpectedMisses,
    bearable_replicas,
    best_replicas,
    expect_misses,
    price_of_misses,
)
from trierarch.autoscaling.forecasting import Forecast
from trierarch.autoscaling.miss_curve import FittedCurve, MissCurve, fit_curve, learn_misses

HORIZON = 300.0


def curve() -> FittedCurve:
    """Nothing is missed up to a load of 0.6, everything from 0.8 on."""
    seen = MissCurve()
    for load, misses in ((0.4, 0.0), (0.5, 0.0), (0.6, 20.0), (0.7, 20_000.0), (0.8, 90_000.0)):
        seen = learn_misses(
            seen, now_unix_seconds=0.0, load=load, requests=1e5, misses=misses, late=0.0
        )
    fitted = fit_curve(seen)
    assert fitted is not None
    return fitted


def meeting(*multiples: float) -> Deviations:
    """Return what is believed after each multiple of a plan came often."""
    deviations, now = Deviations(), 0.0
    for _ in range(100):
        for multiple in multiples:
            deviations = deviations.planned(now + HORIZON, 0.5, HORIZON)
            now += HORIZON
            deviations = deviations.met(now, 0.5 * multiple, 1.0)
    return deviations


def test_shares_stay_shares() -> None:
    deviations = meeting(0.7, 1.0, 1.0, 1.4)
    assert math.fsum(found.share for found in deviations.bins) == pytest.approx(1.0)
    indices = [found.index for found in deviations.bins]
    assert indices == sorted(set(indices))
    assert not deviations.pending


def test_a_plan_is_judged_when_its_time_has_come_and_not_before() -> None:
    planned = Deviations().planned(HORIZON, 0.5, HORIZON)
    assert planned.met(HORIZON - 1.0, 0.9, 1.0).bins == PRIOR_DEVIATIONS
    assert planned.met(HORIZON, 0.9, 1.0).bins != PRIOR_DEVIATIONS
    # A time without requests says nothing of what requests meet.
    assert planned.met(HORIZON, 0.9, 0.0).bins == PRIOR_DEVIATIONS


def test_plans_are_kept_ten_times_per_horizon() -> None:
    deviations = Deviations()
    for second in range(0, int(HORIZON), 5):
        deviations = deviations.planned(second + HORIZON, 0.5, HORIZON)
    assert len(deviations.pending) == pytest.approx(10, abs=1)


def surge_share(deviations: Deviations) -> float:
    """Return what is believed of the loads that come doubled, after ten plans met one."""
    now = 1e6
    for _ in range(10):
        deviations = deviations.planned(now + HORIZON, 0.5, HORIZON)
        now += HORIZON
        deviations = deviations.met(now, 1.0, 1.0)
    return sum(found.share for found in deviations.bins if found.index > 5)


def test_a_surge_after_quiet_hours_is_not_expected_again_at_once() -> None:
    quiet = Deviations()
    for step in range(2000):
        quiet = quiet.planned((step + 1) * HORIZON, 0.5, HORIZON)
        quiet = quiet.met((step + 1) * HORIZON, 0.5, 1.0)
    # As often as it came in all that is remembered, and more where little is.
    assert surge_share(quiet) == pytest.approx(10 / (MOST_PLANS + PRIOR_PLANS), rel=0.1)
    assert surge_share(Deviations()) > 5 * surge_share(quiet)


def test_traffic_that_comes_as_planned_is_run_nearer_the_edge() -> None:
    calm, wild = (expect_misses(curve(), meeting(*m)) for m in ((1.0,), (0.5, 1.0, 1.0, 1.6)))
    assert calm.miss_ratio(0.55) < 0.01 < wild.miss_ratio(0.55)
    forecast = Forecast(level=20.0, demand=20.0, horizon_seconds=HORIZON)
    price = price_of_misses(0.0085, 2.0)
    assert best_replicas(calm, forecast, price) < best_replicas(wild, forecast, price)


def test_the_load_at_which_half_is_missed_is_found() -> None:
    expected = expect_misses(curve(), Deviations())
    assert expected.curve.miss_ratio(expected.saturated_load) < 0.5
    assert expected.curve.miss_ratio(1.03 * expected.saturated_load) >= 0.5


@given(low=st.floats(0.01, 2.0), factor=st.floats(1.0, 3.0))
def test_more_load_is_never_expected_to_miss_less(low: float, factor: float) -> None:
    expected = expect_misses(curve(), meeting(0.8, 1.2))
    assert expected.miss_ratio(low) <= expected.miss_ratio(low * factor) + 1e-12
    assert 0.0 <= expected.miss_ratio(low) <= 1.0 + 1e-9


@given(demand=st.floats(0.0, 500.0), cheap=st.floats(0.5, 20.0), factor=st.floats(1.0, 20.0))
def test_dearer_misses_never_ask_for_fewer_replicas(
    demand: float, cheap: float, factor: float
) -> None:
    expected = expect_misses(curve(), meeting(0.8, 1.0, 1.3))
    forecast = Forecast(level=demand, demand=demand, horizon_seconds=HORIZON)
    few = best_replicas(expected, forecast, cheap)
    assert 1 <= few <= best_replicas(expected, forecast, cheap * factor)


def learned(*rows: tuple[float, float]) -> ExpectedMisses:
    """Return what is expected of traffic that comes as planned, after misses at some loads."""
    seen = MissCurve()
    for load, ratio in rows:
        seen = learn_misses(
            seen, now_unix_seconds=0.0, load=load, requests=1e5, misses=1e5 * ratio, late=0.0
        )
    fitted = fit_curve(seen)
    assert fitted is not None
    return expect_misses(fitted, meeting(1.0))


def test_a_load_that_misses_more_than_promised_is_not_planned() -> None:
    steep = learned((0.4, 0.0), (0.5, 0.002), (0.6, 0.02), (0.7, 0.2))
    count = bearable_replicas(steep, 6.0, 10, 0.01)
    assert steep.curve.miss_ratio(6.0 / count) <= 0.01 < steep.curve.miss_ratio(6.0 / (count - 1))


def test_nothing_is_bought_against_misses_that_no_capacity_prevents() -> None:
    # Bursts of a few seconds: a bit more than promised is missed at every load below the knee.
    flat = learned((0.05, 0.0), (0.1, 0.0134), (0.3, 0.0136), (0.5, 0.0137), (0.6, 0.2))
    assert bearable_replicas(flat, 6.0, 15, 0.01) == 15
    # From beyond the knee it is bought back to it, and no further.
    assert 10 < bearable_replicas(flat, 6.0, 10, 0.01) <= 14
