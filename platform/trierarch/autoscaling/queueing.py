"""How many requests per second replicas can take and still keep the latency objective.

The replicas of a pool share one line, so they are one birth-death chain: n
requests are in the system, arrivals come at a constant rate, and the pool
finishes them at a rate that depends on n. For Poisson arrivals and exponential
work the chain's balance is p(n) mu(n) = p(n-1) lambda. Burstier traffic widens
the distribution as in the Allen-Cunneen correction of a wait: the exponent
2 / (ca^2 + cs^2) on lambda / mu, which is the chain itself for 1 and 1.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from trierarch.autoscaling.service_model import StepTime

GRID = 96
"""Points of the chain. Large pools move in steps of more than one request; the balance is then
taken over the step, which keeps the width of the distribution."""

SEARCH_STEPS = 12
"""Halvings of the search for a rate: the result is exact to 1 part in 4000."""

ROUNDING_RATIO = 0.02
"""Inputs are rounded to this, so that a learned number that trembles changes no decision and
results can be kept."""

LEAST_VARIABILITY = 0.05
"""Even a metronome's traffic meets some variation."""

HIGHEST_LOAD_RATIO = 0.98
"""Share of the greatest throughput that is ever planned for."""


@dataclasses.dataclass(frozen=True, slots=True)
class LatencyBound:
    """What a pool must keep.

    Attributes:
        ttft_seconds: For ``percentile`` of the requests; None if nothing is promised.
        step_seconds: Mean time per output token that keeps its promise; None likewise.
        percentile: In percent.
    """

    ttft_seconds: float | None
    step_seconds: float | None
    percentile: float


@dataclasses.dataclass(frozen=True, slots=True)
class PoolPrediction:
    """What users of a pool would see.

    Attributes:
        ttft_seconds: At the objective's percentile; infinite if the pool cannot keep up.
        step_seconds: Mean time per output token.
        running_per_replica: Mean batch.
    """

    ttft_seconds: float
    step_seconds: float
    running_per_replica: float


def rounded(value: float) -> float:
    """Return the value on a grid of constant ratio."""
    if value <= 0 or not math.isfinite(value):
        return 0.0
    step = math.log1p(ROUNDING_RATIO)
    return math.exp(round(math.log(value) / step) * step)


def round_steps(steps: StepTime) -> StepTime:
    """Return the step time with rounded coefficients."""
    return StepTime(
        base_seconds=rounded(steps.base_seconds),
        request_seconds=rounded(steps.request_seconds),
        expert_seconds=rounded(steps.expert_seconds),
        expert_share_ratio=steps.expert_share_ratio,
        prefill_seconds=rounded(steps.prefill_seconds),
        output_tokens=max(1.0, rounded(steps.output_tokens)),
    )


@functools.lru_cache(maxsize=4096)
def highest_rate_per_replica(
    steps: StepTime, *, seats: float, replicas: int, bound: LatencyBound, variability: float
) -> float:
    """Return the most requests per second for each replica of a pool inside the bound.

    Args:
        steps: The service model for the mix of requests.
        seats: Requests a replica holds at most.
        replicas: Size of the pool; larger pools waste less on fluctuations.
        bound: What must be kept; without any promise only stability counts.
        variability: Mean of the squared coefficients of variation of arrivals and work.
    """
    if replicas < 1 or seats <= 0:
        return 0.0
    chain = _chain(steps, seats, replicas, variability)
    low, high = 0.0, HIGHEST_LOAD_RATIO * chain.greatest_per_second
    if chain.keeps(high, bound):
        return high
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2.0
        if chain.keeps(middle, bound):
            low = middle
        else:
            high = middle
    return low


def predict_pool(
    steps: StepTime,
    *,
    rate_per_second: float,
    seats: float,
    replicas: int,
    percentile: float,
    variability: float,
) -> PoolPrediction:
    """Return what users see when ``replicas`` share ``rate_per_second``."""
    if replicas < 1 or seats <= 0:
        return PoolPrediction(math.inf, math.inf, 0.0)
    chain = _chain(steps, seats, replicas, variability)
    rate = rate_per_second / replicas
    if rate >= chain.greatest_per_second:
        return PoolPrediction(math.inf, steps.step_seconds(seats), seats)
    stationary = chain.at_rate(rate)
    return PoolPrediction(
        chain.ttft_at(percentile, stationary),
        steps.step_seconds(stationary.mean_running),
        stationary.mean_running,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Stationary:
    """Shares of time at each level up to a full pool, and of the line behind it.

    Attributes:
        shares: Per level; they and ``waiting_ratio`` sum to 1.
        waiting_ratio: Share of arrivals that find every seat taken.
        decay: Each further request in the line is this much less likely.
        mean_running: Requests per replica.
    """

    shares: tuple[float, ...]
    waiting_ratio: float
    decay: float
    mean_running: float


class _Chain:
    """A pool's birth-death chain; what does not depend on the arrival rate is kept."""

    def __init__(self, steps: StepTime, seats: float, replicas: int, variability: float) -> None:
        self._steps = steps
        self._seats = seats
        self._replicas = replicas
        self._variability = max(variability, LEAST_VARIABILITY)
        self.greatest_per_second = steps.throughput_per_second(seats)
        full = seats * replicas
        self._width = max(1.0, full / GRID)
        self._levels: list[float] = []
        self._log_rates: list[float] = []
        level, log = 0.0, 0.0
        while level < full - 1e-9:
            self._levels.append(level / replicas)
            self._log_rates.append(log)
            width = min(self._width, full - level)
            level += width
            # A step of several requests takes the mean rate of the levels it passes.
            held = (level - (width - 1.0) / 2.0) / replicas
            finished = steps.throughput_per_second(min(held, seats))
            log += width * math.log(max(finished, 1e-12))
        self._full_log_rate = log
        self._first_token = [steps.first_token_seconds(at) for at in self._levels]
        self._full_first_token = steps.first_token_seconds(seats)

    def at_rate(self, rate: float) -> _Stationary:
        """Return the stationary distribution at a rate per replica below the greatest."""
        log_rate = math.log(max(rate, 1e-12))
        scale = 1.0 / self._variability
        replicas = self._replicas
        logs = [
            scale * (at * replicas * log_rate - done)
            for at, done in zip(self._levels, self._log_rates, strict=True)
        ]
        full = scale * (self._seats * replicas * log_rate - self._full_log_rate)
        decay = math.exp(scale * (log_rate - math.log(self.greatest_per_second)))
        top = max(full, max(logs))
        # A level stands for all the requests of its step; the line behind is geometric.
        weights = [self._width * math.exp(value - top) for value in logs]
        line = math.exp(full - top) / (1.0 - decay)
        total = math.fsum(weights) + line
        shares = tuple(weight / total for weight in weights)
        waiting = line / total
        running = math.fsum(a * b for a, b in zip(shares, self._levels, strict=True))
        return _Stationary(shares, waiting, decay, running + waiting * self._seats)

    def keeps(self, rate: float, bound: LatencyBound) -> bool:
        """Tell whether a rate per replica stays inside the bound."""
        stationary = self.at_rate(rate)
        step_seconds = self._steps.step_seconds(stationary.mean_running)
        if bound.step_seconds is not None and step_seconds > bound.step_seconds:
            return False
        if bound.ttft_seconds is None:
            return True
        return self._late_ratio(bound.ttft_seconds, stationary) <= 1.0 - bound.percentile / 100.0

    def _late_ratio(self, ttft_seconds: float, stationary: _Stationary) -> float:
        """Return the share of requests whose first token is late."""
        late = math.fsum(
            share
            for share, seconds in zip(stationary.shares, self._first_token, strict=True)
            if seconds > ttft_seconds
        )
        spare = ttft_seconds - self._full_first_token
        if spare <= 0:
            return late + stationary.waiting_ratio
        ahead = spare * self.greatest_per_second * self._replicas
        return float(late + stationary.waiting_ratio * stationary.decay**ahead)

    def ttft_at(self, percentile: float, stationary: _Stationary) -> float:
        """Return the TTFT at a percentile."""
        late_ratio = 1.0 - percentile / 100.0
        if stationary.waiting_ratio > late_ratio:
            ahead = math.log(late_ratio / stationary.waiting_ratio) / math.log(stationary.decay)
            waiting = ahead / (self.greatest_per_second * self._replicas)
            return waiting + self._full_first_token
        seen = stationary.waiting_ratio
        for share, seconds in zip(
            reversed(stationary.shares), reversed(self._first_token), strict=True
        ):
            seen += share
            if seen >= late_ratio:
                return seconds
        return self._full_first_token


@functools.lru_cache(maxsize=256)
def _chain(steps: StepTime, seats: float, replicas: int, variability: float) -> _Chain:
    return _Chain(steps, seats, replicas, variability)
