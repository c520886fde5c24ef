"""Forecasts of demand that people can continue by hand."""

from __future__ import annotations

import random

import pytest

from trierarch.autoscaling.forecasting import MEMBERS, Forecast, ForecastState, forecast

STEP = 15.0
HORIZON = 300.0


def feed(values: list[float], state: ForecastState | None = None) -> tuple[Forecast, ForecastState]:
    state = state or ForecastState()
    for number, value in enumerate(values):
        found, state = forecast(
            state, now_unix_seconds=number * STEP, demand=value, horizon_seconds=HORIZON
        )
    return found, state


def test_steady_demand_is_expected_to_stay() -> None:
    found, state = feed([4.0] * 100)
    assert (found.level, found.demand) == (pytest.approx(4.0), pytest.approx(4.0))
    assert max(state.losses[:5]) < 0.01


def test_a_step_is_followed_and_a_burst_is_not_taken_for_one() -> None:
    after_step, _ = feed([2.0] * 100 + [6.0] * 60)
    assert after_step.demand == pytest.approx(6.0, rel=0.1)
    noise = random.Random(7)  # noqa: S311 - a reproducible series, not a secret
    bursts = [noise.choice((0.5, 0.5, 0.5, 8.0)) for _ in range(400)]
    after_bursts, state = feed(bursts)
    mean = sum(bursts) / len(bursts)
    assert after_bursts.demand == pytest.approx(mean, rel=0.5)
    losses = dict(zip(MEMBERS, state.losses, strict=True))
    assert losses["slow"] < losses["persistence"]


def test_a_ramp_makes_the_trend_the_best_member() -> None:
    found, state = feed([2.0 + 0.02 * n for n in range(300)])
    losses = dict(zip(MEMBERS, state.losses, strict=True))
    assert losses["trend"] < losses["persistence"] < losses["slow"]
    assert found.demand > found.level


def test_demand_that_returns_to_its_mean_is_expected_to() -> None:
    noise = random.Random(3)  # noqa: S311 - a reproducible series, not a secret
    values, off = [], 0.0
    for _ in range(3_000):
        off = 0.95 * off + noise.gauss(0.0, 0.3)
        values.append(max(0.1, 4.0 + off))
    found, state = feed([*values, *[8.0] * 4])
    losses = dict(zip(MEMBERS, state.losses, strict=True))
    assert losses["regression"] < losses["persistence"]
    assert found.level > 6.0
    assert found.demand < found.level - 1.0


def test_a_profile_of_the_day_that_nobody_has_seen_yet_weighs_nothing() -> None:
    _, state = feed([2.0] * 3)
    losses = dict(zip(MEMBERS, state.losses, strict=True))
    assert losses["hours"] > 10 * losses["persistence"]


def test_the_state_stays_small() -> None:
    _, state = feed([3.0] * 2_000)
    assert len(state.samples) <= 3 * HORIZON / STEP + 1
    assert len(state.pending) <= 12


def test_nothing_is_expected_of_nothing() -> None:
    found, _ = feed([0.0] * 50)
    assert (found.level, found.demand) == (0.0, 0.0)
