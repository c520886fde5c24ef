"""Which objects have to be looked at, and when: each at most once at a time.

A failure is followed by a pause that doubles, so that one broken object takes no
time from the others. Time and sleeping come from the event loop.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable

from trierarch.core.errors import TrierarchError
from trierarch_operators.object_cache import Key

_logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 120.0

Reconcile = Callable[[Key], Awaitable[float | None]]
"""Looks at one object; returns after how many seconds to look again, or None."""


class WorkQueue:
    """Keys to look at.

    Args:
        reconcile: Looks at one object; may fail.
        first_pause_seconds: After a failure; doubles with each that follows.
    """

    def __init__(
        self, reconcile: Reconcile, first_pause_seconds: float = FIRST_PAUSE_SECONDS
    ) -> None:
        self._reconcile = reconcile
        self._first_pause_seconds = first_pause_seconds
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = 0
        self._busy: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()

    def add(self, key: Key, after_seconds: float = 0.0) -> None:
        """Look at an object, at once or later; the earliest wish counts."""
        if key in self._busy and after_seconds <= 0:
            self._again.add(key)
            return
        due_seconds = asyncio.get_running_loop().time() + after_seconds
        if self._due.get(key, float("inf")) <= due_seconds:
            return
        self._due[key] = due_seconds
        self._order += 1
        heapq.heappush(self._heap, (due_seconds, self._order, key))
        self._wake.set()

    def forget(self, key: Key) -> None:
        """Drop what is planned for an object that is gone."""
        self._due.pop(key, None)
        self._failures.pop(key, None)

    @property
    def waiting(self) -> int:
        """Objects that are planned."""
        return len(self._due)

    async def work(self) -> None:
        """Look at objects for ever; run as many of these side by side as there are workers."""
        while True:
            key = await self._next()
            self._busy.add(key)
            try:
                after_seconds = await self._try(key)
            finally:
                self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                after_seconds = 0.0
            if after_seconds is not None:
                self.add(key, after_seconds)

    async def _try(self, key: Key) -> float | None:
        try:
            after_seconds = await self._reconcile(key)
        except TrierarchError as error:
            _logger.warning("%s: %s", key, error)
        except Exception:  # a defect in one object's data must not stop the others
            _logger.exception("%s: an error in the operator itself", key)
        else:
            self._failures.pop(key, None)
            return after_seconds
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause_seconds = self._first_pause_seconds * 2.0 ** min(failures - 1, 16)
        return min(pause_seconds, LONGEST_PAUSE_SECONDS)

    async def _next(self) -> Key:
        loop = asyncio.get_running_loop()
        while True:
            while self._heap:
                due_seconds, _, key = self._heap[0]
                if self._due.get(key) != due_seconds:
                    heapq.heappop(self._heap)
                    continue
                wait_seconds = due_seconds - loop.time()
                if wait_seconds > 0:
                    break
                heapq.heappop(self._heap)
                if key in self._busy:
                    del self._due[key]
                    self._again.add(key)
                    continue
                del self._due[key]
                return key
            self._wake.clear()
            wait = self._heap[0][0] - loop.time() if self._heap else None
            try:
                await asyncio.wait_for(self._wake.wait(), wait)
            except TimeoutError:
                continue
