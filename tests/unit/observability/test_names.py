"""The contract's metric names, and the page that is made from the list."""

from __future__ import annotations

from pathlib import Path

import pytest

from trierarch.gateway.telemetry import GatewayMetrics
from trierarch.observability.names import METRICS, SPAN_ATTRIBUTES
from trierarch.observability.reference import build_reference

ROOT = Path(__file__).parents[3]

CONTRACT = {
    *(
        f"trierarch_gateway_{name}"
        for name in (
            "requests_total",
            "request_duration_seconds",
            "time_to_first_token_seconds",
            "time_per_output_token_seconds",
            "queue_depth",
            "queue_wait_seconds",
            "tokens_total",
            "spend_usd_total",
        )
    ),
    *(
        f"trierarch_autoscaler_{name}"
        for name in (
            "desired_replicas",
            "ready_replicas",
            "decisions_total",
            "decision_duration_seconds",
            "signal_age_seconds",
        )
    ),
    *(
        f"trierarch_cost_{name}"
        for name in (
            "usd_per_million_tokens",
            "target_usd_per_million_tokens",
            "hourly_spend_usd",
            "idle_usd_total",
            "ledger_drift_usd",
            "budget_remaining_usd",
            "budget_burn_rate",
        )
    ),
}

LABELS = {"model", "variant", "tenant", "tier", "reason", "capacity_type", "code"}


def test_every_name_of_the_contract_is_there() -> None:
    assert {metric.name for metric in METRICS} >= CONTRACT


def test_names_are_unique() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_metrics_follow_the_conventions(metric: object) -> None:
    assert metric.name.startswith("trierarch_")
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    assert (metric.kind == "histogram") == bool(metric.buckets)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    allowed = LABELS | ({"kind"} if metric.name == "trierarch_gateway_tokens_total" else set())
    assert set(metric.labels) <= allowed


def test_the_reference_page_is_as_new_as_the_list() -> None:
    page = ROOT / "docs" / "reference" / "metrics.md"
    assert page.read_text() == build_reference(), (
        "run: python -m trierarch.observability.reference > docs/reference/metrics.md"
    )


def test_the_gateway_exports_exactly_its_part_of_the_list() -> None:
    metrics = GatewayMetrics()
    metrics.watch(dict, dict, dict, lambda: 0.0)
    exported = {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in metrics.registry.collect()
    }
    listed = {m.name: m for m in METRICS if m.name.startswith("trierarch_gateway_")}
    assert exported.keys() == listed.keys()
    assert {n: f.type for n, f in exported.items()} == {n: m.kind for n, m in listed.items()}


def test_attributes_have_our_prefix_or_a_standard_one() -> None:
    prefixes = (
        "http.",
        "url.",
        "server.",
        "client.",
        "user_agent.",
        "error.",
        "gen_ai.",
        "trierarch.",
    )
    assert all(name.startswith(prefixes) for name in SPAN_ATTRIBUTES)
