"""Metrics as a scrape shows them."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from trierarch.core.identifiers import ModelName, TenantId, VariantName
from trierarch.core.quantities import TokenCounts
from trierarch.core.usage import ServiceTier
from trierarch.gateway.random_ids import BufferedRandom
from trierarch.gateway.telemetry import Distribution, GatewayMetrics
from trierarch.observability import names
from trierarch.routing.ejection import FailureKind

MODEL, VARIANT, TENANT = ModelName('m"1\n'), VariantName("v"), TenantId("t")
LABELS = {"model": MODEL, "variant": "v", "tenant": "t", "tier": "flex"}


def scrape(metrics: GatewayMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = generate_latest(metrics.registry).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_request_is_found_again() -> None:
    metrics = GatewayMetrics()
    lane = metrics.lane(MODEL, VARIANT, TENANT, ServiceTier.FLEX)
    lane.answers[200] += 2
    lane.meter(TokenCounts(10, 4, 7), 0.25)
    metrics.timings(MODEL, VARIANT, ServiceTier.FLEX).duration.observe(0.3)
    metrics.observe_queue_wait(MODEL, ServiceTier.FLEX, 0.0)
    metrics.count_retry(MODEL, FailureKind.CONNECT)
    metrics.count_dropped("spans", 3)
    metrics.count_shed(MODEL, ServiceTier.FLEX)
    metrics.count_relegated(MODEL, ServiceTier.DEFAULT)
    metrics.watch(
        lambda: {MODEL: {ServiceTier.FLEX: 5}},
        lambda: {MODEL: 6},
        lambda: {MODEL: False},
        lambda: 1.5,
    )
    found = scrape(metrics)

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    assert value("trierarch_gateway_requests_total", **LABELS, code="200") == 2
    assert [
        value("trierarch_gateway_tokens_total", **LABELS, kind=kind)
        for kind in ("input", "cached", "output")
    ] == [10, 4, 7]
    assert value("trierarch_gateway_spend_usd_total", **LABELS) == 0.25
    timing = {name: LABELS[name] for name in ("model", "variant", "tier")}
    name = "trierarch_gateway_request_duration_seconds"
    assert value(name + "_count", **timing) == 1
    assert value(name + "_sum", **timing) == 0.3
    assert value(name + "_bucket", **timing, le="0.25") == 0
    assert value(name + "_bucket", **timing, le="0.5") == 1
    assert value(name + "_bucket", **timing, le="+Inf") == 1
    waits = "trierarch_gateway_queue_wait_seconds_bucket"
    assert value(waits, model=MODEL, tier="flex", le="0.005") == 1
    assert value("trierarch_gateway_queue_depth", model=MODEL, tier="flex") == 5
    assert value("trierarch_gateway_ongoing_requests", model=MODEL) == 6
    assert value("trierarch_gateway_retries_total", model=MODEL, reason="ConnectFailed") == 1
    assert value("trierarch_gateway_flex_lane_open", model=MODEL) == 0
    assert value("trierarch_gateway_shed_requests_total", model=MODEL, tier="flex") == 1
    assert value("trierarch_gateway_relegated_total", model=MODEL, tier="default") == 1
    assert value("trierarch_gateway_replica_list_age_seconds") == 1.5
    assert value("trierarch_gateway_telemetry_dropped_total", reason="spans") == 3


def test_the_same_lane_is_the_same_object() -> None:
    metrics = GatewayMetrics()
    lanes = [metrics.lane(MODEL, VARIANT, TENANT, tier) for tier in [*ServiceTier, *ServiceTier]]
    assert len({id(lane) for lane in lanes}) == len(ServiceTier)


@pytest.mark.parametrize(
    ("value", "bucket"), [(0.0, "0.005"), (0.005, "0.005"), (0.0051, "0.01"), (1e9, "+Inf")]
)
def test_a_bound_belongs_to_its_bucket(value: float, bucket: str) -> None:
    distribution = Distribution(names.GATEWAY_QUEUE_WAIT)
    distribution.observe(value)
    first = next(name for name, count in distribution.cumulative() if count)
    assert first == bucket


def test_random_bytes_are_each_handed_out_once() -> None:
    drawn = []

    def draw(size: int) -> bytes:
        drawn.append(bytes(n % 251 for n in range(len(drawn), len(drawn) + size)))
        return drawn[-1]

    random = BufferedRandom(draw)
    taken = b"".join(random(16) for _ in range(600))
    assert taken == b"".join(drawn)[: len(taken)]
    assert len(drawn) == 2
    assert len(random(10_000)) == 10_000
