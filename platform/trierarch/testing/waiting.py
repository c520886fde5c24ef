"""Wait for a fact instead of for a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

SHORTEST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 0.5

REST_PER_WORK = 4.0
"""How much longer than the work of a question the pause after it is.

A question can be a request or a whole command; asked without a pause it would take a core from what
is waited for. Its work counts and not its time, which on a busy machine is mostly waiting.
"""


def wait_until(condition: Callable[[], bool], *, timeout_seconds: float = 60.0) -> None:
    """Return soon after ``condition`` holds.

    Raises:
        AssertionError: If it does not hold in time.
    """
    deadline_seconds = time.perf_counter() + timeout_seconds
    while True:
        before_seconds = _work_seconds()
        if condition():
            return
        if time.perf_counter() > deadline_seconds:
            raise AssertionError(f"did not happen within {timeout_seconds} s")
        pause_seconds = REST_PER_WORK * (_work_seconds() - before_seconds)
        time.sleep(min(max(pause_seconds, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS))


def _work_seconds() -> float:
    """Return the processor time of this thread and of the commands that have ended."""
    used = os.times()
    return time.thread_time() + used.children_user + used.children_system
