"""Prometheus metrics of the data path, kept as plain numbers and turned into families on a scrape.

A client library's counter takes a lock and a call chain for every increment,
and a request makes a dozen of them. The event loop is one thread: here a lane
(one combination of model, variant, tenant and tier) is an object found once per
request whose attributes are added to.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from trierarch.core.identifiers import ModelName, TenantId, VariantName
from trierarch.core.quantities import TokenCounts
from trierarch.core.usage import ServiceTier
from trierarch.observability import names
from trierarch.routing.ejection import FailureKind


class Distribution:
    """A histogram: counts by bucket, and a sum."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, metric: names.Metric) -> None:
        self._bounds = metric.buckets
        self.counts = [0] * (len(metric.buckets) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Add a value; a bound belongs to its bucket."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the buckets as Prometheus wants them."""
        buckets = []
        count = 0
        for bound, own in zip((*self._bounds, float("inf")), self.counts, strict=True):
            count += own
            buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(count)))
        return buckets


class Lane:
    """Everything that one (model, variant, tenant, tier) counts.

    Attributes:
        answers: By HTTP status.
        input_tokens: Cached included.
        cached_tokens: Part of the input.
        output_tokens: Generated.
        spend_usd: For graphs; the ledger holds the exact amounts.
    """

    __slots__ = ("answers", "cached_tokens", "input_tokens", "output_tokens", "spend_usd")

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.input_tokens = 0
        self.cached_tokens = 0
        self.output_tokens = 0
        self.spend_usd = 0.0

    def meter(self, tokens: TokenCounts, charge_usd: float) -> None:
        """Add what a request used."""
        self.input_tokens += tokens.input_tokens
        self.cached_tokens += tokens.cached_tokens
        self.output_tokens += tokens.output_tokens
        self.spend_usd += charge_usd


class Timings:
    """The distributions of one (model, variant, tier)."""

    __slots__ = ("duration", "time_per_output_token", "time_to_first_token")

    def __init__(self) -> None:
        self.duration = Distribution(names.GATEWAY_REQUEST_DURATION)
        self.time_to_first_token = Distribution(names.GATEWAY_TIME_TO_FIRST_TOKEN)
        self.time_per_output_token = Distribution(names.GATEWAY_TIME_PER_OUTPUT_TOKEN)


class GatewayMetrics(Collector):
    """The metrics of one gateway process, in a registry of their own."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[str, str, str, str], Lane] = {}
        self._timings: dict[tuple[str, str, str], Timings] = {}
        self._queue_waits: dict[tuple[str, str], Distribution] = {}
        self._retries: Counter[tuple[str, str]] = Counter()
        self._continuations: Counter[tuple[str, str]] = Counter()
        self._shed: Counter[tuple[str, str]] = Counter()
        self._relegated: Counter[tuple[str, str]] = Counter()
        self._dropped: Counter[str] = Counter()
        self._depths: Callable[[], Mapping[ModelName, Mapping[ServiceTier, int]]] = dict
        self._ongoing: Callable[[], Mapping[ModelName, int]] = dict
        self._flex_open: Callable[[], Mapping[ModelName, bool]] = dict
        self._replica_list_age_seconds: Callable[[], float] = lambda: float("nan")
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def lane(
        self,
        model: ModelName | None,
        variant: VariantName | None,
        tenant: TenantId | None,
        tier: ServiceTier | None,
    ) -> Lane:
        """Return the counters of a combination; None is an empty label."""
        labels = (model or "", variant or "", tenant or "", tier or "")
        lane = self._lanes.get(labels)
        if lane is None:
            lane = self._lanes[labels] = Lane()
        return lane

    def timings(self, model: ModelName, variant: VariantName | None, tier: ServiceTier) -> Timings:
        """Return the distributions of a combination."""
        labels = (model, variant or "", tier)
        timings = self._timings.get(labels)
        if timings is None:
            timings = self._timings[labels] = Timings()
        return timings

    def observe_queue_wait(self, model: ModelName, tier: ServiceTier, seconds: float) -> None:
        """Add one wait."""
        labels = (model, tier)
        waits = self._queue_waits.get(labels)
        if waits is None:
            waits = self._queue_waits[labels] = Distribution(names.GATEWAY_QUEUE_WAIT)
        waits.observe(seconds)

    def count_retry(self, model: ModelName, kind: FailureKind) -> None:
        """Count a failed attempt that is tried again."""
        self._retries[model, kind.value] += 1

    def count_continuation(self, model: ModelName, kind: FailureKind) -> None:
        """Count a cut stream that another replica is asked to go on with."""
        self._continuations[model, kind.value] += 1

    def count_shed(self, model: ModelName, tier: ServiceTier) -> None:
        """Count a request that was refused because the autoscaler sheds its tier."""
        self._shed[model, tier] += 1

    def count_relegated(self, model: ModelName, tier: ServiceTier) -> None:
        """Count a request that waits for those of its tier that can still be in time."""
        self._relegated[model, tier] += 1

    def count_dropped(self, reason: str, count: int) -> None:
        """Count telemetry that was given up."""
        self._dropped[reason] += count

    def watch(
        self,
        depths: Callable[[], Mapping[ModelName, Mapping[ServiceTier, int]]],
        ongoing: Callable[[], Mapping[ModelName, int]],
        flex_open: Callable[[], Mapping[ModelName, bool]],
        replica_list_age_seconds: Callable[[], float],
    ) -> None:
        """Read these at every scrape instead of counting along."""
        self._depths = depths
        self._ongoing = ongoing
        self._flex_open = flex_open
        self._replica_list_age_seconds = replica_list_age_seconds

    # --- scraping ---------------------------------------------------------------------

    def collect(self) -> Iterator[Family]:
        """Return every family as of now."""
        lanes = list(self._lanes.items())
        yield _counter(
            names.GATEWAY_REQUESTS,
            (
                ((*labels, str(status)), count)
                for labels, lane in lanes
                for status, count in lane.answers.items()
            ),
        )
        timings = list(self._timings.items())
        for metric, chosen in (
            (names.GATEWAY_REQUEST_DURATION, [(k, t.duration) for k, t in timings]),
            (names.GATEWAY_TIME_TO_FIRST_TOKEN, [(k, t.time_to_first_token) for k, t in timings]),
            (
                names.GATEWAY_TIME_PER_OUTPUT_TOKEN,
                [(k, t.time_per_output_token) for k, t in timings],
            ),
            (names.GATEWAY_QUEUE_WAIT, list(self._queue_waits.items())),
        ):
            yield _histogram(metric, chosen)
        metered = [(labels, lane) for labels, lane in lanes if labels[0]]
        yield _counter(
            names.GATEWAY_TOKENS,
            (
                ((*labels, kind), count)
                for labels, lane in metered
                for kind, count in (
                    ("input", lane.input_tokens),
                    ("cached", lane.cached_tokens),
                    ("output", lane.output_tokens),
                )
            ),
        )
        yield _counter(names.GATEWAY_SPEND, ((labels, lane.spend_usd) for labels, lane in metered))
        yield _gauge(
            names.GATEWAY_QUEUE_DEPTH,
            (
                ((model, tier), count)
                for model, by_tier in self._depths().items()
                for tier, count in by_tier.items()
            ),
        )
        yield _gauge(
            names.GATEWAY_ONGOING_REQUESTS,
            (((model,), count) for model, count in self._ongoing().items()),
        )
        yield _gauge(
            names.GATEWAY_FLEX_LANE_OPEN,
            (((model,), float(is_open)) for model, is_open in self._flex_open().items()),
        )
        yield _counter(names.GATEWAY_SHED_REQUESTS, self._shed.items())
        yield _counter(names.GATEWAY_RELEGATED, self._relegated.items())
        yield _counter(names.GATEWAY_RETRIES, self._retries.items())
        yield _counter(names.GATEWAY_CONTINUATIONS, self._continuations.items())
        yield _gauge(names.GATEWAY_REPLICA_LIST_AGE, [((), self._replica_list_age_seconds())])
        yield _counter(
            names.GATEWAY_TELEMETRY_DROPPED,
            (((reason,), count) for reason, count in self._dropped.items()),
        )


_Samples = Iterable[tuple[tuple[str, ...], float]]


def _counter(metric: names.Metric, samples: _Samples) -> Family:
    family = CounterMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _gauge(metric: names.Metric, samples: _Samples) -> Family:
    family = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _histogram(
    metric: names.Metric, samples: Iterable[tuple[tuple[str, ...], Distribution]]
) -> Family:
    family = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, distribution in samples:
        family.add_metric(labels, distribution.cumulative(), distribution.total)
    return family
