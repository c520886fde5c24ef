"""A replica tells the controller where it listens and what it can do now.

Ray knows that a process lives, not that its engine serves, nor on which port.
The heartbeat runs in a thread of its own: loading weights blocks the event loop
for longer than a controller would wait. Where the controller's name has several
addresses, each is told: one of several operators leads, and any of them answers
gateways.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict

from trierarch.adapters.addresses import resolve_addresses
from trierarch.core.clock import Clock

_logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
"""Between two announcements when nothing has changed."""

_TIMEOUT_SECONDS = 5.0
_CONNECT_SECONDS = 1.0
"""An address whose machine is gone must not hold up the others for longer."""

_RESOLVE_SECONDS = 5.0
"""Between two looks at the addresses of the controller's name."""


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
        clock: Time.
    """

    def __init__(
        self, target: AnnouncementTarget, describe: Callable[[], dict[str, Any]], clock: Clock
    ) -> None:
        self._target = target
        self._describe = describe
        self._clock = clock
        self._wake = threading.Event()
        self._sent = threading.Condition()
        self._generation = 0
        self._sent_generation = 0
        self._failing: set[str] = set()
        self._urls: list[httpx.URL] = []
        self._resolved_seconds = float("-inf")
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
        timeout = httpx.Timeout(_TIMEOUT_SECONDS, connect=_CONNECT_SECONDS)
        with httpx.Client(timeout=timeout, trust_env=False) as client:
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
        """Announce to every address; return whether all have taken it."""
        try:
            token = Path(self._target.token_file).read_text(encoding="ascii").strip()
            urls = self._resolve()
        except OSError as error:
            self._note(self._target.url, error)
            return False
        self._note(self._target.url, None)
        document = self._describe()
        headers = {
            "authorization": f"Bearer {token}",
            "host": httpx.URL(self._target.url).netloc.decode(),
        }
        is_taken = True
        for url in urls:
            problem = None
            try:
                client.post(url, json=document, headers=headers).raise_for_status()
            except httpx.HTTPError as error:
                # A controller that restarts is no reason to stop serving.
                problem, is_taken = error, False
            self._note(str(url), problem)
        return is_taken

    def _resolve(self) -> list[httpx.URL]:
        """Return the target with each of its addresses in the place of its name.

        Raises:
            OSError: If the name has none.
        """
        now_seconds = self._clock.monotonic_seconds()
        if now_seconds - self._resolved_seconds >= _RESOLVE_SECONDS:
            url = httpx.URL(self._target.url)
            addresses = resolve_addresses(url.host, url.port or 80)
            self._urls = [url.copy_with(host=address) for address in addresses]
            self._resolved_seconds = now_seconds
        return self._urls

    def _note(self, where: str, problem: Exception | None) -> None:
        """Log the first of several failures in a row, and their end."""
        if problem is not None and where not in self._failing:
            self._failing.add(where)
            _logger.warning("cannot announce to %s: %s", where, problem)
        elif problem is None and where in self._failing:
            self._failing.discard(where)
            _logger.info("announcements to %s arrive again", where)
