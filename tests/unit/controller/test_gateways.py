"""Several gateways are one demand."""

from __future__ import annotations

from typing import Any

import pytest

from trierarch.autoscaling.signals import Measured
from trierarch.controller.gateways import merge_signals
from trierarch.controller.observing import GatewayReader


def entry(**changes: Any) -> dict[str, Any]:
    """Return what one process says of a model."""
    return {
        "arrivals_total": 10,
        "tier_arrivals_total": {"priority": 2, "default": 8, "flex": 0},
        "completed_total": 6,
        "ended_total": {"completed": 6, "shed": 1},
        "tokens_total": {"input": 600, "cached": 0, "output": 60},
        "interactive_total": {"completed": 6, "judged": 6, "in_time": 6, "met": 5},
        "waiting": {"priority": 0, "default": 3, "flex": 0},
        "waiting_tokens": {"priority": 0, "default": 300, "flex": 0},
        "in_flight": 4,
        "flex_in_flight": 0,
        "flex_deadline_unix_seconds": None,
        "flex_patience_seconds": 600.0,
        "queue_wait_seconds_p95": 0.1,
        "queue_wait_seconds": {"count": 0},
        "ttft_seconds": {"count": 6, "mean": 0.2, "p50": 0.2, "p90": 0.3, "p95": 0.3, "p99": 0.4},
        "tpot_seconds": {"count": 0},
        "expected_output_tokens": 10.0,
        "replicas": {"one": {"in_flight": 4, "outstanding_tokens": 400}},
    } | changes


def document(at: float = 100.0, **changes: Any) -> dict[str, Any]:
    return {"at": at, "models": {"m": entry(**changes)}}


def test_one_process_is_told_as_it_is() -> None:
    assert merge_signals([document()]) == document()


def test_counts_are_added_and_the_rest_is_not() -> None:
    slow = {"count": 2, "mean": 1.0, "p50": 1.0, "p90": 1.1, "p95": 1.1, "p99": 1.2}
    merged = merge_signals(
        [
            document(at=100.0, flex_deadline_unix_seconds=500.0),
            document(at=99.0, arrivals_total=30, ttft_seconds=slow),
            {"at": 98.0, "models": {"other": entry()}},
        ]
    )
    assert merged["at"] == 98.0
    assert merged["models"].keys() == {"m", "other"}
    found = merged["models"]["m"]
    assert found["arrivals_total"] == 40
    assert found["waiting"] == {"priority": 0, "default": 6, "flex": 0}
    assert found["replicas"]["one"] == {"in_flight": 8, "outstanding_tokens": 800}
    assert found["ttft_seconds"]["count"] == 8
    assert found["ttft_seconds"]["mean"] == pytest.approx((6 * 0.2 + 2 * 1.0) / 8)
    assert found["queue_wait_seconds"] == {"count": 0}
    assert (found["flex_deadline_unix_seconds"], found["flex_patience_seconds"]) == (500.0, 600.0)


def test_a_reader_understands_what_was_merged() -> None:
    reader = GatewayReader()
    reader.read(merge_signals([document(100.0), document(100.0)]), "m")
    later = [document(110.0, tier_arrivals_total={"default": 18}), document(110.0)]
    signals = reader.read(merge_signals(later), "m")
    assert signals.waiting_requests.default == Measured(6.0, 110.0)
    assert signals.in_flight_requests == Measured(8.0, 110.0)


def test_a_change_of_processes_has_no_rate() -> None:
    reader = GatewayReader()
    reader.read(document(100.0) | {"epoch": 1}, "m")
    grown = reader.read(document(110.0, tier_arrivals_total={"default": 58}) | {"epoch": 1}, "m")
    assert grown.arrivals_per_second.default == Measured(5.0, 110.0)
    other = reader.read(document(120.0, tier_arrivals_total={"default": 99}) | {"epoch": 2}, "m")
    assert not isinstance(other.arrivals_per_second.default, Measured)
