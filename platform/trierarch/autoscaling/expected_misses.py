"""What a number of replicas is expected to miss: the learned curve over the loads that come.

Misses have two causes that are learned apart, because they change apart: how many
requests miss at a load (the service's doing, steep and lasting), and how the load
that comes differs from the one that was planned (the traffic's, the forecast's and
the cold starts' doing, and changing with the hours). A fleet that met a surge badly
is therefore not run at a low load for the rest of the day.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.autoscaling.forecasting import STEPS_PER_HORIZON, Forecast
from trierarch.autoscaling.miss_curve import STEEPNESS, FittedCurve

SATURATED_MISS_RATIO = 0.5
LEAST_LOAD_SHARE, MOST_LOAD_SHARE = 0.3, 1.3
"""Of the load at which half of the requests miss: where the best load is looked for."""

CANDIDATE_STEP = 1.03
"""Fleets that differ by less are not told apart."""

SEARCH_LOG_WIDTH = 0.015
SEARCH_MARGIN = 2.0
"""How closely, and how far beyond the loads that were seen, it is looked for, as logarithms."""

ERROR_LOG_WIDTH = 0.06
"""Deviations are told apart to 6 %."""

MOST_LOG_ERROR = 1.5
"""A load 4.5 times too high or too low counts as that."""

PRIOR_PLANS, MOST_PLANS = 150.0, 1200.0
"""Plans that the prior weighs as much as, and how many met ones count; ten come in a cold start.
With a shorter memory a surge that comes once in hours was expected every few minutes for the hour
after it."""

PRIOR_LOG_ERRORS = ((-0.18, 0.1), (-0.12, 0.2), (0.0, 0.4), (0.12, 0.2), (0.18, 0.1))
"""Logarithms of deviations and their shares, before any is known."""

USUAL_CAUTION = 1.5
"""Multiple of the price of a miss to begin with: curves are flatter than where they saturate. The
least at which fleets that gateways help in a surge keep the objective while they learn."""

LEAST_ERROR_SHARE = 1e-4

MOST_REPLICAS = 1_000_000
"""No need is larger; a rate of nearly nothing would ask for more than a number can hold."""

MOST_RISK, STEEP_POWER = 4.0, 4.0
"""Multiple of the promised misses that no average excuses, and how steeply one replica more must
prevent them to be worth it."""

CURE_STEP_RATIO = 0.1
"""So many more replicas must prevent at least as large a share of the misses, or none are bought
against a load that misses more than promised."""


@dataclasses.dataclass(frozen=True, slots=True)
class DeviationBin:
    """How many requests met about one multiple of the load that was planned.

    Attributes:
        index: Logarithm of the multiple over ``ERROR_LOG_WIDTH``, rounded.
        share: Of all requests, late ones weighing more; the shares add up to 1.
    """

    index: int
    share: float


PRIOR_DEVIATIONS = tuple(
    DeviationBin(round(log / ERROR_LOG_WIDTH), share) for log, share in PRIOR_LOG_ERRORS
)


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedLoad:
    """The load per replica that a decision planned for the time when it takes effect."""

    due_unix_seconds: float
    load: float


@dataclasses.dataclass(frozen=True, slots=True)
class Deviations:
    """Loads that came over loads that were planned.

    Attributes:
        bins: By rising multiple.
        pending: Plans whose time has not come, oldest first.
        met_plans: Plans in the bins beside the prior, each as often as a usual number of requests
            met it; no more than count.
    """

    bins: tuple[DeviationBin, ...] = PRIOR_DEVIATIONS
    pending: tuple[PlannedLoad, ...] = ()
    met_plans: float = 0.0

    def planned(self, due_unix_seconds: float, load: float, horizon_seconds: float) -> Deviations:
        """Return them with one more plan, unless the last one is about as new."""
        last = self.pending[-1].due_unix_seconds if self.pending else -math.inf
        if load <= 0 or due_unix_seconds - last < horizon_seconds / STEPS_PER_HORIZON:
            return self
        plan = PlannedLoad(due_unix_seconds, load)
        return dataclasses.replace(self, pending=(*self.pending, plan))

    def met(self, now_unix_seconds: float, load: float, weight: float) -> Deviations:
        """Return them after the plans that are due met a load.

        Args:
            now_unix_seconds: When.
            load: Per replica that serves.
            weight: Requests over the usual number.
        """
        bins, count = self.bins, self.met_plans
        for plan in self.pending:
            if plan.due_unix_seconds <= now_unix_seconds and weight > 0:
                log = math.log(load / plan.load) if load > 0 else -MOST_LOG_ERROR
                count = min(MOST_PLANS, count + weight)
                bins = _extended(bins, log, weight / (PRIOR_PLANS + count))
        left = tuple(p for p in self.pending if p.due_unix_seconds > now_unix_seconds)
        return Deviations(bins, left, count)


def _extended(bins: tuple[DeviationBin, ...], log: float, rate: float) -> tuple[DeviationBin, ...]:
    index = round(min(MOST_LOG_ERROR, max(-MOST_LOG_ERROR, log)) / ERROR_LOG_WIDTH)
    shares = {found.index: found.share * (1.0 - rate) for found in bins}
    shares[index] = shares.get(index, 0.0) + rate
    kept = {index: share for index, share in shares.items() if share > LEAST_ERROR_SHARE}
    total = math.fsum(kept.values())
    return tuple(DeviationBin(index, kept[index] / total) for index in sorted(kept))


@dataclasses.dataclass(frozen=True, slots=True)
class ExpectedMisses:
    """Shares of curable misses by planned load per replica.

    Attributes:
        curve: Misses by the load that comes.
        errors: Multiples of the planned load that come, with the shares of requests that meet them.
        saturated_load: Load at which half of the requests miss.
    """

    curve: FittedCurve
    errors: tuple[tuple[float, float], ...]
    saturated_load: float

    def miss_ratio(self, planned_load: float) -> float:
        """Return the expected share at a planned load per replica, in 0..1."""
        if planned_load <= 0:
            return 0.0
        return math.fsum(
            weight * self.curve.miss_ratio(planned_load * multiple)
            for multiple, weight in self.errors
        )


def expect_misses(curve: FittedCurve, deviations: Deviations) -> ExpectedMisses:
    """Return the expectation."""
    errors = tuple((math.exp(d.index * ERROR_LOG_WIDTH), d.share) for d in deviations.bins)
    return ExpectedMisses(curve, errors, saturated_load(curve))


def saturated_load(curve: FittedCurve) -> float:
    """Return the load per replica from which on more than half of the requests miss."""
    low, high = curve.log_loads[0] - SEARCH_MARGIN, curve.log_loads[-1] + SEARCH_MARGIN
    while high - low > SEARCH_LOG_WIDTH:
        middle = (low + high) / 2
        if curve.miss_ratio(math.exp(middle)) < SATURATED_MISS_RATIO:
            low = middle
        else:
            high = middle
    return math.exp(low)


def best_replicas(expected: ExpectedMisses, forecast: Forecast, price: float) -> int:
    """Return the fleet at which capacity and misses together cost least.

    Args:
        expected: Misses.
        forecast: Demand for which the fleet is meant.
        price: Of missing all requests, in e-foldings of the fleet: a fleet that is 1 % larger is
            worth 1 % / price fewer misses.
    """
    demand = forecast.demand
    if demand <= 0:
        return 1
    fewest = max(1, math.floor(demand / (MOST_LOAD_SHARE * expected.saturated_load)))
    most = max(1, math.ceil(demand / (LEAST_LOAD_SHARE * expected.saturated_load)))
    best, lowest = most, math.inf
    count = fewest
    while count <= most:
        capacity = math.log(count)
        if capacity >= lowest:
            # Dearer without a miss than the best is with all of its own.
            break
        cost = capacity + price * expected.miss_ratio(demand / count)
        if cost < lowest:
            best, lowest = count, cost
        count = max(count + 1, math.floor(count * CANDIDATE_STEP))
    return best


def bearable_replicas(
    expected: ExpectedMisses, demand: float, replicas: int, promised: float
) -> int:
    """Return at least so many replicas, more where they prevent what no average excuses.

    That is a load at which more is missed than promised even if all comes as planned, or several
    times as much is expected to be, and one replica more would help: in a small fleet that is a
    large step.

    Args:
        expected: Misses.
        demand: For which the fleet is meant.
        replicas: That cost least.
        promised: Share of the requests that may miss.
    """
    while replicas < MOST_REPLICAS:
        load = demand / replicas
        missed = expected.curve.miss_ratio(load)
        if missed > promised:
            more = replicas + max(1, round(CURE_STEP_RATIO * replicas))
            if expected.curve.miss_ratio(demand / more) > missed * replicas / more:
                # Bursts too short for a fleet miss at any load: capacity would be bought in vain.
                return replicas
        else:
            risk = expected.miss_ratio(load)
            if risk <= MOST_RISK * promised:
                return replicas
            steep = (replicas / (replicas + 1)) ** STEEP_POWER
            if expected.miss_ratio(demand / (replicas + 1)) > risk * steep:
                return replicas
        replicas += 1
    return replicas


def price_of_misses(allowed_ratio: float, caution: float) -> float:
    """Return the price at which a steep curve ends at the allowed share, times the caution."""
    return caution / (STEEPNESS * allowed_ratio)
