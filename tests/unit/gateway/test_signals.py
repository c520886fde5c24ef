"""What the autoscaler reads."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trierarch.core.objectives import LatencyPromise
from trierarch.core.quantities import TokenCounts
from trierarch.core.usage import Outcome
from trierarch.gateway.signals import (
    FIRST_GUESS_OUTPUT_TOKENS,
    WINDOW_SECONDS,
    InteractiveCounts,
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


def test_without_an_objective_nothing_is_judged() -> None:
    counts = InteractiveCounts()
    counts.note_end(Outcome.COMPLETED, 0.5, 0.02)
    assert counts.as_member() == {"completed": 1}


def test_requests_are_judged_by_the_objective_of_their_time() -> None:
    counts = InteractiveCounts()
    counts.promise = LatencyPromise(ttft_seconds=1.0, tpot_seconds=0.05)
    for outcome, first, per_token in (
        (Outcome.COMPLETED, 1.0, 0.05),
        (Outcome.COMPLETED, 1.1, 0.01),
        (Outcome.COMPLETED, 0.1, 0.06),
        (Outcome.COMPLETED, 0.1, None),
        # No stream, and a client that left: no first token to judge by.
        (Outcome.COMPLETED, None, None),
        (Outcome.ABORTED, 0.1, None),
        (Outcome.FAILED, 0.1, None),
        (Outcome.SHED, None, None),
    ):
        counts.note_end(outcome, first, per_token)
    assert counts.as_member() == {"completed": 5, "judged": 6, "in_time": 3, "met": 2}
    counts.promise = LatencyPromise(ttft_seconds=2.0)
    counts.note_end(Outcome.COMPLETED, 1.9, 9.0)
    assert counts.as_member() == {"completed": 6, "judged": 7, "in_time": 4, "met": 3}
