"""One of several operators acts: whoever holds the Lease.

The clocks of two machines may differ, so another's Lease counts as lost only after
it has not changed for its whole duration on *our* clock. A leader that could not
renew for two thirds of that time stops acting before anyone else begins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from trierarch.adapters.kubernetes import LEASES, Conflict, KubernetesApi, Refused
from trierarch.core.clock import Clock
from trierarch.core.errors import Unavailable

_logger = logging.getLogger(__name__)

LEASE_NAME = "trierarch-operator"

_RENEWALS = 5
"""In the life of a Lease."""


class LeaderElection:
    """Takes the Lease when it is free and keeps it.

    Args:
        api: The API server.
        namespace: Where the Lease lies.
        identity: Ours, unique.
        lease_seconds: How long a Lease lasts that is not renewed.
        clock: Time.
        on_lead: Called when we begin to lead.
    """

    def __init__(
        self,
        api: KubernetesApi,
        namespace: str,
        identity: str,
        lease_seconds: float,
        clock: Clock,
        on_lead: Callable[[], None],
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._identity = identity
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._on_lead = on_lead
        self._seen: tuple[str, float] | None = None
        self._renewed_seconds = float("-inf")
        self._has_led = False

    @property
    def leads(self) -> bool:
        """Whether we may act now."""
        age_seconds = self._clock.monotonic_seconds() - self._renewed_seconds
        return age_seconds < self._lease_seconds * 2 / 3

    async def run(self) -> None:
        """Try to lead, for ever."""
        while True:
            before = self.leads
            try:
                await asyncio.wait_for(self._try(), self._lease_seconds / 2)
            except (Unavailable, Refused, TimeoutError) as error:
                _logger.warning("the Lease could not be read or renewed: %s", error or "timeout")
            if self.leads and not before:
                _logger.info("%s leads", self._identity)
                self._has_led = True
                self._on_lead()
            elif before and not self.leads:
                _logger.warning("%s no longer leads", self._identity)
            await asyncio.sleep(self._lease_seconds / _RENEWALS)

    async def release(self) -> None:
        """Give the Lease back at a clean end, so that the next one need not wait."""
        if not self.leads:
            return
        self._renewed_seconds = float("-inf")
        lease = await self._api.get(LEASES, self._namespace, LEASE_NAME)
        if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
            lease["spec"] |= {"holderIdentity": "", "renewTime": self._now()}
            try:
                await self._api.replace(LEASES, lease)
            except Conflict:
                # Somebody has it already.
                return

    async def _try(self) -> None:
        began_seconds = self._clock.monotonic_seconds()
        lease = await self._api.get(LEASES, self._namespace, LEASE_NAME)
        try:
            if lease is None:
                await self._api.create(LEASES, self._namespace, self._build(None))
            elif not self._may_take(lease):
                return
            else:
                await self._api.replace(LEASES, self._build(lease))
        except Conflict:
            self._renewed_seconds = float("-inf")
            return
        # Counted from before the request: it may have been written long before it was answered.
        self._renewed_seconds = began_seconds

    def _may_take(self, lease: dict[str, Any]) -> bool:
        spec = lease["spec"]
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self._identity):
            return True
        now_seconds = self._clock.monotonic_seconds()
        version = lease["metadata"]["resourceVersion"]
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now_seconds)
            return False
        life_seconds = float(spec.get("leaseDurationSeconds") or self._lease_seconds)
        return now_seconds - self._seen[1] >= life_seconds

    def _build(self, lease: dict[str, Any] | None) -> dict[str, Any]:
        now = self._now()
        if lease is None:
            spec: dict[str, Any] = {"acquireTime": now, "leaseTransitions": 0}
            metadata = {"name": LEASE_NAME, "namespace": self._namespace}
            lease = {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": metadata}
        else:
            spec = dict(lease["spec"])
            if spec.get("holderIdentity") != self._identity:
                spec["acquireTime"] = now
                spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        spec |= {
            "holderIdentity": self._identity,
            # Whole seconds, and never shorter than we count ourselves.
            "leaseDurationSeconds": max(1, int(-(-self._lease_seconds // 1))),
            "renewTime": now,
        }
        return {**lease, "spec": spec}

    def _now(self) -> str:
        now = datetime.fromtimestamp(self._clock.unix_seconds(), tz=UTC)
        return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
