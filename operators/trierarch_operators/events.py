"""Kubernetes Events: what an operator did to an object, for ``kubectl describe``."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from trierarch.adapters.kubernetes import EVENTS, KubernetesApi
from trierarch.core.clock import Clock
from trierarch.core.errors import TrierarchError

_logger = logging.getLogger(__name__)

_MOST_NOTE_LENGTH = 1024
"""The API server refuses longer ones."""

_MOST_WAITING = 1_000
"""While the API server is slow; further ones are left out, which is logged."""

_FLUSH_SECONDS = 2.0


class EventRecorder:
    """Writes Events behind the work that they tell of; one that cannot be written is logged.

    Args:
        api: The API server.
        controller: Who did it, for example ``trierarch.dev/model-deployment``.
        instance: Which process.
        clock: Time.
    """

    def __init__(self, api: KubernetesApi, controller: str, instance: str, clock: Clock) -> None:
        self._api = api
        self._controller = controller
        self._instance = instance
        self._clock = clock
        self._waiting: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(_MOST_WAITING)

    def record(
        self,
        regarding: Mapping[str, Any],
        action: str,
        reason: str,
        note: str,
        kind: Literal["Normal", "Warning"] = "Normal",
    ) -> None:
        """Have one Event written soon.

        Args:
            regarding: The object.
            action: What was done, one CamelCase word.
            reason: Why, one CamelCase word.
            note: A sentence.
            kind: Whether a person should look.
        """
        metadata = regarding["metadata"]
        now = datetime.fromtimestamp(self._clock.unix_seconds(), tz=UTC)
        namespace = metadata.get("namespace", "default")
        event = {
            "apiVersion": EVENTS.api_version,
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name']}.{secrets.token_hex(8)}",
                "namespace": namespace,
            },
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": kind,
            "action": action,
            "reason": reason,
            "note": note[:_MOST_NOTE_LENGTH],
            "reportingController": self._controller,
            "reportingInstance": self._instance,
            "regarding": {
                "apiVersion": regarding["apiVersion"],
                "kind": regarding["kind"],
                "name": metadata["name"],
                "namespace": metadata.get("namespace", ""),
                "uid": metadata.get("uid", ""),
            },
        }
        try:
            self._waiting.put_nowait((namespace, event))
        except asyncio.QueueFull:
            _logger.warning("an Event was left out, %d wait: %s", _MOST_WAITING, note)

    async def run(self) -> None:
        """Write what is recorded, one after the other, for ever."""
        while True:
            namespace, event = await self._waiting.get()
            try:
                await self._api.create(EVENTS, namespace, event)
            except TrierarchError as error:
                _logger.warning("an Event was not written: %s", error)
            finally:
                self._waiting.task_done()

    async def flush(self) -> None:
        """Write what still waits, as far as a moment allows; for the end of the process."""
        writing = asyncio.ensure_future(self.run())
        try:
            await asyncio.wait_for(self._waiting.join(), _FLUSH_SECONDS)
        except TimeoutError:
            _logger.warning("%d Events were not written at the end", self._waiting.qsize())
        finally:
            writing.cancel()
