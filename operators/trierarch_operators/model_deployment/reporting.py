"""Writes what a reconciliation has found into the status, behind the work that people wait for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from trierarch.adapters.kubernetes import KubernetesApi
from trierarch.core.clock import Clock
from trierarch_operators.conditions import Finding, holds
from trierarch_operators.events import EventRecorder
from trierarch_operators.model_deployment.failures import REASONS
from trierarch_operators.model_deployment.status import (
    VariantState,
    build_status,
    find_conditions,
)
from trierarch_operators.object_cache import Key, Object, ObjectCache, key_of
from trierarch_operators.resources import MODEL_DEPLOYMENTS
from trierarch_operators.status_writes import apply_status
from trierarch_operators.work_queue import WorkQueue

FIELD_MANAGER = "trierarch-model-deployment"

GATHER_SECONDS = 0.5
"""What several looks find within this time is one write."""


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What one reconciliation has found.

    Attributes:
        uid: Of the object that was looked at.
        generation: Of its spec that was looked at.
        states: One for each variant.
    """

    uid: str
    generation: int
    states: tuple[VariantState, ...]
    is_paused: bool = False
    is_suspended: bool = False


class StatusReporter:
    """Keeps the last report of every model deployment until it is written, one at a time.

    Args:
        api: For writes.
        cache: What the status says now.
        events: Tells people when a model begins or ceases to serve.
        clock: Time.
    """

    def __init__(
        self, api: KubernetesApi, cache: ObjectCache, events: EventRecorder, clock: Clock
    ) -> None:
        self._api = api
        self._cache = cache
        self._events = events
        self._clock = clock
        self._reports: dict[Key, Report] = {}
        self._queue = WorkQueue(self._write)

    def report(
        self,
        found: Object,
        states: Sequence[VariantState],
        *,
        is_paused: bool = False,
        is_suspended: bool = False,
    ) -> None:
        """Have the status say this soon; it replaces what is not yet written."""
        metadata = found["metadata"]
        key = key_of(found)
        self._reports[key] = Report(
            metadata["uid"], metadata["generation"], tuple(states), is_paused, is_suspended
        )
        self._queue.add(key, GATHER_SECONDS)

    def forget(self, key: Key) -> None:
        """Drop what is not written of a deployment that is gone."""
        self._reports.pop(key, None)
        self._queue.forget(key)

    async def work(self) -> None:
        """Write reports for ever."""
        await self._queue.work()

    async def flush(self) -> None:
        """Write what still waits, for the end of the process.

        Raises:
            TrierarchError: If the API server will not take one.
        """
        for key in list(self._reports):
            await self._write(key)

    async def _write(self, key: Key) -> None:
        found = self._cache.get(MODEL_DEPLOYMENTS, key)
        report = self._reports.get(key)
        if found is None or report is None or found["metadata"]["uid"] != report.uid:
            return
        existing = found.get("status") or {}
        findings = find_conditions(
            report.states,
            is_paused=report.is_paused,
            is_suspended=report.is_suspended,
            is_deleting=bool(found["metadata"].get("deletionTimestamp")),
        )
        wanted = build_status(
            key.name,
            report.generation,
            existing,
            [state for state in report.states if state.name],
            findings,
            self._clock.unix_seconds(),
        )
        names = {entry["name"] for entry in wanted["variants"]}
        stale = {entry["name"] for entry in existing.get("variants", ())} - names
        if not holds(wanted, existing) or stale:
            await apply_status(self._api, self._cache, found, wanted, FIELD_MANAGER)
            self._tell(found, existing, findings)
        # A newer one may have come while this was written.
        if self._reports.get(key) is report:
            del self._reports[key]

    def _tell(
        self, found: Object, existing: Mapping[str, Any], findings: Sequence[Finding]
    ) -> None:
        """Tell people of a model that begins or ceases to serve, and of groups that fail.

        A new model does neither begin nor cease.
        """
        before = {one["type"]: one for one in existing.get("conditions", ())}
        for finding in findings:
            known = before.get(finding.type, {})
            if finding.type == "Available" and known.get("status", "False") != finding.status:
                kind: Literal["Normal", "Warning"] = (
                    "Warning" if finding.reason == "NoReadyReplica" else "Normal"
                )
                self._events.record(found, "Observe", finding.reason, finding.message, kind)
            if finding.reason in REASONS and known.get("reason") != finding.reason:
                self._events.record(found, "Start", finding.reason, finding.message, "Warning")
