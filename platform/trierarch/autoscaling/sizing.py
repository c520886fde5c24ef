"""How many replicas keep the objective at the lowest cost.

The learned curve over the learned deviations from plans says what a number of
replicas is expected to miss (``expected_misses.py``); one price of a miss says how
many are worth having. The price follows what is missed in truth, so the policy
needs no target utilization and finds on each traffic the one it can afford. No
price excuses a load that is known to miss what was promised.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.autoscaling.expected_misses import (
    USUAL_CAUTION,
    ExpectedMisses,
    bearable_replicas,
    best_replicas,
    expect_misses,
    price_of_misses,
)
from trierarch.autoscaling.forecasting import LEVEL_SECONDS, Forecast, forecast, mean_demand
from trierarch.autoscaling.load import Load, fresh_latency, fresh_value, hold_after_seconds
from trierarch.autoscaling.miss_curve import (
    FittedCurve,
    MissCurve,
    fit_curve,
    learn_misses,
)
from trierarch.autoscaling.signals import LatencySummary, Observation, Signal
from trierarch.autoscaling.specification import LatencyObjective, ScalingSpec, ServicePrior
from trierarch.autoscaling.state import ServedSample, SizingState
from trierarch.autoscaling.workload import Workload, saturated_load

BUDGET_SHARE = 0.85
"""Share of the allowed misses that is planned for; the rest is for what nobody foresaw."""

LEAST_CAUTION, MOST_CAUTION = USUAL_CAUTION, 2 * USUAL_CAUTION
CAUTION_SECONDS = 3600.0
"""Time without a miss after which a miss is worth 1/e of what it was. It is never worth less than
usual: what was not missed in quiet hours is what the next surge without precedent takes."""

LEAST_CURABLE_RATIO = 1e-3
"""Where every request is late at every load that was seen none seems curable; the arithmetic still
needs a share to price misses by."""

RELAXED_MISS_RATIO = 0.5
"""Share of the promised misses that a smaller pool may be expected to have after a removal."""

MOST_RUSH_RATIO = 3.0
"""Minutes with more requests than usual count more, up to so much."""

MOST_RESIDENCE_SECONDS = 300.0
PRIOR_HEADROOM_RATIO = 0.95
"""Share of the service model's saturated load at which half of the requests are believed to miss
while little was seen near it."""

PRIOR_SECONDS = 60.0
"""Time's worth of requests in a bin that weighs as much as the service model's own prediction."""

LEAST_EXPECTED_MISSES = 10.0
"""Allowed misses among the requests seen before the curve is trusted."""

GROWTH_RATIO, SHRINK_RATIO, LEAST_GROWTH = 1.6, 0.85, 2
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
        expected: Misses by planned load.
        saturated_load: Load per replica beyond which the service model expects the mean request
            to miss; None without a model.
    """

    replicas: int
    enough: int
    load_limit: float
    allowed_ratio: float
    workload: Workload
    forecast: Forecast
    expected: ExpectedMisses
    saturated_load: float | None = None

    @property
    def curve(self) -> FittedCurve:
        """Misses by the load that comes."""
        return self.expected.curve

    @property
    def greatest_load(self) -> float:
        """Load per replica at which most requests miss: more is not served at all."""
        return self.expected.saturated_load

    def keeps(self, slo: LatencyObjective, replicas: int) -> bool:
        """Tell whether so many replicas keep the objective, as far as any number can."""
        promised = 1.0 - slo.percentile / 100.0
        return self.miss_ratio(replicas) <= promised + self.curve.incurable_ratio

    def leaves_relaxed(self, slo: LatencyObjective, replicas: int) -> bool:
        """Tell whether so many replicas would miss well less than promised.

        What is given back for being just enough is soon asked for again.
        """
        promised = 1.0 - slo.percentile / 100.0
        curable = self.miss_ratio(replicas) - self.curve.incurable_ratio
        return curable <= RELAXED_MISS_RATIO * promised

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
    if observation.ready:
        met = predicted.level / observation.ready
        deviations = state.deviations.met(now, met, _rush(state))
        state = dataclasses.replace(state, deviations=deviations)
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
    allowed = _allowed_ratio(spec.slo, fitted.incurable_ratio)
    expected = expect_misses(fitted, state.deviations)
    enough = best_replicas(expected, predicted, price_of_misses(allowed, state.caution))
    bearable = 1.0 - spec.slo.percentile / 100.0
    enough = bearable_replicas(expected, predicted.demand, enough, bearable)
    limit = predicted.demand / enough
    replicas = _paced(enough, state.served)
    due = now + horizon_seconds
    deviations = state.deviations.planned(due, predicted.demand / replicas, horizon_seconds)
    state = dataclasses.replace(state, deviations=deviations)
    sizing = Sizing(
        replicas=replicas,
        enough=enough,
        load_limit=limit,
        allowed_ratio=allowed,
        workload=workload,
        forecast=predicted,
        expected=expected,
        saturated_load=saturated,
    )
    return sizing, state


def _paced(replicas: int, served: tuple[ServedSample, ...]) -> int:
    """Return the count inside what may change within one cold start.

    A forecast is a guess, and what was guessed wrong costs a cold start to put right: demand that
    lasts is followed in a few of these, and a burst or a lull moves little.
    """
    ready = served[-1].ready
    most = max(ready + LEAST_GROWTH, math.ceil(GROWTH_RATIO * ready))
    fewest = math.ceil(SHRINK_RATIO * max(sample.ready for sample in served) - 1e-9)
    least = min(fewest, max(ready - 1, 1))
    return min(most, max(least, replicas))


def _is_trusted(curve: MissCurve, slo: LatencyObjective) -> bool:
    """Tell whether enough requests have ended for their misses to say anything."""
    return curve.requests * (1.0 - slo.percentile / 100.0) >= LEAST_EXPECTED_MISSES


def _allowed_ratio(slo: LatencyObjective, incurable_ratio: float) -> float:
    """Return the share of curable misses that is planned for."""
    curable_ratio = max(LEAST_CURABLE_RATIO, 1.0 - incurable_ratio)
    return BUDGET_SHARE * (1.0 - slo.percentile / 100.0) * curable_ratio


def _rush(state: SizingState) -> float:
    """Return how much arrives over what usually does."""
    slow, level = state.forecast.slow, state.forecast.samples[-1].demand
    return min(MOST_RUSH_RATIO, level / slow) if slow else 1.0


def _caution(state: SizingState, missed: float, allowed: float, elapsed_seconds: float) -> float:
    """Return the price of a miss after an interval, as a multiple of the usual one.

    It rises with every miss and falls with every request that had none, so that in the long run
    as much is missed as is planned for, however well or badly forecasts and curve are calibrated
    (adaptive conformal inference; Gibbs and Candes, 2021). The price is the same at all times
    that are close: most is missed in surges, where misses are dearest to prevent.
    """
    step = _rush(state) * elapsed_seconds / CAUTION_SECONDS * (missed / allowed - 1.0)
    bottom, top = math.log(LEAST_CAUTION), math.log(MOST_CAUTION)
    return math.exp(min(top, max(bottom, math.log(state.caution) + step)))


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
    elapsed_seconds: float,
) -> SizingState:
    seen = _ended(observation, spec, slo, elapsed_seconds)
    if seen is None:
        return state
    requests, misses, late = seen
    now = observation.now_unix_seconds
    fitted = fit_curve(state.curve)
    incurable = 0.0 if fitted is None else fitted.incurable_ratio
    # Below zero at times: only on average is it known how many no capacity cures.
    curable = misses / requests - incurable
    caution = _caution(state, curable, _allowed_ratio(slo, incurable), elapsed_seconds)
    state = dataclasses.replace(state, caution=caution)
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
        load=mean_demand(state.forecast.samples, since) / mean_ready,
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
