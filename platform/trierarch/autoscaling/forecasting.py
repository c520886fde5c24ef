"""Demand one cold start ahead: an ensemble, weighted by how well each member did there.

What is decided now serves after a cold start, so that is the horizon that counts,
not the control period. Members: persistence, two longer means, a damped trend, and
the profile of the hours of earlier days. Each is judged by its own error at the
horizon. What was forecast for now is remembered, so that the objective can be
learned against what was planned for, forecast errors included.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.autoscaling.regression import Regression

LEVEL_SECONDS = 60.0
"""Demand is told apart to a minute: shorter bursts are a queue's business, not a fleet's."""

STEPS_PER_HORIZON = 10
KEPT_HORIZONS = 3.0
MEMBERS = ("persistence", "recent", "long", "slow", "trend", "hours", "regression")
PRIOR_WEIGHTS = (0.2, 0.3, 0.0, 0.3, 0.2)
"""Of the last minute, of half a horizon, of a minute one horizon ago, of three horizons and of an
hour: the prior of the regression over means."""

SAMPLE_NOISE = 0.05
"""Variance of one error over the usual demand, for the regression's prior; neighbours repeat each
other, so that a sample tells less than it would alone."""

MOST_SURGE_RATIO = 5.0
"""Demand above this multiple of the usual teaches as that much."""

SLOW_SECONDS = 3600.0
"""Time constant of the slowest mean: what bursts come back to."""
TREND_DAMPING = 0.5
LOSS_RATE = 0.03
"""Weight of the newest squared error of a member: about the last thirty."""
MOST_JUDGED = 100
WEIGHT_POWER = 6.0
LOSS_FLOOR = 1e-4
PRIOR_ERROR_SPREAD = 0.13
"""Spread believed at first: the error of persistence at ten minutes on a public day."""
UNTRIED_SPREAD = 1.0
"""Spread believed of a member that needs a day before it can say anything."""
PRIOR_LOSSES = tuple(
    (UNTRIED_SPREAD if member == "hours" else PRIOR_ERROR_SPREAD) ** 2 for member in MEMBERS
)
DAY_SECONDS = 86_400.0
HOUR_BUCKETS = 96
HOURS_RATE = 0.5


_NO_REGRESSION = Regression.prior(PRIOR_WEIGHTS)


@dataclasses.dataclass(frozen=True, slots=True)
class DemandSample:
    """Demand over one interval that ended at a time, in replicas' worth of work."""

    at_unix_seconds: float
    demand: float


@dataclasses.dataclass(frozen=True, slots=True)
class PendingForecast:
    """What each member said, until its time has come."""

    due_unix_seconds: float
    members: tuple[float | None, ...]
    forecast: float
    features: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class ForecastState:
    """Memory of the forecaster.

    Attributes:
        samples: Recent demand, oldest first.
        pending: Forecasts not yet due, oldest first.
        losses: Mean squared error of each member at the horizon, over the scale of demand.
        hours: Mean demand by time of day; empty before it is known, 0 where it is not.
        judged: Forecasts that were compared with what came, up to what a mean needs.
        slow: Mean demand of about an hour.
        began_unix_seconds: When that mean began.
        regression: Over means of several lengths.
    """

    samples: tuple[DemandSample, ...] = ()
    pending: tuple[PendingForecast, ...] = ()
    losses: tuple[float, ...] = PRIOR_LOSSES
    hours: tuple[float, ...] = ()
    judged: int = 0
    slow: float | None = None
    began_unix_seconds: float | None = None
    regression: Regression = _NO_REGRESSION


@dataclasses.dataclass(frozen=True, slots=True)
class Forecast:
    """Demand at the horizon and how far off such forecasts are.

    Attributes:
        level: Demand of the last minute.
        demand: Expected at the horizon.
        horizon_seconds: How far ahead.
    """

    level: float
    demand: float
    horizon_seconds: float


def forecast(
    state: ForecastState, *, now_unix_seconds: float, demand: float, horizon_seconds: float
) -> tuple[Forecast, ForecastState]:
    """Take the newest demand in, judge forecasts that are due, and make the next one.

    Args:
        state: What the last call left.
        now_unix_seconds: When ``demand`` was measured.
        demand: Of the last interval.
        horizon_seconds: From now until capacity asked for now serves.
    """
    now = now_unix_seconds
    kept = KEPT_HORIZONS * max(horizon_seconds, LEVEL_SECONDS)
    recent = [s for s in state.samples if 0 < now - s.at_unix_seconds <= kept]
    samples = (*recent, DemandSample(now, demand))
    level = mean_demand(samples, now - LEVEL_SECONDS)
    began = now if state.began_unix_seconds is None else state.began_unix_seconds
    slow = _slow_mean(state, now, demand)
    state = dataclasses.replace(state, samples=samples, slow=slow, began_unix_seconds=began)
    state = _judge(state, now, level)
    features = _features(state, now, level, horizon_seconds)
    members = _members(state, now, level, horizon_seconds, features)
    expected = _combine(members, state.losses)
    step = horizon_seconds / STEPS_PER_HORIZON
    last_due = state.pending[-1].due_unix_seconds if state.pending else -math.inf
    if now + horizon_seconds - last_due >= step:
        pending = PendingForecast(now + horizon_seconds, members, expected, features)
        state = dataclasses.replace(state, pending=(*state.pending, pending))
    return Forecast(level, expected, horizon_seconds), state


def mean_demand(samples: tuple[DemandSample, ...], since: float, until: float = math.inf) -> float:
    """Return the mean demand after ``since`` and up to ``until``; there must be a sample."""
    values = [s.demand for s in samples if since < s.at_unix_seconds <= until]
    return math.fsum(values) / len(values)


def _slow_mean(state: ForecastState, now: float, demand: float) -> float:
    if state.slow is None or state.began_unix_seconds is None or not state.samples:
        return demand
    elapsed = min(LEVEL_SECONDS, max(0.0, now - state.samples[-1].at_unix_seconds))
    # A young mean is a plain mean.
    rate = elapsed / min(SLOW_SECONDS, now - state.began_unix_seconds + elapsed)
    return state.slow + rate * (demand - state.slow)


def _features(state: ForecastState, now: float, level: float, horizon: float) -> tuple[float, ...]:
    """Return the means that the regression weighs, in the order of ``PRIOR_WEIGHTS``."""
    recent = mean_demand(state.samples, now - max(horizon / 2, LEVEL_SECONDS))
    long = mean_demand(state.samples, now - KEPT_HORIZONS * max(horizon, LEVEL_SECONDS))
    before = [
        s.demand
        for s in state.samples
        if abs(now - horizon - s.at_unix_seconds) <= max(horizon / 4, LEVEL_SECONDS / 2)
    ]
    then = math.fsum(before) / len(before) if before else long
    return level, recent, then, long, long if state.slow is None else state.slow


def _members(
    state: ForecastState, now: float, level: float, horizon: float, features: tuple[float, ...]
) -> tuple[float | None, ...]:
    _, recent, then, long, slow = features
    slope = TREND_DAMPING * (recent - then)
    trend = min(2.0 * recent, max(0.5 * recent, recent + slope))
    by_hours = None
    if state.hours:
        now_usual, there = state.hours[_bucket(now)], state.hours[_bucket(now + horizon)]
        if now_usual > 0 and there > 0:
            by_hours = level * min(3.0, max(1 / 3, there / now_usual))
    regressed = state.regression.predict(features)
    regressed = min(2.0 * max(features), max(0.5 * min(features), regressed))
    return level, recent, long, slow, trend, by_hours, regressed


def _combine(members: tuple[float | None, ...], losses: tuple[float, ...]) -> float:
    weighted = [
        ((loss + LOSS_FLOOR) ** -WEIGHT_POWER, value)
        for value, loss in zip(members, losses, strict=True)
        if value is not None
    ]
    total = math.fsum(weight for weight, _ in weighted)
    return math.fsum(weight * value for weight, value in weighted) / total


def _judge(state: ForecastState, now: float, level: float) -> ForecastState:
    """Compare what is due with what has come."""
    due = [p for p in state.pending if p.due_unix_seconds <= now]
    losses, regression = list(state.losses), state.regression
    judged = state.judged
    for earlier in due:
        # The first ones count fully: the prior says nothing of which member is best.
        judged = min(judged + 1, MOST_JUDGED)
        rate = max(LOSS_RATE, 1.0 / (judged + 1.0))
        for index, value in enumerate(earlier.members):
            if value is not None:
                miss = (level - value) / _scale(state, earlier.forecast)
                losses[index] += rate * (miss * miss - losses[index])
        if state.slow and earlier.features:
            scaled = [feature / state.slow for feature in earlier.features]
            value = min(MOST_SURGE_RATIO, level / state.slow)
            regression = regression.learn(scaled, value, SAMPLE_NOISE * STEPS_PER_HORIZON)
    return dataclasses.replace(
        state,
        pending=tuple(p for p in state.pending if p.due_unix_seconds > now),
        losses=tuple(losses),
        hours=_learn_hours(state.hours, now, level),
        judged=judged,
        regression=regression,
    )


def _scale(state: ForecastState, expected: float) -> float:
    return max(expected, state.slow or 0.0, 1e-9)


def _bucket(at: float) -> int:
    return int((at % DAY_SECONDS) / DAY_SECONDS * HOUR_BUCKETS) % HOUR_BUCKETS


def _learn_hours(hours: tuple[float, ...], now: float, level: float) -> tuple[float, ...]:
    """Return the profile after the newest level; a bucket of an earlier day fades fast."""
    profile = list(hours) or [0.0] * HOUR_BUCKETS
    place = _bucket(now)
    old = profile[place]
    # About one bucket's worth of decisions makes a new day's value count for half.
    profile[place] = level if old <= 0 else old + 0.02 * HOURS_RATE * (level - old)
    return tuple(profile)
