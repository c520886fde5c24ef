"""How failures keep a replica out of the choice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trierarch.routing.ejection import (
    FIRST_EJECTION_SECONDS,
    HEALTHY,
    MAX_EJECTION_SECONDS,
    SERVER_ERRORS_BEFORE_EJECTION,
    FailureKind,
    after_failure,
)

AT_ONCE = [kind for kind in FailureKind if kind is not FailureKind.SERVER_ERROR]


@pytest.mark.parametrize("kind", AT_ONCE, ids=str)
def test_a_replica_that_cannot_be_reached_is_ejected_at_once(kind: FailureKind) -> None:
    health = after_failure(HEALTHY, kind, now_seconds=10.0)
    assert health.ejected_until_seconds == 10.0 + FIRST_EJECTION_SECONDS


def test_a_single_server_error_may_be_the_requests_fault() -> None:
    health = HEALTHY
    for _ in range(SERVER_ERRORS_BEFORE_EJECTION - 1):
        health = after_failure(health, FailureKind.SERVER_ERROR, now_seconds=10.0)
        assert health.ejected_until_seconds < 10.0
    health = after_failure(health, FailureKind.SERVER_ERROR, now_seconds=10.0)
    assert health.ejected_until_seconds > 10.0


def test_each_ejection_in_a_row_lasts_twice_as_long_up_to_the_limit() -> None:
    health, now = HEALTHY, 0.0
    durations = []
    for _ in range(8):
        health = after_failure(health, FailureKind.CONNECT, now_seconds=now)
        durations.append(health.ejected_until_seconds - now)
        now = health.ejected_until_seconds
    assert durations == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_failures_during_an_ejection_do_not_prolong_it() -> None:
    first = after_failure(HEALTHY, FailureKind.RESET, now_seconds=0.0)
    again = after_failure(first, FailureKind.RESET, now_seconds=0.5)
    assert again.ejected_until_seconds == first.ejected_until_seconds
    assert again.consecutive_failures == 2


@given(st.lists(st.tuples(st.sampled_from(FailureKind), st.floats(0, 100)), max_size=40))
def test_no_ejection_is_longer_than_the_limit(steps: list[tuple[FailureKind, float]]) -> None:
    health, now = HEALTHY, 0.0
    for kind, pause in steps:
        now += pause
        health = after_failure(health, kind, now_seconds=now)
        assert health.ejected_until_seconds <= now + MAX_EJECTION_SECONDS
