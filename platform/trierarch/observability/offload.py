"""Do slow telemetry work in a thread, in batches, and never wait for it.

The event loop only appends to a queue. What the reader of spans or log lines
cannot take in time is dropped and counted: telemetry must not slow an answer.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

_logger = logging.getLogger(__name__)

Entry = TypeVar("Entry")

FLUSH_INTERVAL_SECONDS = 0.2
"""How late a span or a log line may be written; also what a crash can lose."""


class BatchWriter(Generic[Entry]):
    """Collects entries and hands them to ``write`` in its own thread.

    Args:
        name: Of the thread, and in log lines.
        write: Takes a batch; may block; an exception loses that batch and is logged.
        capacity_entries: Entries that may wait; further ones are dropped.
        on_drop: Called with the number dropped, from the thread that dropped them.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Sequence[Entry]], None],
        *,
        capacity_entries: int = 50_000,
        on_drop: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self._name = name
        self._write = write
        self._capacity_entries = capacity_entries
        self._on_drop = on_drop
        self._entries: deque[Entry] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin writing."""
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Accept an entry without blocking."""
        if len(self._entries) >= self._capacity_entries:
            self._on_drop(1)
            return
        self._entries.append(entry)

    def close(self, *, timeout_seconds: float = 5.0) -> None:
        """Write what is left and end the thread, waiting for it at most that long."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_INTERVAL_SECONDS):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        batch = [self._entries.popleft() for _ in range(len(self._entries))]
        if not batch:
            return
        try:
            self._write(batch)
        except Exception:
            self._on_drop(len(batch))
            _logger.exception("%s lost %d entries", self._name, len(batch))
