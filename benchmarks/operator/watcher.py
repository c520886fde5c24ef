"""Times at which objects are written, as a watch of the API server tells them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

Moment = Callable[[str, Mapping[str, Any]], str | None]
"""Returns what an event is the moment of, from its type and its object; None of nothing."""


class Watcher:
    """Watches one list in a thread and notes the first time of each moment.

    Args:
        client: For the watch; its owner closes it.
        path: Of the list.
        moment: Names events.
    """

    def __init__(self, client: httpx.Client, path: str, moment: Moment) -> None:
        self.times: dict[str, float] = {}
        self._client = client
        self._path = path
        self._moment = moment
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._is_closed = False
        self._began = threading.Event()

    def __enter__(self) -> Watcher:
        """Begin to watch."""
        self._thread.start()
        self._began.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        """End with the next event."""
        self._is_closed = True

    def _run(self) -> None:
        try:
            self._watch()
        except httpx.HTTPError:
            # The server ends a watch when it ends; before that it is an error.
            if not self._is_closed:
                raise

    def _watch(self) -> None:
        version = self._client.get(self._path, params={"limit": 1}).json()["metadata"]
        query = {"watch": "true", "resourceVersion": version["resourceVersion"]}
        with self._client.stream("GET", self._path, params=query, timeout=None) as answer:
            self._began.set()
            for line in answer.iter_lines():
                now_seconds = time.perf_counter()
                event = json.loads(line)
                name = self._moment(event["type"], event["object"])
                if name is not None:
                    self.times.setdefault(name, now_seconds)
                if self._is_closed:
                    return

    def wait_for(self, names: set[str], seconds: float) -> None:
        """Wait until every moment was seen.

        Raises:
            TimeoutError: If one was not; says how many.
        """
        deadline = time.perf_counter() + seconds
        while not names <= self.times.keys():
            if time.perf_counter() > deadline:
                missing = len(names - self.times.keys())
                raise TimeoutError(f"{missing} of {len(names)} were not seen on {self._path}")
            time.sleep(0.05)
