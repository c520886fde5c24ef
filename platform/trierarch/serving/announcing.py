"""A replica tells the controller where it listens and what it can do now.

Ray knows that a process lives, not that its engine serves, nor on which port.
The heartbeat runs in a thread of its own: loading weights blocks the event loop
for longer than a controller would wait.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict

_logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
"""Between two announcements when nothing has changed."""

_TIMEOUT_SECONDS = 5.0


class AnnouncementTarget(BaseModel):
    """Where announcements go."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    url: str
    """Takes ``POST`` with one replica's JSON."""
    token_file: str
    """Holds the bearer token; only the owner of the run can read it."""


class Announcer:
    """Sends what ``describe`` returns, at once when told and then every second.

    Args:
        target: Where to.
        describe: Returns the announcement; called in the announcer's thread.
    """

    def __init__(self, target: AnnouncementTarget, describe: Callable[[], dict[str, Any]]) -> None:
        self._target = target
        self._describe = describe
        self._wake = threading.Event()
        self._sent = threading.Condition()
        self._generation = 0
        self._sent_generation = 0
        self._is_failing = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def tell(self, *, wait_seconds: float = 0.0) -> None:
        """Announce now; wait at most so long until the controller knows."""
        with self._sent:
            self._generation += 1
            wanted = self._generation
        self._wake.set()
        if wait_seconds > 0:
            with self._sent:
                self._sent.wait_for(lambda: self._sent_generation >= wanted, wait_seconds)

    def close(self) -> None:
        """End; nothing is announced any more."""
        self._is_closed = True
        self._wake.set()
        self._thread.join(_TIMEOUT_SECONDS)

    def _run(self) -> None:
        with httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            while not self._is_closed:
                with self._sent:
                    generation = self._generation
                if self._send(client):
                    with self._sent:
                        self._sent_generation = generation
                        self._sent.notify_all()
                self._wake.wait(INTERVAL_SECONDS)
                self._wake.clear()

    def _send(self, client: httpx.Client) -> bool:
        try:
            token = Path(self._target.token_file).read_text(encoding="ascii").strip()
            answer = client.post(
                self._target.url,
                json=self._describe(),
                headers={"authorization": f"Bearer {token}"},
            )
            answer.raise_for_status()
        except (httpx.HTTPError, OSError) as error:
            # A controller that restarts is no reason to stop serving.
            if not self._is_failing:
                _logger.warning("cannot announce to %s: %s", self._target.url, error)
            self._is_failing = True
            return False
        if self._is_failing:
            _logger.info("announcements arrive again")
        self._is_failing = False
        return True
