"""Keep a failing replica out of the choice for a short, growing time.

The replica list says what a replica should be able to do; a refused connection
says what it can do now, seconds earlier. A replica that cannot be reached is
ejected at once; one that answers with server errors only after several in a
row, because a single error may be the fault of the request. One success forgets
everything.
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum

FIRST_EJECTION_SECONDS = 1.0
"""Long enough for the next replica list to say what happened, short against a restart."""

MAX_EJECTION_SECONDS = 30.0
"""A replica that came back is tried again within half a minute."""

SERVER_ERRORS_BEFORE_EJECTION = 3
"""Consecutive 5xx answers that make the replica the suspect, not the request."""


class FailureKind(StrEnum):
    """How an attempt on a replica failed, before its first byte or in the middle of a stream."""

    CONNECT = "ConnectFailed"
    """No connection: refused, unreachable, timed out."""
    RESET = "ConnectionLost"
    """The connection ended before a complete answer."""
    TIMEOUT = "NoAnswerInTime"
    """The connection stands, the answer does not come."""
    UNAVAILABLE = "ReplicaUnavailable"
    """A 503: draining or overloaded."""
    SERVER_ERROR = "ServerError"
    """Any other 5xx: the replica lives, this request did not work."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReplicaHealth:
    """Failures since the last success.

    Attributes:
        consecutive_failures: All kinds.
        ejections: How often it was ejected in a row; doubles the time.
        ejected_until_seconds: Monotonic time until which it is not chosen.
    """

    consecutive_failures: int = 0
    ejections: int = 0
    ejected_until_seconds: float = float("-inf")


HEALTHY = ReplicaHealth()
"""A replica that has not failed since its last success."""


def after_failure(health: ReplicaHealth, kind: FailureKind, *, now_seconds: float) -> ReplicaHealth:
    """Return the health after one more failure."""
    failures = health.consecutive_failures + 1
    if kind is FailureKind.SERVER_ERROR and failures < SERVER_ERRORS_BEFORE_EJECTION:
        return dataclasses.replace(health, consecutive_failures=failures)
    if now_seconds < health.ejected_until_seconds:
        # Requests that were already on the way when it was ejected tell nothing new.
        return dataclasses.replace(health, consecutive_failures=failures)
    duration_seconds = min(MAX_EJECTION_SECONDS, FIRST_EJECTION_SECONDS * 2.0**health.ejections)
    return ReplicaHealth(
        consecutive_failures=failures,
        ejections=min(health.ejections + 1, 16),
        ejected_until_seconds=now_seconds + duration_seconds,
    )
