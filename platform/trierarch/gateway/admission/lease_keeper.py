"""Keeps leases ahead of their use, in the background; a request waits only for what they lack."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from decimal import Decimal

from trierarch.core.clock import Clock
from trierarch.core.errors import TrierarchError
from trierarch.core.identifiers import ModelName, TenantId
from trierarch.cost.budgets import Action, TenantTerms, day_of, end_of
from trierarch.gateway.admission.leases import Reservation, TenantLease, TenantLeases
from trierarch.gateway.errors import (
    GatewayError,
    insufficient_quota,
    internal_error,
    unavailable,
)
from trierarch.ports import TenantSource

_logger = logging.getLogger(__name__)

ROUND_SECONDS = 0.25
"""Between exchanges with the ledger, while there is something to exchange."""

PATIENCE_SECONDS = 1.5
"""How long a request waits for what other processes hold and do not use: they look each round."""

REFUSED_SECONDS = 1.0
"""How long others of a tenant that want as much are then refused without waiting."""

FRESH_SECONDS = 1.0
"""An older answer is asked for again before a cheaper model has to answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Refusal:
    """That other processes held what was asked for, and used it."""

    terms: TenantTerms
    usd: Decimal
    until_seconds: float

    def holds_for(self, terms: TenantTerms, usd: Decimal, now_seconds: float) -> bool:
        return now_seconds < self.until_seconds and usd >= self.usd and terms == self.terms


class LeaseKeeper:
    """Reserves for requests and exchanges leases with the ledger.

    Args:
        source: The ledger.
        clock: Time.

    Attributes:
        leases: What this process holds.
    """

    def __init__(self, source: TenantSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self.leases = TenantLeases(source.holder, source.lease_seconds, clock)
        self._wake = asyncio.Event()
        self._next: asyncio.Future[None] | None = None
        self._refused: dict[TenantId, _Refusal] = {}
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False

    # --- requests ---------------------------------------------------------------------

    async def reserve(
        self, terms: TenantTerms, worst_usd: Decimal, *, at_full_price: bool = False
    ) -> Reservation | ModelName:
        """Reserve the most that a request may cost; waits only if the lease cannot pay.

        Args:
            terms: With budgets.
            worst_usd: Dollars.
            at_full_price: A budget names a cheaper model, and this is another one.

        Returns:
            The model that has to answer instead, if it comes to that.

        Raises:
            GatewayError: If a budget cannot pay, or nobody can say because the ledger is away.
        """
        tenant = terms.tenant
        deadline_seconds = self._clock.monotonic_seconds() + PATIENCE_SECONDS
        while True:
            reserved = self.leases.try_reserve(tenant, worst_usd, at_full_price=at_full_price)
            if reserved is not None:
                return reserved
            lease = self.leases.lease_of(tenant)
            now_seconds = self._clock.monotonic_seconds()
            is_fresh = self.leases.is_alive(lease) and (
                now_seconds - lease.renewed_seconds < FRESH_SECONDS
            )
            cheaper = self.leases.cheaper_model(lease, worst_usd) if at_full_price else None
            if is_fresh and cheaper is not None:
                return cheaper
            refusal = self._refused.get(tenant)
            is_refused = refusal is not None and refusal.holds_for(terms, worst_usd, now_seconds)
            if is_refused or self.leases.is_beyond(lease, terms, worst_usd):
                break
            with self.leases.waiting(lease, worst_usd):
                await self._exchanged()
            if lease is not self.leases.lease_of(tenant) or self.leases.can_pay(lease, worst_usd):
                continue
            if now_seconds >= deadline_seconds or not self._is_worth_waiting(lease, worst_usd):
                self._refused[tenant] = _Refusal(terms, worst_usd, now_seconds + REFUSED_SECONDS)
                break
            await asyncio.sleep(ROUND_SECONDS / 2)
        cheaper = first_cheaper_model(terms) if at_full_price else None
        if cheaper is not None:
            return cheaper
        raise self.refusal(terms)

    async def extend(self, reservation: Reservation, to_usd: Decimal) -> bool:
        """Reserve more for a request that costs more than it seemed; ask the ledger if needed."""
        if reservation.extend(to_usd):
            return True
        more = to_usd - reservation.amount_usd
        with contextlib.suppress(GatewayError), self.leases.waiting(reservation.lease, more):
            await self._exchanged()
        return reservation.extend(to_usd)

    def want_more(self) -> None:
        """Begin an exchange soon: somebody waits who cannot say so himself."""
        self._wake.set()

    def _is_worth_waiting(self, lease: TenantLease, worst_usd: Decimal) -> bool:
        """Return whether what others do not use would do."""
        answer = lease.answer
        if answer is None or answer.room_usd is None:
            return True
        return lease.free_usd + answer.room_usd + answer.spare_elsewhere_usd >= worst_usd

    def refusal(self, terms: TenantTerms) -> GatewayError:
        """Return what a client is told whose tenant's budgets cannot pay."""
        now_unix_seconds = self._clock.unix_seconds()
        day = day_of(now_unix_seconds)
        blocking = [one for one in terms.budgets if one.action is not Action.DOWNGRADE]
        # The one that starts again last, so that nobody is told to come back too early.
        budget = max(blocking or terms.budgets, key=lambda one: end_of(one.period, day))
        ends_in_seconds = end_of(budget.period, day) - now_unix_seconds
        return insufficient_quota(budget.period.value, budget.amount_usd, ends_in_seconds)

    # --- the ledger -------------------------------------------------------------------

    def start(self) -> None:
        """Exchange in the background until closed."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Give back whatever is free; no request runs any more."""
        if self._task is None:
            return
        self._is_closing = True
        self._wake.set()
        await self._task
        self._task = None

    async def _run(self) -> None:
        while not self._is_closing:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), ROUND_SECONDS)
            self._wake.clear()
            await self._exchange(give_back_all=self._is_closing)

    async def _exchanged(self) -> None:
        """Wait for the end of the next exchange that begins.

        Raises:
            GatewayError: If the ledger did not answer.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        self._wake.set()
        await asyncio.shield(self._next)

    async def _exchange(self, *, give_back_all: bool) -> None:
        done, self._next = self._next, None
        error: GatewayError | None = None
        try:
            await self._ask(give_back_all=give_back_all)
        except TrierarchError as problem:
            self._failures += 1
            if self._failures == 1:
                _logger.warning("leases of budgets cannot be renewed: %s", problem)
            error = unavailable(f"Nobody can say what is left of a budget: {problem}")
        except Exception:
            # Without exchanges no tenant with a budget is answered any more: go on.
            _logger.exception("an exchange of leases failed inside the gateway")
            error = internal_error()
        else:
            if self._failures:
                _logger.info("leases of budgets are renewed again")
            self._failures = 0
        if done is None or done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
            # Who waited may have left; then nobody else would look at it.
            done.exception()

    async def _ask(self, *, give_back_all: bool) -> None:
        asks = self.leases.collect(give_back_all=give_back_all)
        if not asks and not self.leases.has_spare():
            return
        terms = self._source.book().terms
        asked_seconds = self._clock.monotonic_seconds()
        told = await asyncio.to_thread(self._source.exchange_leases, asks)
        self.leases.apply(told, asked_seconds, terms.get)


def first_cheaper_model(terms: TenantTerms) -> ModelName | None:
    """Return the model of the first budget that names one, or None."""
    return next((one.downgrade_to for one in terms.budgets if one.downgrade_to is not None), None)
