"""Connects the gateway to the ledger: keys, rates, the usage spool, totals."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from trierarch.adapters.ledger import CachedKeySource, CachedRateCard, Ledger
from trierarch.adapters.ledger.caches import REFRESH_SECONDS, Refreshed
from trierarch.adapters.usage_spool import UsageSpool
from trierarch.core.clock import Clock
from trierarch.core.errors import InvalidInput, TrierarchError, Unavailable
from trierarch.core.identifiers import HolderId, TenantId
from trierarch.cost.leases import LeaseAsk, LeaseRound
from trierarch.ports import TenantBook, TenantUsage
from trierarch.settings.gateway import GatewaySettings

_logger = logging.getLogger(__name__)

FRESHNESS_TIMEOUT_SECONDS = 5.0
"""How long ``/v1/usage`` waits for the ledger to have everything."""

SPOOL_CLOSE_TIMEOUT_SECONDS = 10.0
"""At the end; what is not in the ledger by then stays on disk for the next process."""

MAX_PENDING_SECONDS = 300.0
"""Usage that is this old and not in the ledger is worth taking the process out of service."""


class FreshTenantUsage:
    """Totals that include every request recorded before the question.

    The spool is flushed first, then the ledger is read: no record can be counted
    twice or be missing, whatever happens meanwhile.
    """

    def __init__(self, ledger: Ledger, spool: UsageSpool) -> None:
        self._ledger = ledger
        self._spool = spool

    async def usage_of(self, tenant: TenantId) -> TenantUsage:
        """Return a tenant's totals.

        Raises:
            Unavailable: If the ledger does not answer.
        """
        return await asyncio.to_thread(self._read, tenant)

    def _read(self, tenant: TenantId) -> TenantUsage:
        if not self._spool.flush(FRESHNESS_TIMEOUT_SECONDS):
            raise Unavailable("The ledger does not answer at the moment. Try again.")
        return self._ledger.tenant_usage(tenant)


class LedgerTenants:
    """A ``TenantSource``: terms from memory, read about once a second, and leases.

    Attributes:
        holder: Under which this process leases; new with each start.
        lease_seconds: How long a lease lives without being renewed.
    """

    def __init__(
        self, ledger: Ledger, spool: UsageSpool, clock: Clock, lease_seconds: float
    ) -> None:
        """Read all tenants once and keep them fresh.

        Raises:
            Unavailable: If the ledger does not answer now.
        """
        self.holder = HolderId(f"{spool.identity}/{uuid.uuid4().hex}")
        self.lease_seconds = lease_seconds
        self._ledger = ledger
        self._spool = spool
        self._has_predecessors = True
        self._book: Refreshed[TenantBook] = Refreshed("tenants", self._load, clock)
        self._book.start(REFRESH_SECONDS)

    def _load(self, _known: TenantBook | None) -> TenantBook:
        # Counted before the ledger is read: a charge may then be counted twice for a moment,
        # and never not at all.
        settled = self._spool.settled_records
        self._end_predecessors()
        return dataclasses.replace(self._ledger.tenant_book(), settled_records=settled)

    def _end_predecessors(self) -> None:
        """Forget the leases of processes that had the spool before, once their charges are in."""
        if self._has_predecessors and self._spool.has_replayed:
            self._ledger.end_leases(self._spool.identity, except_holder=self.holder)
            self._has_predecessors = False

    def book(self) -> TenantBook:
        """Return what was last read."""
        return self._book.value

    def exchange_leases(self, asks: Sequence[LeaseAsk]) -> LeaseRound:
        """Renew, grant and take back leases.

        Raises:
            Unavailable: If the ledger does not answer.
        """
        return self._ledger.exchange_leases(self._spool.identity, asks, self.lease_seconds)

    def close(self) -> None:
        """Stop refreshing."""
        self._book.close()

    def end_leases(self) -> None:
        """Forget this process's leases too: every charge is in the ledger."""
        try:
            self._ledger.end_leases(self._spool.identity)
        except TrierarchError as error:
            _logger.warning("leases stay until they lapse: %s", error)


@dataclasses.dataclass(frozen=True, slots=True)
class LedgerBooks:
    """Everything the gateway takes from the ledger."""

    keys: CachedKeySource
    rates: CachedRateCard
    spool: UsageSpool
    tenant_usage: FreshTenantUsage
    tenants: LedgerTenants

    def problem(self) -> str:
        """Return why usage cannot be kept, or an empty string."""
        status = self.spool.status()
        if not status.is_alive:
            return "the usage spool has stopped"
        if status.durable < status.recorded and status.last_failure:
            return status.last_failure
        if status.oldest_pending_seconds > MAX_PENDING_SECONDS:
            return f"usage waits for the ledger since {status.oldest_pending_seconds:.0f} s"
        return ""


@contextmanager
def open_books(settings: GatewaySettings, clock: Clock) -> Iterator[LedgerBooks]:
    """Open the ledger and the spool; close them with everything settled that can be.

    Raises:
        InvalidInput: If a setting is missing or wrong.
        Unavailable: If the ledger or the spool folder cannot be used.
    """
    if not settings.ledger_url:
        raise InvalidInput("no ledger: set TRIERARCH_GATEWAY_LEDGER_URL=sqlite:////PATH/ledger.db")
    if settings.spool_dir is None:
        raise InvalidInput("no usage spool: set TRIERARCH_GATEWAY_SPOOL_DIR=/PATH/spool")
    ledger = Ledger.open(settings.ledger_url, clock)
    try:
        keys = CachedKeySource(ledger, clock)
        rates = CachedRateCard(ledger, clock)
        spool = UsageSpool(settings.spool_dir, ledger, clock)
        try:
            tenants = LedgerTenants(ledger, spool, clock, settings.lease_seconds)
            try:
                yield LedgerBooks(keys, rates, spool, FreshTenantUsage(ledger, spool), tenants)
            finally:
                tenants.close()
                if spool.close(SPOOL_CLOSE_TIMEOUT_SECONDS):
                    tenants.end_leases()
        finally:
            spool.close(SPOOL_CLOSE_TIMEOUT_SECONDS)
            rates.close()
            keys.close()
    finally:
        ledger.close()
