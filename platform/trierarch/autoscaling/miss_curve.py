"""How many requests miss the objective at which load per replica, learned while serving.

A queue model knows the mean request and the mean replica. What misses are made of
are bursts, long prompts beside short answers and uneven routing, and these differ
by traffic more than by model. So the share of misses is counted per load, in bins
of constant ratio, and made monotone by pooling adjacent violators. Late first
tokens are counted beside: where they do not depend on the load they are prompts
that no capacity answers in time, and give no reason to buy any.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Sequence

BIN_LOG_WIDTH = math.log(1.12)
"""Loads are told apart to 12 %: a replica more or less on a fleet of eight."""

MOST_BINS = 48
"""Bins kept; a factor of 230 between the lowest and the highest load."""

HALF_LIFE_SECONDS = 6 * 3600.0
"""Old counts lose half their weight in a quarter of a day: traffic changes with the hours."""

PRIOR_REQUESTS = 50.0
"""Weight of the prior of half a miss per bin: no bin is certain because it saw little."""

STEEPNESS = 16.0
"""Beyond the highest load seen misses are believed to grow with this power of the load, the
slope of measured curves where a fleet of mean requests saturates."""

LOW_LOAD_SHARE = 1.0 / 3.0
"""Share of the requests, those at the lowest loads, whose late ones count as incurable."""

LEAST_MISS_RATIO = 2e-4
"""No load that was seen is believed to miss less often, when what lies beyond it is judged."""


@dataclasses.dataclass(frozen=True, slots=True)
class LoadBin:
    """What was seen at about one load per replica.

    Attributes:
        index: Logarithm of the load over ``BIN_LOG_WIDTH``, rounded.
        requests: That ended.
        misses: Of those, outside the objective.
        late: Of those, with a late first token.
        mean_log_load: Of those; None where it was not kept, which is the middle of the bin.
    """

    index: int
    requests: float
    misses: float
    late: float
    mean_log_load: float | None = None

    @property
    def log_load(self) -> float:
        """Where in the bin its requests lie: half a bin off is 2.5 times as many misses."""
        middle = self.index * BIN_LOG_WIDTH
        return middle if self.mean_log_load is None else self.mean_log_load


@dataclasses.dataclass(frozen=True, slots=True)
class MissCurve:
    """The counts, by rising load.

    Attributes:
        bins: Non-empty ones.
        at_unix_seconds: When they were last aged; None before the first.
    """

    bins: tuple[LoadBin, ...] = ()
    at_unix_seconds: float | None = None

    @property
    def requests(self) -> float:
        """Return how many requests are in it."""
        return math.fsum(found.requests for found in self.bins)


@dataclasses.dataclass(frozen=True, slots=True)
class FittedCurve:
    """Share of misses by load, without those that no capacity cures.

    Attributes:
        log_loads: Rising; logarithms of loads per replica.
        log_ratios: Rising; logarithms of the shares of curable misses at those.
        incurable_ratio: Share of the requests that are late at any load.
        log_saturated_load: Where the service model expects half the requests to miss, or None.
    """

    log_loads: tuple[float, ...]
    log_ratios: tuple[float, ...]
    incurable_ratio: float
    log_saturated_load: float | None = None

    def miss_ratio(self, load: float) -> float:
        """Return the share of curable misses at a load per replica, in 0..1."""
        if load <= 0:
            return 0.0
        at = math.log(load)
        loads, ratios = self.log_loads, self.log_ratios
        if at >= loads[-1]:
            beyond = max(ratios[-1], math.log(LEAST_MISS_RATIO)) + STEEPNESS * (at - loads[-1])
            seen = math.exp(min(0.0, beyond))
            if self.log_saturated_load is None:
                return seen
            # One bin further the model is believed whole, for nothing was seen there.
            further = min(1.0, (at - loads[-1]) / BIN_LOG_WIDTH)
            return max(seen, further * _saturation_ratio(at, self.log_saturated_load))
        if at <= loads[0]:
            # Below the lowest load seen misses vanish at the same rate.
            return math.exp(min(0.0, ratios[0] + STEEPNESS * (at - loads[0])))
        place = bisect.bisect_right(loads, at)
        share = (at - loads[place - 1]) / (loads[place] - loads[place - 1])
        return math.exp(ratios[place - 1] + share * (ratios[place] - ratios[place - 1]))


def learn_misses(
    curve: MissCurve,
    *,
    now_unix_seconds: float,
    load: float,
    requests: float,
    misses: float,
    late: float,
) -> MissCurve:
    """Return the curve after one interval at a load per replica."""
    bins = _aged(curve, now_unix_seconds)
    if load > 0 and requests > 0 and math.isfinite(load):
        at = math.log(load)
        index = round(at / BIN_LOG_WIDTH)
        old = bins.get(index, LoadBin(index, 0.0, 0.0, 0.0))
        total = old.requests + requests
        mean = old.log_load + (at - old.log_load) * requests / total
        bins[index] = LoadBin(index, total, old.misses + misses, old.late + late, mean)
    while len(bins) > MOST_BINS:
        del bins[min(bins, key=lambda index: bins[index].requests)]
    ordered = tuple(bins[index] for index in sorted(bins))
    return MissCurve(ordered, now_unix_seconds)


def _aged(curve: MissCurve, now_unix_seconds: float) -> dict[int, LoadBin]:
    last = curve.at_unix_seconds
    elapsed = 0.0 if last is None else max(0.0, now_unix_seconds - last)
    keep = 0.5 ** (elapsed / HALF_LIFE_SECONDS)
    return {
        found.index: dataclasses.replace(
            found,
            requests=found.requests * keep,
            misses=found.misses * keep,
            late=found.late * keep,
        )
        for found in curve.bins
        # What has faded to nothing is no evidence.
        if found.requests * keep > 0.5
    }


def fit_curve(
    curve: MissCurve, *, saturated_load: float | None = None, prior_requests: float = 0.0
) -> FittedCurve | None:
    """Return the monotone curve; None while nothing is known.

    Args:
        curve: What was seen.
        saturated_load: Load at which the service model expects most requests to miss; None
            without a model. Near it the model is believed until as much was seen: short visits
            to a load do not show the line that grows if it lasts.
        prior_requests: How much that belief weighs, per bin.
    """
    if not curve.bins:
        return None
    log_saturated = None if saturated_load is None else math.log(saturated_load)
    weights = [found.requests + PRIOR_REQUESTS for found in curve.bins]
    incurable = _incurable_ratio(curve, log_saturated)
    misses = _monotone(
        [_bin_ratio(found, incurable, log_saturated, prior_requests) for found in curve.bins],
        weights,
    )
    return FittedCurve(
        tuple(found.log_load for found in curve.bins),
        tuple(math.log(ratio) for ratio in misses),
        incurable,
        log_saturated,
    )


def _incurable_ratio(curve: MissCurve, log_saturated: float | None) -> float:
    """Return the share of late requests where the load was lowest.

    One bin alone could be luck, so it is the lowest loads that make up a share of all requests.
    Loads at which a replica is believed to be full say nothing of what capacity would cure.
    """
    requests = late = 0.0
    for found in curve.bins:
        if log_saturated is not None and found.log_load >= log_saturated:
            break
        requests += found.requests
        late += found.late
        if requests >= LOW_LOAD_SHARE * curve.requests:
            break
    return late / requests if requests > 0 else 0.0


def _bin_ratio(
    found: LoadBin, incurable_ratio: float, log_saturated: float | None, prior_requests: float
) -> float:
    misses = max(0.0, found.misses - incurable_ratio * found.requests)
    seen = (misses + 0.5) / (found.requests + PRIOR_REQUESTS)
    if log_saturated is None:
        return seen
    believed = _saturation_ratio(found.log_load, log_saturated)
    blended = (misses + prior_requests * believed) / (found.requests + prior_requests)
    return min(1.0, max(seen, blended))


def _saturation_ratio(log_load: float, log_saturated: float) -> float:
    return 0.5 * math.exp(min(math.log(2.0), STEEPNESS * (log_load - log_saturated)))


def _monotone(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the nearest rising values (least squares, pooling adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (one, mine, count), (other, theirs, more) = blocks[-2], blocks[-1]
            total = mine + theirs
            blocks[-2:] = [((one * mine + other * theirs) / total, total, count + more)]
    return [value for value, _, count in blocks for _ in range(count)]
