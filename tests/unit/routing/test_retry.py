"""What a request does after a failed attempt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trierarch.routing.ejection import FailureKind
from trierarch.routing.retry import RetryVerdict, decide_retry


@pytest.mark.parametrize(
    ("kind", "failed", "other_ready", "sent", "expected"),
    [
        pytest.param(FailureKind.CONNECT, 1, True, False, RetryVerdict.RETRY_NOW, id="another"),
        pytest.param(
            FailureKind.CONNECT,
            1,
            False,
            False,
            RetryVerdict.WAIT_FOR_REPLICA,
            id="gone-is-awaited",
        ),
        pytest.param(
            FailureKind.RESET,
            1,
            False,
            False,
            RetryVerdict.WAIT_FOR_REPLICA,
            id="killed-is-awaited",
        ),
        pytest.param(
            FailureKind.UNAVAILABLE,
            1,
            False,
            False,
            RetryVerdict.WAIT_FOR_REPLICA,
            id="draining-is-awaited",
        ),
        pytest.param(
            FailureKind.SERVER_ERROR, 1, True, False, RetryVerdict.RETRY_NOW, id="error-elsewhere"
        ),
        pytest.param(
            FailureKind.SERVER_ERROR, 1, False, False, RetryVerdict.GIVE_UP, id="error-is-told"
        ),
        pytest.param(FailureKind.TIMEOUT, 1, True, False, RetryVerdict.GIVE_UP, id="time-is-over"),
        pytest.param(FailureKind.CONNECT, 3, True, False, RetryVerdict.GIVE_UP, id="attempts-used"),
        pytest.param(
            FailureKind.RESET, 1, True, True, RetryVerdict.GIVE_UP, id="cannot-be-continued"
        ),
    ],
)
def test_verdicts(
    kind: FailureKind, failed: int, other_ready: bool, sent: bool, expected: RetryVerdict
) -> None:
    verdict = decide_retry(
        kind,
        failed_attempts=failed,
        max_attempts=3,
        other_replica_ready=other_ready,
        is_over=sent,
    )
    assert verdict is expected


@given(st.sampled_from(FailureKind), st.integers(1, 9), st.integers(1, 5), st.booleans())
def test_nothing_is_repeated_of_what_cannot_be_continued(
    kind: FailureKind, failed: int, limit: int, other_ready: bool
) -> None:
    verdict = decide_retry(
        kind,
        failed_attempts=failed,
        max_attempts=limit,
        other_replica_ready=other_ready,
        is_over=True,
    )
    assert verdict is RetryVerdict.GIVE_UP
