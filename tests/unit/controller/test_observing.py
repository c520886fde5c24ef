"""Counters become rates, silence becomes stale, and nothing unknown becomes zero."""

from __future__ import annotations

from typing import Any

import pytest

from trierarch.autoscaling.signals import Measured, Missing, Stale
from trierarch.controller.observing import (
    EngineReader,
    GatewayReader,
    oldest_unix_seconds,
    parse_engine_metrics,
)

SUMMARY = {"count": 2, "mean": 0.4, "p50": 0.3, "p90": 0.5, "p95": 0.5, "p99": 0.5}
EMPTY = {"count": 0, "mean": None, "p50": None, "p90": None, "p95": None, "p99": None}


def document(at: float, arrivals: int, completed: int, **fields: Any) -> dict[str, Any]:
    entry = {
        "waiting": {"priority": 0, "default": 3, "flex": 0},
        "waiting_tokens": {"priority": 0, "default": 90, "flex": 0},
        "in_flight": 5,
        "arrivals_total": arrivals,
        "completed_total": completed,
        "ended_total": {"completed": completed, "shed": 0},
        "tokens_total": {"input": 20 * completed, "cached": 0, "output": 10 * completed},
        "queue_wait_seconds": EMPTY,
        "ttft_seconds": SUMMARY,
        "tpot_seconds": EMPTY,
        **fields,
    }
    return {"at": at, "models": {"pocket": entry}}


def test_rates_need_two_readings() -> None:
    reader = GatewayReader()
    first = reader.read(document(100.0, 10, 4), "pocket")
    assert isinstance(first.arrivals_per_second.default, Missing)
    assert first.waiting_requests.default == Measured(3.0, 100.0)
    second = reader.read(document(104.0, 18, 6), "pocket")
    assert second.arrivals_per_second.default == Measured(2.0, 104.0)
    assert second.completed_per_second == Measured(0.5, 104.0)
    assert second.mean_output_tokens == Measured(10.0, 104.0)
    assert second.mean_input_tokens == Measured(20.0, 104.0)


def test_arrivals_are_told_by_lane_and_flex_by_its_deadline() -> None:
    reader = GatewayReader()
    lanes = {"priority": 1, "default": 7, "flex": 2}
    reader.read(document(100.0, 10, 4, tier_arrivals_total=lanes), "pocket")
    later = {"priority": 1, "default": 9, "flex": 12}
    flex = {
        "flex_in_flight": 2,
        "flex_deadline_unix_seconds": 500.0,
        "flex_patience_seconds": 600.0,
    }
    found = reader.read(document(104.0, 22, 6, tier_arrivals_total=later, **flex), "pocket")
    assert found.arrivals_per_second.priority == Measured(0.0, 104.0)
    assert found.arrivals_per_second.default == Measured(0.5, 104.0)
    assert found.arrivals_per_second.flex == Measured(2.5, 104.0)
    assert found.flex_in_flight_requests == Measured(2.0, 104.0)
    assert found.flex_deadline_unix_seconds == Measured(500.0, 104.0)
    assert found.flex_patience_seconds == Measured(600.0, 104.0)
    none = reader.read(document(108.0, 22, 6, flex_deadline_unix_seconds=None), "pocket")
    assert isinstance(none.flex_deadline_unix_seconds, Missing)


def interactive(completed: int, judged: int, in_time: int, met: int) -> dict[str, Any]:
    counts = {"completed": completed, "judged": judged, "in_time": in_time, "met": met}
    return {"interactive_total": counts}


def test_met_shares_are_of_what_ended_since_the_last_reading() -> None:
    reader = GatewayReader()
    first = reader.read(document(100.0, 10, 4, **interactive(4, 4, 0, 0)), "pocket")
    assert isinstance(first.slo_met_ratio, Missing)
    second = reader.read(document(104.0, 30, 24, **interactive(20, 24, 15, 10)), "pocket")
    assert second.slo_met_ratio == Measured(0.5, 104.0)
    assert second.ttft_met_ratio == Measured(0.75, 104.0)
    assert second.interactive_completed_per_second == Measured(4.0, 104.0)
    idle = reader.read(document(108.0, 30, 24, **interactive(20, 24, 15, 10)), "pocket")
    assert idle.slo_met_ratio == Missing("NoSamples")
    assert idle.interactive_completed_per_second == Measured(0.0, 108.0)


def test_a_gateway_that_judges_nothing_leaves_the_met_shares_missing() -> None:
    reader = GatewayReader()
    reader.read(document(100.0, 10, 4), "pocket")
    old = reader.read(document(104.0, 12, 6), "pocket")
    assert isinstance(old.slo_met_ratio, Missing)
    assert isinstance(old.interactive_completed_per_second, Missing)
    reader.read(document(106.0, 12, 6, interactive_total={"completed": 6}), "pocket")
    no_promise = reader.read(document(108.0, 14, 8, interactive_total={"completed": 8}), "pocket")
    assert isinstance(no_promise.slo_met_ratio, Missing)
    assert isinstance(no_promise.ttft_met_ratio, Missing)
    assert no_promise.interactive_completed_per_second == Measured(1.0, 108.0)


def test_a_restarted_gateway_has_no_rate_instead_of_a_negative_one() -> None:
    reader = GatewayReader()
    reader.read(document(100.0, 500, 400), "pocket")
    after = reader.read(document(103.0, 2, 1), "pocket")
    assert isinstance(after.arrivals_per_second.default, Missing)
    assert isinstance(after.mean_output_tokens, Missing)


def test_a_window_without_samples_has_no_latency() -> None:
    signals = GatewayReader().read(document(100.0, 1, 1), "pocket")
    assert signals.tpot == Missing("NoSamples")
    assert isinstance(signals.ttft, Measured)
    assert signals.ttft.value.at_percentile(95) == 0.5


def test_a_silent_gateway_leaves_its_last_words_marked_stale() -> None:
    reader = GatewayReader()
    reader.read(document(100.0, 10, 4), "pocket")
    lost = reader.lose()
    assert lost.waiting_requests.default == Stale(3.0, 100.0)
    assert lost.in_flight_requests == Stale(5.0, 100.0)
    assert oldest_unix_seconds(lost) == 100.0
    assert reader.read({"at": 103.0, "models": {}}, "pocket").in_flight_requests == Stale(
        5.0, 100.0
    )


def test_a_gateway_that_never_spoke_is_missing() -> None:
    lost = GatewayReader().lose()
    assert isinstance(lost.in_flight_requests, Missing)
    assert oldest_unix_seconds(lost) is None


METRICS = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="pocket"} 3.0
vllm:num_requests_running{engine="1",model_name="pocket"} 2.0
vllm:num_requests_waiting{engine="0",model_name="pocket"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 7.0
vllm:kv_cache_usage_perc{engine="0",model_name="pocket"} 0.25
vllm:generation_tokens_total{engine="0",model_name="pocket"} 1000.0
vllm:prompt_tokens_total{engine="0",model_name="pocket"} 400.0
vllm:e2e_request_latency_seconds_bucket{le="0.3"} 12.0
"""


def test_engines_of_all_ranks_are_summed_and_similar_names_left_alone() -> None:
    found = parse_engine_metrics(METRICS)
    assert found["vllm:num_requests_running"] == 5.0
    assert found["vllm:num_requests_waiting"] == 1.0
    assert "vllm:e2e_request_latency_seconds_bucket" not in found


def test_one_silent_engine_makes_the_sum_unknown() -> None:
    reader = EngineReader()
    values = parse_engine_metrics(METRICS)
    both = reader.read({"a": values, "b": values}, 100.0)
    assert both.running_requests == Measured(10.0, 100.0)
    assert isinstance(reader.read({"a": values, "b": None}, 103.0).running_requests, Missing)


def test_token_rates_are_of_engines_seen_before() -> None:
    reader = EngineReader()
    reader.read({"a": {"vllm:generation_tokens_total": 1000.0}}, 100.0)
    both = reader.read(
        {
            "a": {"vllm:generation_tokens_total": 1300.0},
            "new": {"vllm:generation_tokens_total": 9000.0},
        },
        103.0,
    )
    assert both.output_tokens_per_second == Measured(100.0, 103.0)


def engine(requests: float, seconds: float, fast: float, **more: float) -> dict[str, float]:
    """Return counters: of ``requests`` ended ones ``fast`` took at most 20 ms per token."""
    name = "vllm:request_time_per_output_token_seconds"
    return {
        f"{name}_count": requests,
        f"{name}_sum": seconds,
        f"{name}_bucket:0.02": fast,
        f"{name}_bucket:0.05": requests,
        f"{name}_bucket:+Inf": requests,
        **more,
    }


def test_time_per_output_token_is_of_the_requests_of_the_window() -> None:
    reader = EngineReader()
    assert reader.read({"a": engine(1000, 90.0, 0)}, 100.0).tpot == Missing("NoSamples")
    found = reader.read({"a": engine(1010, 90.3, 9), "b": engine(50, 2.0, 50)}, 115.0).tpot
    # What the new engine did before it was first seen belongs to no window.
    assert isinstance(found, Measured)
    assert found.value.samples == 10
    assert found.value.mean_seconds == pytest.approx(0.03)
    assert found.value.quantiles == ((0.5, 0.02), (0.9, 0.02), (0.95, 0.05), (0.99, 0.05))
    later = reader.read({"a": engine(1010, 90.3, 9), "b": engine(60, 2.2, 60)}, 170.0).tpot
    assert isinstance(later, Measured)
    assert (later.value.samples, later.value.at_percentile(99)) == (10, 0.02)


def test_an_engine_that_was_restarted_teaches_nothing_until_it_counts_again() -> None:
    reader = EngineReader()
    reader.read({"a": engine(1000, 90.0, 1000)}, 100.0)
    assert isinstance(reader.read({"a": engine(10, 0.2, 10)}, 115.0).tpot, Missing)


def test_histogram_buckets_are_read_from_the_text() -> None:
    text = METRICS + (
        "# TYPE vllm:request_time_per_output_token_seconds histogram\n"
        'vllm:request_time_per_output_token_seconds_bucket{engine="0",le="0.01"} 3.0\n'
        'vllm:request_time_per_output_token_seconds_bucket{engine="1",le="0.01"} 4.0\n'
        'vllm:request_time_per_output_token_seconds_bucket{engine="0",le="+Inf"} 5.0\n'
        'vllm:request_time_per_output_token_seconds_count{engine="0"} 5.0\n'
        'vllm:request_time_per_output_token_seconds_sum{engine="0"} 0.25\n'
    )
    found = parse_engine_metrics(text)
    assert found["vllm:request_time_per_output_token_seconds_bucket:0.01"] == 7.0
    assert found["vllm:request_time_per_output_token_seconds_sum"] == 0.25


def test_cached_prompt_tokens_are_not_computed_ones() -> None:
    reader = EngineReader()
    names = ("vllm:prompt_tokens_total", "vllm:prompt_tokens_cached_total")
    reader.read({"a": dict(zip(names, (100.0, 10.0), strict=True))}, 100.0)
    found = reader.read({"a": dict(zip(names, (200.0, 70.0), strict=True))}, 110.0)
    assert found.input_tokens_per_second == Measured(4.0, 110.0)
    assert found.cached_tokens_per_second == Measured(6.0, 110.0)
