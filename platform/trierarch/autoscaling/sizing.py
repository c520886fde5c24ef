"""How many replicas keep the objective at the lowest cost: learned misses against forecasts.

One number steers it: the highest load per replica at which the learned share of
misses stays inside what the objective still allows. The load is what was planned
for, the forecast of one cold start ago over the replicas that then served, so what
forecasts are off by is part of what is learned. What it allows follows from an error
budget: a day in which less was missed than promised may miss more now, and the other
way round. So the policy needs no target utilization, and finds on each traffic the
one it can afford.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.autoscaling.forecasting import LEVEL_SECONDS, Forecast, forecast
from trierarch.autoscaling.load import Load, fresh_latency, fresh_value, hold_after_seconds
from trierarch.autoscaling.miss_curve import (
    STEEPNESS,
    FittedCurve,
    MissCurve,
    fit_curve,
    learn_misses,
)
from trierarch.autoscaling.signals import LatencySummary, Observation, Signal
from trierarch.autoscaling.specification import LatencyObjective, ScalingSpec, ServicePrior
from trierarch.autoscaling.state import ErrorBudget, ServedSample, SizingState
from trierarch.autoscaling.workload import Workload, saturated_load

BUDGET_SHARE = 0.75
"""Share of the allowed misses that is planned for; the rest is for what nobody foresaw."""

BUDGET_HALF_LIFE_SECONDS = 86_400.0
"""The objective is kept over about a day."""

BUDGET_START_SECONDS = 1200.0
"""Time's worth of requests on budget that a new budget begins with: no verdict on a few."""

BUDGET_POWER = 2
TIGHTEST_RATIO, LOOSEST_RATIO = 0.4, 1.6
"""How far the allowed share may be pulled by what was missed before."""

SATURATED_MISS_RATIO = 0.5
SATURATION_STEP = 1.05
BISECTIONS = 16
DEARER_MISSES = (1.0, 1.5, 2.0, 3.0, 4.0)
LEAST_CURABLE_RATIO = 1e-3
"""Where every request is late at every load that was seen none seems curable; the arithmetic still
needs a share to price misses by."""

GRID_STEP = 0.03
GRID_MARGIN_STEPS = 12
ROUNDING_DOWN_RATIO = 0.3
"""A fraction of a replica that is not bought: it costs more than the misses it prevents."""

MOST_RESIDENCE_SECONDS = 300.0
PRIOR_HEADROOM_RATIO = 0.8
"""Share of the saturated load that is believed to be usable while forecasts are not yet known to
be better: demand grew by a quarter within a cold start in one of two public hours."""

PRIOR_SECONDS = 60.0
"""Time's worth of requests in a bin that weighs as much as the service model's own prediction."""

LEAST_EXPECTED_MISSES = 10.0
"""Allowed misses among the requests seen before the curve is trusted."""

GROWTH_RATIO, SHRINK_RATIO = 1.6, 0.85
"""Of the ready replicas, per cold start. A queue asks for more on its own."""

WARM_UP_SECONDS = 240.0
"""Until then the requests that have ended are the short ones, and their lengths no measure."""

FRESH_SECONDS = 60.0
"""A replica this new has empty batches and caches: what is seen then is not learned."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sizing:
    """What the learned model asks for.

    Attributes:
        replicas: Needed when what is asked for now serves.
        enough: The same without what may change within one cold start.
        load_limit: Highest load per replica.
        allowed_ratio: Share of curable misses that is planned for.
        workload: What arrives now.
        forecast: What is expected.
        curve: Fitted.
        saturated_load: Load per replica beyond which the service model expects the mean request
            to miss; None without a model.
    """

    replicas: int
    enough: int
    load_limit: float
    allowed_ratio: float
    workload: Workload
    forecast: Forecast
    curve: FittedCurve
    saturated_load: float | None = None

    @property
    def greatest_load(self) -> float:
        """Load per replica at which most requests miss: more is not served at all."""
        low = high = self.load_limit
        while self.curve.miss_ratio(high) < SATURATED_MISS_RATIO:
            low, high = high, high * SATURATION_STEP
        return low

    def keeps(self, slo: LatencyObjective, replicas: int) -> bool:
        """Tell whether so many replicas keep the objective, as far as any number can."""
        promised = 1.0 - slo.percentile / 100.0
        return self.miss_ratio(replicas) <= promised + self.curve.incurable_ratio

    def miss_ratio(self, replicas: float) -> float:
        """Return the expected share of misses on so many replicas, incurable ones included."""
        if replicas <= 0:
            return 1.0
        demand = max(self.forecast.level, self.forecast.demand)
        cured = self.curve.miss_ratio(demand / replicas)
        return min(1.0, self.curve.incurable_ratio + cured)


def size_fleet(
    observation: Observation,
    spec: ScalingSpec,
    load: Load,
    workload: Workload,
    state: SizingState,
    *,
    last_decision_unix_seconds: float | None,
    horizon_seconds: float,
    service: ServicePrior | None,
) -> tuple[Sizing | None, SizingState]:
    """Learn from the last interval and return what the objective needs; None if not yet known.

    Args:
        observation: Signals.
        spec: With an objective; without one there is nothing to size for.
        load: The same signals, read.
        workload: What arrives.
        state: What the last call left.
        last_decision_unix_seconds: Begin of the interval; None at the first.
        horizon_seconds: From now until capacity asked for now serves.
        service: How fast a replica of the reference variant is believed to be; None if unknown.
    """
    now = observation.now_unix_seconds
    if state.began_unix_seconds is None and workload.requests_per_second > 0:
        state = dataclasses.replace(state, began_unix_seconds=now)
    if state.began_unix_seconds is None or now - state.began_unix_seconds < WARM_UP_SECONDS:
        return None, state
    predicted, forecast_state = forecast(
        state.forecast,
        now_unix_seconds=now,
        demand=workload.demand,
        horizon_seconds=horizon_seconds,
    )
    state = dataclasses.replace(
        state, forecast=forecast_state, served=_extend_served(state, observation)
    )
    if state.served[-1].ready > state.served[0].ready or (
        len(state.served) > 1 and state.served[-1].ready > state.served[-2].ready
    ):
        state = dataclasses.replace(state, added_unix_seconds=now)
    if last_decision_unix_seconds is not None and spec.slo is not None:
        state = _learn(
            observation,
            spec,
            spec.slo,
            workload,
            state,
            predicted.planned,
            now - last_decision_unix_seconds,
        )
    if spec.slo is None or not _is_trusted(state.curve, spec.slo):
        return None, state
    saturated = saturated_load(spec, workload, service)
    fitted = fit_curve(
        state.curve,
        saturated_load=None if saturated is None else PRIOR_HEADROOM_RATIO * saturated,
        prior_requests=PRIOR_SECONDS * workload.requests_per_second,
    )
    if fitted is None:
        return None, state
    allowed = _allowed_ratio(spec.slo, fitted, state.budget, workload)
    limit = best_load(
        fitted, allowed, max(predicted.demand, predicted.planned) / max(1, observation.ready)
    )
    enough = _replicas(predicted.demand, limit)
    sizing = Sizing(
        replicas=_paced(enough, state.served),
        enough=enough,
        load_limit=limit,
        allowed_ratio=allowed,
        workload=workload,
        forecast=predicted,
        curve=fitted,
        saturated_load=saturated,
    )
    return sizing, state


def _paced(replicas: int, served: tuple[ServedSample, ...]) -> int:
    """Return the count inside what may change within one cold start.

    A forecast is a guess, and what was guessed wrong costs a cold start to put right: demand that
    lasts is followed in a few of these, and a burst or a lull moves little.
    """
    ready = served[-1].ready
    most = max(ready + 1, math.ceil(GROWTH_RATIO * ready))
    fewest = math.ceil(SHRINK_RATIO * max(sample.ready for sample in served) - 1e-9)
    least = min(fewest, max(ready - 1, 1))
    return min(most, max(least, replicas))


def _is_trusted(curve: MissCurve, slo: LatencyObjective) -> bool:
    """Tell whether enough requests have ended for their misses to say anything."""
    return curve.requests * (1.0 - slo.percentile / 100.0) >= LEAST_EXPECTED_MISSES


def _replicas(demand: float, load_limit: float) -> int:
    return max(1, math.ceil(min(demand / load_limit, 1e6) - ROUNDING_DOWN_RATIO))


def best_load(curve: FittedCurve, allowed_ratio: float, present_load: float) -> float:
    """Return the load per replica at which capacity and misses together cost least.

    Capacity per request falls with 1 / load. A miss is priced so that misses end at
    ``allowed_ratio`` where they grow as steeply as at saturation, and dearer, up to a limit,
    where that is not enough: misses that more capacity hardly changes buy none.
    """
    low = curve.log_loads[0] - GRID_MARGIN_STEPS * GRID_STEP
    count = 2 * GRID_MARGIN_STEPS + round((curve.log_loads[-1] - curve.log_loads[0]) / GRID_STEP)
    loads = [math.exp(low + GRID_STEP * place) for place in range(count + 1)]
    misses = [curve.miss_ratio(load) for load in loads]
    capacity = [max(present_load, loads[0]) / load for load in loads]
    best = 0
    for dearer in DEARER_MISSES:
        price = dearer / (STEEPNESS * allowed_ratio)
        costs = [need + price * miss for need, miss in zip(capacity, misses, strict=True)]
        best = costs.index(min(costs))
        if misses[best] <= allowed_ratio:
            break
    return loads[best]


def _allowed_ratio(
    slo: LatencyObjective, fitted: FittedCurve, budget: ErrorBudget, workload: Workload
) -> float:
    """Return the share of curable misses that the rest of the budget allows."""
    curable_ratio = max(LEAST_CURABLE_RATIO, 1.0 - fitted.incurable_ratio)
    promised = BUDGET_SHARE * (1.0 - slo.percentile / 100.0) * curable_ratio
    start = BUDGET_START_SECONDS * workload.requests_per_second + 1.0
    burned = (budget.misses + promised * start) / (promised * (budget.requests + start))
    return promised * min(LOOSEST_RATIO, max(TIGHTEST_RATIO, 1.0 / burned**BUDGET_POWER))


def _extend_served(state: SizingState, observation: Observation) -> tuple[ServedSample, ...]:
    now = observation.now_unix_seconds
    kept = [s for s in state.served if 0 < now - s.at_unix_seconds <= MOST_RESIDENCE_SECONDS]
    return (*kept, ServedSample(now, observation.ready))


def _learn(
    observation: Observation,
    spec: ScalingSpec,
    slo: LatencyObjective,
    workload: Workload,
    state: SizingState,
    planned: float,
    elapsed_seconds: float,
) -> SizingState:
    seen = _ended(observation, spec, slo, elapsed_seconds)
    if seen is None:
        return state
    requests, misses, late = seen
    now = observation.now_unix_seconds
    fitted = fit_curve(state.curve)
    incurable = 0.0 if fitted is None else fitted.incurable_ratio
    keep = 0.5 ** (elapsed_seconds / BUDGET_HALF_LIFE_SECONDS)
    budget = ErrorBudget(
        keep * state.budget.requests + requests,
        max(0.0, keep * state.budget.misses + misses - incurable * requests),
    )
    state = dataclasses.replace(state, budget=budget)
    added = state.added_unix_seconds
    if observation.ready == 0 or (added is not None and now - added < FRESH_SECONDS):
        return state
    since = now - _residence_seconds(observation, spec, workload)
    ready = [s.ready for s in state.served if s.at_unix_seconds > since]
    mean_ready = math.fsum(ready) / len(ready)
    if mean_ready <= 0:
        return state
    curve = learn_misses(
        state.curve,
        now_unix_seconds=now,
        load=planned / mean_ready,
        requests=requests,
        misses=misses,
        late=late,
    )
    return dataclasses.replace(state, curve=curve)


def _residence_seconds(observation: Observation, spec: ScalingSpec, workload: Workload) -> float:
    """Return how long the requests that ended lately had been there."""
    summary = fresh_latency(
        observation.gateway.tpot,
        now_unix_seconds=observation.now_unix_seconds,
        hold_after=hold_after_seconds(spec),
    )
    if summary is None:
        return LEVEL_SECONDS
    stay = summary.mean_seconds * workload.output_tokens
    return min(MOST_RESIDENCE_SECONDS, max(LEVEL_SECONDS, stay))


def _ended(
    observation: Observation, spec: ScalingSpec, slo: LatencyObjective, elapsed_seconds: float
) -> tuple[float, float, float] | None:
    """Return interactive requests of the interval that ended, missed and were late."""
    gateway, now = observation.gateway, observation.now_unix_seconds
    hold_after = hold_after_seconds(spec)

    def value(signal: Signal) -> float | None:
        return fresh_value(signal, now_unix_seconds=now, hold_after=hold_after)

    per_second = value(gateway.interactive_completed_per_second)
    if per_second is None:
        per_second = value(gateway.completed_per_second)
    if not per_second or elapsed_seconds <= 0:
        return None
    requests = per_second * elapsed_seconds
    met, in_time = value(gateway.slo_met_ratio), value(gateway.ttft_met_ratio)
    late = None if in_time is None else 1.0 - in_time
    missed = None if met is None else 1.0 - met
    if late is None:
        ttft = fresh_latency(gateway.ttft, now_unix_seconds=now, hold_after=hold_after)
        late = share_above(ttft, slo.ttft_seconds)
    if missed is None:
        tpot = fresh_latency(gateway.tpot, now_unix_seconds=now, hold_after=hold_after)
        slow = share_above(tpot, slo.tpot_seconds)
        if slow is None or late is None:
            return None
        missed = 1.0 - (1.0 - late) * (1.0 - slow)
    return requests, requests * missed, requests * (late or 0.0)


def share_above(summary: LatencySummary | None, limit_seconds: float | None) -> float | None:
    """Return the share of requests above a limit, between the known quantiles by interpolation."""
    if limit_seconds is None:
        return 0.0
    if summary is None:
        return None
    below, at_seconds = 0.0, 0.0
    for ratio, seconds in summary.quantiles:
        if seconds > limit_seconds:
            share = (limit_seconds - at_seconds) / (seconds - at_seconds)
            return 1.0 - (below + share * (ratio - below))
        below, at_seconds = ratio, seconds
    # Above the highest quantile nothing is known but that it is met.
    return (1.0 - below) / 2.0 if at_seconds > 0.9 * limit_seconds else 0.0
