"""Say what takes long: one live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TextIO

PLAIN_INTERVAL_SECONDS = 15.0
"""A log that is read afterwards wants a sign of life, not ten a second."""

LINE_COLUMNS = 100
"""Longer lines wrap: a live one is then not overwritten, a plain one hides what matters."""


def describe_seconds(seconds: float) -> str:
    """Return a duration as people say it: ``8 s``, ``2 min 05 s``."""
    whole = int(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


@dataclasses.dataclass
class Step:
    """One named piece of work that may take a while.

    Attributes:
        name: What is being done, for the user.
        stream: Where progress is written.
        live: Overwrite one line; false where nobody is watching a terminal.
        now_seconds: A monotonic clock.
    """

    name: str
    stream: TextIO
    live: bool
    now_seconds: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._started_seconds = self.now_seconds()
        self._last_seconds = self._started_seconds
        self._write(f"{self.name} ...", end=not self.live)

    @property
    def elapsed_seconds(self) -> float:
        """Time since the step began."""
        return self.now_seconds() - self._started_seconds

    def tick(self, detail: str = "") -> None:
        """Show that the step is alive.

        Args:
            detail: The latest thing that happened.
        """
        interval = 0.0 if self.live else PLAIN_INTERVAL_SECONDS
        if self.now_seconds() - self._last_seconds < interval:
            return
        self._last_seconds = self.now_seconds()
        tail = f" - {detail}" if detail else ""
        line = f"{self.name} ... {describe_seconds(self.elapsed_seconds)}{tail}"
        self._write(line, end=not self.live)

    def done(self, outcome: str = "done") -> None:
        """Close the step with its outcome and duration."""
        self._write(f"{self.name}: {outcome} ({describe_seconds(self.elapsed_seconds)})", end=True)

    def abandon(self) -> None:
        """Leave the cursor on a fresh line, for an error message that follows."""
        if self.live:
            self._write(self.name, end=True)

    def _write(self, line: str, *, end: bool) -> None:
        if self.live:
            erase = "\r\x1b[K"
            self.stream.write(f"{erase}{line[:LINE_COLUMNS]}" + ("\n" if end else ""))
        else:
            self.stream.write(f"{line[:LINE_COLUMNS]}\n")
        self.stream.flush()
