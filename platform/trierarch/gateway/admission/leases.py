"""What this process holds of tenants' budgets, and what its requests have reserved of that.

Everything here is arithmetic in memory; the keeper beside it talks to the ledger. A request
reserves the most it may cost, settles to its charge, and gives the rest back. What is free beyond
the use of the next moments goes back to the ledger, where other processes can have it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import ROUND_DOWN, Decimal

from trierarch.core.clock import Clock
from trierarch.core.identifiers import HolderId, ModelName, TenantId
from trierarch.cost.budgets import NOTHING, TenantTerms
from trierarch.cost.leases import GRANT_QUANTUM, LeaseAnswer, LeaseAsk, LeaseRound

AHEAD_SECONDS = 2.0
"""A lease is kept large enough for what was reserved in so long."""

FLOW_HALF_LIFE_SECONDS = 1.0
"""How fast old reservations are forgotten in that."""

KEPT_PART = Decimal(1) / 64
"""What an idle process keeps at most, of what nobody holds: so the next request need not wait."""

KEPT_SECONDS = 60.0
"""And for how long it keeps that."""

EXPIRY_MARGIN_RATIO = 0.9
"""A holder stops this early, so that clocks need not run alike."""

RENEW_RATIO = 1.0 / 3.0
"""A lease is renewed after this part of its time."""


@dataclasses.dataclass(slots=True, eq=False)
class TenantLease:
    """One lease as its holder counts it.

    Attributes:
        granted_usd: Granted, less what was given back.
        charged_usd: Of these, charged by requests that have ended.
        reserved_usd: Of these, reserved by running requests.
        renewed_seconds: Monotonic time of the ask that was answered last.
        expires_seconds: Monotonic time from which nothing may be reserved on it.
        answer: The last one; None before the first.
        terms: The tenant's when it was given.
        flow_usd: Recently reserved, old reservations counting less and less.
        flow_at_seconds: Monotonic time of that.
        used_at_seconds: Monotonic time of the last reservation.
        largest_usd: The largest reservation.
        is_wanted: Another process lacks what this one holds.
        ahead_usd: What running requests will want to reserve more.
        waiting_usd: What requests wait for that the lease cannot pay.
    """

    tenant: TenantId
    holder: HolderId
    granted_usd: Decimal = NOTHING
    charged_usd: Decimal = NOTHING
    reserved_usd: Decimal = NOTHING
    renewed_seconds: float = 0.0
    expires_seconds: float = 0.0
    answer: LeaseAnswer | None = None
    terms: TenantTerms | None = None
    flow_usd: float = 0.0
    flow_at_seconds: float = 0.0
    used_at_seconds: float = -math.inf
    largest_usd: Decimal = NOTHING
    ahead_usd: Decimal = NOTHING
    waiting_usd: list[Decimal] = dataclasses.field(default_factory=list)
    is_wanted: bool = False

    @property
    def free_usd(self) -> Decimal:
        """Return what can be reserved."""
        return self.granted_usd - self.charged_usd - self.reserved_usd

    @property
    def outstanding_usd(self) -> Decimal:
        """Return what running requests may cost, and what is charged but was not in the ledger."""
        settled = NOTHING if self.answer is None else self.answer.settled_usd
        return self.charged_usd - settled + self.reserved_usd

    def note_flow(self, usd: Decimal, now_seconds: float) -> None:
        """Count a reservation for what the next moments will need."""
        self._forget(now_seconds)
        self.flow_usd += float(usd)
        self.used_at_seconds = now_seconds
        self.largest_usd = max(self.largest_usd, usd)

    def _forget(self, now_seconds: float) -> None:
        passed = now_seconds - self.flow_at_seconds
        self.flow_usd *= 0.5 ** (passed / FLOW_HALF_LIFE_SECONDS)
        self.flow_at_seconds = now_seconds

    def target_usd(self, now_seconds: float) -> Decimal:
        """Return how much it is good to have free."""
        if self.is_wanted:
            return NOTHING
        self._forget(now_seconds)
        # The sum of a steady flow whose parts halve with time is flow times 1.44 half-lives.
        ahead = Decimal(self.flow_usd * AHEAD_SECONDS / (1.4427 * FLOW_HALF_LIFE_SECONDS))
        kept = NOTHING
        if self.answer is not None and now_seconds - self.used_at_seconds < KEPT_SECONDS:
            room = self.answer.room_usd
            if room is None:
                limits = [usd for _, usd in self.answer.full_price_usd]
                room = min(limits, default=None)
            if room is not None:
                kept = min(4 * self.largest_usd, (room + self.free_usd) * KEPT_PART)
        return max(ahead, kept, NOTHING).quantize(GRANT_QUANTUM, ROUND_DOWN)


class Reservation:
    """What one request may cost at most, taken from a lease until the request ends.

    Attributes:
        amount_usd: Reserved now.
    """

    __slots__ = ("_is_open", "_leases", "amount_usd", "lease")

    def __init__(self, leases: TenantLeases, lease: TenantLease, amount_usd: Decimal) -> None:
        self._leases = leases
        self._is_open = True
        self.lease = lease
        self.amount_usd = amount_usd

    @property
    def holder(self) -> HolderId:
        """Return the lease's, for the usage record."""
        return self.lease.holder

    def extend(self, to_usd: Decimal) -> bool:
        """Reserve more if the lease can pay; return whether that much is reserved now."""
        more = to_usd - self.amount_usd
        if more <= 0:
            return True
        lease = self.lease
        if not self._is_open or not self._leases.can_pay(lease, more):
            return False
        lease.reserved_usd += more
        lease.note_flow(more, self._leases.now_seconds())
        self.amount_usd = to_usd
        return True

    def want(self, to_usd: Decimal) -> None:
        """Have the lease grown in the next exchange, so that this much can be reserved then."""
        self.lease.ahead_usd = max(self.lease.ahead_usd, to_usd - self.amount_usd)

    def settle(self, charge_usd: Decimal) -> Decimal:
        """End the reservation and return how much of the charge it covers: all, in the ordinary.

        What was used beyond it and cannot be had any more is not charged: a budget holds.
        """
        if not self._is_open:
            raise RuntimeError("a reservation is settled once")
        self.extend(charge_usd)
        covered = min(charge_usd, self.amount_usd)
        self.lease.charged_usd += covered
        self.release()
        return covered

    def release(self) -> None:
        """End the reservation; after the first time nothing happens."""
        if self._is_open:
            self._is_open = False
            self.lease.reserved_usd -= self.amount_usd


class TenantLeases:
    """All leases of this process.

    Args:
        holder: Under which name they are asked for; a lease that lapsed is followed by one under
            a name of its own.
        lease_seconds: How long a lease lives without being renewed.
        clock: Time.
    """

    def __init__(self, holder: HolderId, lease_seconds: float, clock: Clock) -> None:
        self._holder = holder
        self._lease_seconds = lease_seconds
        self.now_seconds: Callable[[], float] = clock.monotonic_seconds
        self._clock = clock
        self._by_tenant: dict[TenantId, TenantLease] = {}
        self._lapsed: list[TenantLease] = []
        self._generation = 0

    # --- requests ---------------------------------------------------------------------

    def lease_of(self, tenant: TenantId) -> TenantLease:
        """Return a tenant's lease, an empty one at first."""
        lease = self._by_tenant.get(tenant)
        if lease is not None and lease.answer is not None and not self.is_alive(lease):
            self._retire(lease)
            lease = None
        if lease is None:
            holder = self._holder
            if self._generation:
                holder = HolderId(f"{holder}.{self._generation}")
            lease = self._by_tenant[tenant] = TenantLease(tenant, holder)
        return lease

    def holders_of(self, tenant: TenantId) -> int:
        """Return how many processes hold a lease of the tenant, at least one."""
        lease = self._by_tenant.get(tenant)
        return 1 if lease is None or lease.answer is None else lease.answer.holders

    def is_alive(self, lease: TenantLease) -> bool:
        """Return whether something may be reserved on a lease."""
        return self.now_seconds() < lease.expires_seconds

    def _retire(self, lease: TenantLease) -> None:
        """Follow a lapsed lease by another; its own charges still go to it."""
        del self._by_tenant[lease.tenant]
        self._lapsed.append(lease)
        self._generation += 1

    def try_reserve(
        self, tenant: TenantId, worst_usd: Decimal, *, at_full_price: bool = False
    ) -> Reservation | None:
        """Reserve from memory; None if the lease cannot pay.

        Args:
            tenant: Who pays.
            worst_usd: The most that the request may cost.
            at_full_price: A budget names a cheaper model, and this is another one.
        """
        lease = self.lease_of(tenant)
        if not self.can_pay(lease, worst_usd):
            return None
        if at_full_price and self.cheaper_model(lease, worst_usd) is not None:
            return None
        lease.reserved_usd += worst_usd
        lease.note_flow(worst_usd, self.now_seconds())
        return Reservation(self, lease, worst_usd)

    def can_pay(self, lease: TenantLease, usd: Decimal) -> bool:
        """Return whether an amount can be reserved on a lease now."""
        return self.is_alive(lease) and lease.free_usd >= usd

    def cheaper_model(self, lease: TenantLease, worst_usd: Decimal) -> ModelName | None:
        """Return the model that has to answer instead by the last answer, if one has to."""
        limits = () if lease.answer is None else lease.answer.full_price_usd
        for model, usd in limits:
            if lease.outstanding_usd + worst_usd > usd:
                return model
        return None

    def is_beyond(self, lease: TenantLease, terms: TenantTerms, worst_usd: Decimal) -> bool:
        """Return whether the budgets cannot pay, whatever other processes give back."""
        answer = lease.answer
        if answer is None or answer.most_usd is None or lease.terms != terms:
            return False
        if self._clock.unix_seconds() >= answer.holds_until_unix_seconds:
            return False
        return lease.outstanding_usd + worst_usd > answer.most_usd

    @contextmanager
    def waiting(self, lease: TenantLease, usd: Decimal) -> Iterator[None]:
        """Ask for an amount in the next exchange."""
        lease.waiting_usd.append(usd)
        try:
            yield
        finally:
            lease.waiting_usd.remove(usd)

    # --- the ledger -------------------------------------------------------------------

    def has_spare(self) -> bool:
        """Return whether there is something that another process could want."""
        return any(lease.free_usd > 0 for lease in self._by_tenant.values())

    def collect(self, *, give_back_all: bool = False) -> list[LeaseAsk]:
        """Return what to ask of the ledger now; what is given back is not free any more.

        Args:
            give_back_all: The process ends: keep nothing that is free.
        """
        now_seconds = self.now_seconds()
        asks = []
        for lease in list(self._by_tenant.values()):
            if lease.answer is not None and not self.is_alive(lease):
                self._retire(lease)
            elif (ask := self._ask_of(lease, now_seconds, give_back_all)) is not None:
                asks.append(ask)
        for lease in self._lapsed:
            if lease.reserved_usd == 0:
                lease.granted_usd = lease.charged_usd
                asks.append(LeaseAsk(lease.tenant, lease.holder, lease.granted_usd))
        return asks

    def _ask_of(
        self, lease: TenantLease, now_seconds: float, give_back_all: bool
    ) -> LeaseAsk | None:
        free = lease.free_usd
        target = NOTHING if give_back_all else lease.target_usd(now_seconds)
        ahead, lease.ahead_usd = lease.ahead_usd, NOTHING
        least = most = NOTHING
        if lease.waiting_usd:
            least = max(NOTHING, min(lease.waiting_usd) - free)
            most = max(least, sum(lease.waiting_usd, target) - free)
        elif free > 2 * max(target, ahead):
            lease.granted_usd -= free - target
        elif free < max(target / 2, ahead):
            most = max(target, ahead) - free
        elif now_seconds - lease.renewed_seconds < RENEW_RATIO * self._lease_seconds:
            return None
        elif lease.granted_usd == lease.charged_usd:
            # Nothing is left on it: it may lapse.
            return None
        return LeaseAsk(lease.tenant, lease.holder, lease.granted_usd, lease.free_usd, least, most)

    def apply(
        self,
        told: LeaseRound,
        asked_seconds: float,
        terms_of: Callable[[TenantId], TenantTerms | None],
    ) -> None:
        """Take the answers to what was collected.

        Args:
            told: Answers.
            asked_seconds: Monotonic time before the ledger was asked.
            terms_of: A tenant's terms before it was asked.
        """
        expires_seconds = asked_seconds + EXPIRY_MARGIN_RATIO * self._lease_seconds
        for answer in told.answers:
            lease = self._by_tenant.get(answer.tenant)
            if lease is None or lease.holder != answer.holder:
                self._close_lapsed(answer)
                continue
            lease.granted_usd += answer.granted_usd
            lease.answer = answer
            if answer.has_lapsed:
                self._retire(lease)
                continue
            lease.renewed_seconds = asked_seconds
            lease.expires_seconds = expires_seconds
            lease.terms = terms_of(answer.tenant)
        for lease in self._by_tenant.values():
            lease.is_wanted = lease.tenant in told.wanted

    def _close_lapsed(self, answer: LeaseAnswer) -> None:
        """Forget a lapsed lease once the ledger has been told all of it."""
        for lease in self._lapsed:
            if lease.holder == answer.holder:
                # An ask from before it lapsed may have been granted something.
                lease.granted_usd += answer.granted_usd
                if lease.granted_usd == lease.charged_usd:
                    self._lapsed.remove(lease)
                return
