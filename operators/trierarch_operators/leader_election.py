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
        on_lead: Called when we begin to lead, also after the shortest gap: what was due in it was
            not done.
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
        self._held: dict[str, Any] | None = None

    @property
    def leads(self) -> bool:
        """Whether we may act now."""
        age_seconds = self._clock.monotonic_seconds() - self._renewed_seconds
        return age_seconds < self._lease_seconds * 2 / 3

    async def run(self) -> None:
        """Try to lead, for ever."""
        while True:
            try:
                await asyncio.wait_for(self.renew(), self._lease_seconds / 2)
            except (Unavailable, Refused, TimeoutError) as error:
                self._held = None
                _logger.warning("the Lease could not be read or renewed: %s", error or "timeout")
            await asyncio.sleep(self._lease_seconds / _RENEWALS)

    async def release(self) -> None:
        """Give the Lease back at a clean end, so that the next one need not wait."""
        if not self.leads:
            return
        self._renewed_seconds = float("-inf")
        self._held = None
        lease = await self._api.get(LEASES, self._namespace, LEASE_NAME)
        if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
            lease["spec"] |= {"holderIdentity": "", "renewTime": self._now()}
            try:
                await self._api.replace(LEASES, lease)
            except Conflict:
                # Somebody has it already.
                return

    async def renew(self) -> None:
        """Take or keep the Lease, if it is free or ours.

        Raises:
            Unavailable: If the API server did not answer.
        """
        began_seconds = self._clock.monotonic_seconds()
        try:
            self._held = await self._write()
        except Conflict:
            self._held = None
            self._lose()
            return
        if self._held is None:
            self._lose()
            return
        led = self.leads
        # Counted from before the request: it may have been written long before it was answered.
        self._renewed_seconds = began_seconds
        if self.leads and not led:
            _logger.info("%s leads", self._identity)
            self._on_lead()

    def _lose(self) -> None:
        if self.leads:
            _logger.warning("%s no longer leads", self._identity)
        self._renewed_seconds = float("-inf")

    async def _write(self) -> dict[str, Any] | None:
        """Write the Lease; return it as written, None if it is another's."""
        if self._held is not None:
            # Nobody else writes a Lease that is kept; if somebody has, that is a conflict.
            return await self._api.replace(LEASES, self._build(self._held))
        lease = await self._api.get(LEASES, self._namespace, LEASE_NAME)
        if lease is None:
            return await self._api.create(LEASES, self._namespace, self._build(None))
        if not self._may_take(lease):
            return None
        return await self._api.replace(LEASES, self._build(lease))

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
