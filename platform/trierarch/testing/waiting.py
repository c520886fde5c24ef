"""Wait for a fact instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], *, timeout_seconds: float = 60.0) -> None:
    """Return as soon as ``condition`` holds.

    Raises:
        AssertionError: If it does not hold in time.
    """
    deadline_seconds = time.perf_counter() + timeout_seconds
    while not condition():
        if time.perf_counter() > deadline_seconds:
            raise AssertionError(f"did not happen within {timeout_seconds} s")
        time.sleep(0.01)
