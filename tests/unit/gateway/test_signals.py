"""What the autoscaler reads."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trierarch.core.quantities import TokenCounts
from trierarch.core.usage import Outcome
from trierarch.gateway.signals import (
    FIRST_GUESS_OUTPUT_TOKENS,
    WINDOW_SECONDS,
    ModelSignals,
    RollingWindow,
    quantile,
)


def test_no_sample_is_null_and_not_zero() -> None:
    members = dict(ModelSignals().members(0.0))
    assert members["queue_wait_seconds_p95"] is None
    assert members["ttft_seconds"] == {
        "count": 0, "mean": None, "p50": None, "p90": None, "p95": None, "p99": None,
    }  # fmt: skip


def test_samples_leave_the_window() -> None:
    window = RollingWindow()
    window.add(0.0, 5.0)
    window.add(WINDOW_SECONDS, 1.0)
    assert window.values(WINDOW_SECONDS) == [1.0, 5.0]
    assert window.values(WINDOW_SECONDS + 0.1) == [1.0]


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.01, 1.0))
def test_a_quantile_is_a_sample_with_enough_samples_below(values: list[float], q: float) -> None:
    values.sort()
    found = quantile(values, q)
    assert found in values
    assert sum(value <= found for value in values) >= math.floor(q * len(values))


def test_ends_are_counted_by_outcome_and_only_completed_ones_teach() -> None:
    signals = ModelSignals()
    signals.note_end(Outcome.ABORTED, TokenCounts(5, 0, 1000))
    assert signals.expected_output_tokens == FIRST_GUESS_OUTPUT_TOKENS
    for _ in range(200):
        signals.note_end(Outcome.COMPLETED, TokenCounts(5, 2, 10))
    assert signals.expected_output_tokens == pytest.approx(10, abs=0.1)
    members = dict(signals.members(0.0))
    assert members["completed_total"] == 200
    assert members["ended_total"]["aborted"] == 1
    assert members["tokens_total"] == {"input": 1005, "cached": 400, "output": 3000}
