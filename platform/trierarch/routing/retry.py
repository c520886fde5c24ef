"""What to do after an attempt failed.

A request goes to a replica at most once. After the first byte was sent to the
client it goes on only where what was sent can be continued. If no other replica
is ready, what failed decides: a replica that is gone will be replaced, so the
request waits for the replacement; a replica that answered with an error would
do so again, so the client hears it.
"""

from __future__ import annotations

from enum import StrEnum

from trierarch.routing.ejection import FailureKind


class RetryVerdict(StrEnum):
    """The three ways on."""

    RETRY_NOW = "RetryNow"
    WAIT_FOR_REPLICA = "WaitForReplica"
    GIVE_UP = "GiveUp"


def decide_retry(
    kind: FailureKind,
    *,
    failed_attempts: int,
    max_attempts: int,
    other_replica_ready: bool,
    is_over: bool,
) -> RetryVerdict:
    """Return what a request may do next.

    Args:
        kind: How the last attempt failed.
        failed_attempts: Attempts so far, this one included.
        max_attempts: Limit for one request.
        other_replica_ready: Whether a replica it has not failed on is ready (it may be full).
        is_over: The client saw part of an answer that cannot be continued.
    """
    if is_over or failed_attempts >= max_attempts or kind is FailureKind.TIMEOUT:
        return RetryVerdict.GIVE_UP
    if other_replica_ready:
        return RetryVerdict.RETRY_NOW
    if kind is FailureKind.SERVER_ERROR:
        return RetryVerdict.GIVE_UP
    return RetryVerdict.WAIT_FOR_REPLICA
