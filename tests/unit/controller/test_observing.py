"""Counters become rates, silence becomes stale, and nothing unknown becomes zero."""

from __future__ import annotations

from typing import Any

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
