"""Kubernetes Events: what an operator did to an object, for ``kubectl describe``."""

from __future__ import annotations

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


class EventRecorder:
    """Writes Events; one that cannot be written is logged and stops nothing.

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

    async def record(
        self,
        regarding: Mapping[str, Any],
        action: str,
        reason: str,
        note: str,
        kind: Literal["Normal", "Warning"] = "Normal",
    ) -> None:
        """Write one Event.

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
            await self._api.create(EVENTS, namespace, event)
        except TrierarchError as error:
            _logger.warning("an Event was not written: %s", error)
