"""Prometheus metrics of the data path, with label children looked up once.

Finding a child by its labels costs more than adding to it, so each combination
of model, variant, tenant and tier keeps its children together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from trierarch.core.identifiers import ModelName, TenantId, VariantName
from trierarch.core.quantities import Money, TokenCounts
from trierarch.core.usage import ServiceTier
from trierarch.observability import names
from trierarch.routing.ejection import FailureKind


def _counter(metric: names.Metric, registry: CollectorRegistry) -> Counter:
    return Counter(metric.name, metric.meaning, metric.labels, registry=registry)


def _histogram(metric: names.Metric, registry: CollectorRegistry) -> Histogram:
    return Histogram(
        metric.name, metric.meaning, metric.labels, registry=registry, buckets=metric.buckets
    )


class LaneMetrics:
    """Everything that one (model, variant, tenant, tier) counts."""

    __slots__ = (
        "_cached_tokens",
        "_input_tokens",
        "_labels",
        "_output_tokens",
        "_requests",
        "_requests_by_status",
        "_spend",
        "duration",
        "time_per_output_token",
        "time_to_first_token",
    )

    def __init__(self, owner: GatewayMetrics, labels: tuple[str, str, str, str]) -> None:
        model, variant, _tenant, tier = labels
        self._labels = labels
        self._requests = owner.requests
        self._requests_by_status: dict[int, Any] = {}
        self.duration = owner.duration.labels(model, variant, tier)
        self.time_to_first_token = owner.time_to_first_token.labels(model, variant, tier)
        self.time_per_output_token = owner.time_per_output_token.labels(model, variant, tier)
        self._input_tokens = owner.tokens.labels(*labels, "input")
        self._cached_tokens = owner.tokens.labels(*labels, "cached")
        self._output_tokens = owner.tokens.labels(*labels, "output")
        self._spend = owner.spend.labels(*labels)

    def count(self, status: int) -> None:
        """Count an answer."""
        child = self._requests_by_status.get(status)
        if child is None:
            child = self._requests_by_status[status] = self._requests.labels(
                *self._labels, str(status)
            )
        child.inc()

    def meter(self, tokens: TokenCounts, charge: Money) -> None:
        """Add what a request used."""
        if tokens.input_tokens:
            self._input_tokens.inc(tokens.input_tokens)
        if tokens.cached_tokens:
            self._cached_tokens.inc(tokens.cached_tokens)
        if tokens.output_tokens:
            self._output_tokens.inc(tokens.output_tokens)
        if charge.amount:
            self._spend.inc(float(charge.amount))


class GatewayMetrics:
    """The metrics of one gateway process, in their own registry."""

    def __init__(self) -> None:
        # A second series per counter that nobody asked for.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # no annotations upstream
        self.registry = CollectorRegistry()
        self.requests = _counter(names.GATEWAY_REQUESTS, self.registry)
        self.duration = _histogram(names.GATEWAY_REQUEST_DURATION, self.registry)
        self.time_to_first_token = _histogram(names.GATEWAY_TIME_TO_FIRST_TOKEN, self.registry)
        self.time_per_output_token = _histogram(names.GATEWAY_TIME_PER_OUTPUT_TOKEN, self.registry)
        self.queue_wait = _histogram(names.GATEWAY_QUEUE_WAIT, self.registry)
        self.tokens = _counter(names.GATEWAY_TOKENS, self.registry)
        self.spend = _counter(names.GATEWAY_SPEND, self.registry)
        self._retries = _counter(names.GATEWAY_RETRIES, self.registry)
        self._dropped = _counter(names.GATEWAY_TELEMETRY_DROPPED, self.registry)
        age = names.GATEWAY_REPLICA_LIST_AGE
        self._replica_list_age = Gauge(age.name, age.meaning, registry=self.registry)
        self._lanes: dict[tuple[str, str, str, str], LaneMetrics] = {}
        self._queue_waits: dict[tuple[str, str], Any] = {}

    def lane(
        self,
        model: ModelName | None,
        variant: VariantName | None,
        tenant: TenantId | None,
        tier: ServiceTier | None,
    ) -> LaneMetrics:
        """Return the children of a combination; None is an empty label."""
        labels = (model or "", variant or "", tenant or "", tier.value if tier else "")
        lane = self._lanes.get(labels)
        if lane is None:
            lane = self._lanes[labels] = LaneMetrics(self, labels)
        return lane

    def observe_queue_wait(self, model: ModelName, tier: ServiceTier, seconds: float) -> None:
        """Add one wait."""
        labels = (model, tier.value)
        child = self._queue_waits.get(labels)
        if child is None:
            child = self._queue_waits[labels] = self.queue_wait.labels(*labels)
        child.observe(seconds)

    def count_retry(self, model: ModelName, kind: FailureKind) -> None:
        """Count a failed attempt that is tried again."""
        self._retries.labels(model, kind.value).inc()

    def count_dropped(self, reason: str, count: int) -> None:
        """Count telemetry that was given up."""
        self._dropped.labels(reason).inc(count)

    def watch(
        self,
        depths: Callable[[], Mapping[ModelName, Mapping[ServiceTier, int]]],
        ongoing: Callable[[], Mapping[ModelName, int]],
        replica_list_age_seconds: Callable[[], float],
    ) -> None:
        """Read these at every scrape instead of counting along."""
        self.registry.register(_LiveGauges(depths, ongoing))
        self._replica_list_age.set_function(replica_list_age_seconds)


class _LiveGauges(Collector):
    """Gauges whose truth lives in the dispatchers."""

    def __init__(
        self,
        depths: Callable[[], Mapping[ModelName, Mapping[ServiceTier, int]]],
        ongoing: Callable[[], Mapping[ModelName, int]],
    ) -> None:
        self._depths = depths
        self._ongoing = ongoing

    def collect(self) -> Iterable[Family]:
        """Return queue depth and ongoing requests as of now."""
        depth = names.GATEWAY_QUEUE_DEPTH
        family = GaugeMetricFamily(depth.name, depth.meaning, labels=depth.labels)
        for model, by_tier in self._depths().items():
            for tier, count in by_tier.items():
                family.add_metric([model, tier.value], count)
        yield family
        ongoing = names.GATEWAY_ONGOING_REQUESTS
        family = GaugeMetricFamily(ongoing.name, ongoing.meaning, labels=ongoing.labels)
        for model, count in self._ongoing().items():
            family.add_metric([model], count)
        yield family
