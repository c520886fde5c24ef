"""Wait for a fact instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable

SHORTEST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 0.5

PAUSES_PER_QUESTION = 4.0
"""How much longer than a question the pause after it is.

A question can be a request or a whole command; asked without a pause it would take a core from what
is waited for.
"""


def wait_until(condition: Callable[[], bool], *, timeout_seconds: float = 60.0) -> None:
    """Return soon after ``condition`` holds.

    Raises:
        AssertionError: If it does not hold in time.
    """
    deadline_seconds = time.perf_counter() + timeout_seconds
    while True:
        asked_seconds = time.perf_counter()
        if condition():
            return
        now_seconds = time.perf_counter()
        if now_seconds > deadline_seconds:
            raise AssertionError(f"did not happen within {timeout_seconds} s")
        pause_seconds = PAUSES_PER_QUESTION * (now_seconds - asked_seconds)
        time.sleep(min(max(pause_seconds, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS))
