"""Time as an argument: the one module that reads a clock.

Decisions take instants and durations as plain numbers; shells hold a ``Clock``.
Wall time (``unix_seconds``) is for records that people and ledgers read,
monotonic time (``monotonic_seconds``) for measuring how long something took.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What a shell needs to know about time."""

    def unix_seconds(self) -> float:
        """Return the wall time in seconds since 1970-01-01 UTC."""
        ...

    def monotonic_seconds(self) -> float:
        """Return a time that never goes back; only differences have a meaning."""
        ...


class SystemClock:
    """The machine's own clock."""

    def unix_seconds(self) -> float:
        """Return the wall time in seconds since 1970-01-01 UTC."""
        return time.time()

    def monotonic_seconds(self) -> float:
        """Return a time that never goes back; only differences have a meaning."""
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told to, for tests and virtual time."""

    def __init__(self, unix_seconds: float = 0.0) -> None:
        self._now_seconds = unix_seconds

    def unix_seconds(self) -> float:
        """Return the time set so far."""
        return self._now_seconds

    def monotonic_seconds(self) -> float:
        """Return the time set so far."""
        return self._now_seconds

    def advance(self, seconds: float) -> None:
        """Move forward by ``seconds``.

        Raises:
            ValueError: If ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError(f"a clock cannot go back by {-seconds} seconds")
        self._now_seconds += seconds


def utc_datetime(unix_seconds: float) -> datetime:
    """Return the instant as an aware UTC datetime."""
    return datetime.fromtimestamp(unix_seconds, tz=UTC)
