"""Shares of a tenant's budgets that gateway processes may spend on their own for a while.

A lease is an amount, not a share of one budget: a dollar that a process may still charge counts
against every budget of the tenant, whatever its period. So one number for each process and tenant
is enough, and it holds over the end of a day. The ledger grants it by one rule: what was charged,
and what all processes may still charge, is never more than a budget's amount.

Outstanding is what was granted less what is settled: free, reserved by running requests, or
charged and still on its way to the ledger. A lease that was not renewed in time has lapsed. Only
its process knows how much of it was used, so all of it counts as spent in the period it lapsed
in, until the charges themselves have come.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from decimal import ROUND_DOWN, Decimal

from trierarch.core.identifiers import HolderId, ModelName, TenantId
from trierarch.cost.budgets import (
    NOTHING,
    TenantTerms,
    day_of,
    end_of,
    first_day,
    spent_in,
)

SHARES_PER_HOLDER = 4
"""What is granted beyond the need is at most this part of a holder's equal share of the rest: so
grants shrink with what is left, and the last of a budget does not lie about in idle processes."""

GRANT_QUANTUM = Decimal("1e-12")
"""Grants beyond the need are whole multiples of this many dollars."""


@dataclasses.dataclass(frozen=True, slots=True)
class Lease:
    """What the ledger knows of one process's lease of one tenant.

    Attributes:
        holder: The process.
        granted_usd: Dollars granted since the lease began, less what was given back.
        settled_usd: Of these, charged and in the ledger.
        spare_usd: Of these, not in use when the holder last asked.
        expires_unix_seconds: From then on nothing more may be reserved on it.
    """

    holder: HolderId
    granted_usd: Decimal
    settled_usd: Decimal
    spare_usd: Decimal
    expires_unix_seconds: float

    @property
    def outstanding_usd(self) -> Decimal:
        """Return what may still be charged on it, at least zero."""
        return max(NOTHING, self.granted_usd - self.settled_usd)

    def counts_in(self, first: int, now_unix_seconds: float) -> bool:
        """Return whether it counts in a period that begins on that day and goes on now."""
        expires = self.expires_unix_seconds
        return expires > now_unix_seconds or day_of(expires) >= first


@dataclasses.dataclass(frozen=True, slots=True)
class LeaseAsk:
    """What a process tells and asks of one lease.

    Attributes:
        granted_usd: All it was ever granted, less what it gives back with this; counted by the
            holder, so that an answer that was lost on the way is put right by the next ask.
        spare_usd: Of these, not in use.
        least_usd: More, or nothing: less would not help. Zero takes what there is.
        most_usd: More than this is not wanted; at least ``least_usd``.
    """

    tenant: TenantId
    holder: HolderId
    granted_usd: Decimal
    spare_usd: Decimal = NOTHING
    least_usd: Decimal = NOTHING
    most_usd: Decimal = NOTHING


@dataclasses.dataclass(frozen=True, slots=True)
class LeaseAnswer:
    """What the ledger says to an ask.

    Attributes:
        granted_usd: More than the holder had.
        settled_usd: Of all grants of the lease, in the ledger.
        has_lapsed: It was not renewed in time: nothing more is granted on it.
        room_usd: What nobody holds now; None where no budget blocks.
        most_usd: What is not charged yet, whoever holds it; None where no budget blocks.
        full_price_usd: How much of the lease may be outstanding before a cheaper model has to
            answer, and which; for each budget with ``Downgrade``.
        spare_elsewhere_usd: What other processes hold and did not use.
        holders: Processes with a lease of the tenant that has not lapsed, the asking one included.
        expires_unix_seconds: Of the lease.
        holds_until_unix_seconds: A period ends then, and the amounts above with it.
    """

    tenant: TenantId
    holder: HolderId
    granted_usd: Decimal
    settled_usd: Decimal
    has_lapsed: bool
    room_usd: Decimal | None
    most_usd: Decimal | None
    full_price_usd: tuple[tuple[ModelName, Decimal], ...]
    spare_elsewhere_usd: Decimal
    holders: int
    expires_unix_seconds: float
    holds_until_unix_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class LeaseRound:
    """The answers of one exchange, and the tenants whose leases others lack."""

    answers: Sequence[LeaseAnswer]
    wanted: frozenset[TenantId] = frozenset()


def answer_ask(
    ask: LeaseAsk,
    terms: TenantTerms | None,
    spent_by_day: Mapping[int, Decimal],
    leases: Sequence[Lease],
    *,
    now_unix_seconds: float,
    lease_seconds: float,
) -> tuple[Lease, LeaseAnswer]:
    """Return the asker's lease as it is from now on, and what it is told.

    Args:
        ask: Of one holder for one tenant.
        terms: The tenant's; without budgets everything is granted.
        spent_by_day: What the tenant was charged, since the month began at least.
        leases: All leases of the tenant, the asker's included.
        now_unix_seconds: Wall time.
        lease_seconds: How long a lease lives without being renewed.
    """
    own = next((lease for lease in leases if lease.holder == ask.holder), None)
    others = [lease for lease in leases if lease.holder != ask.holder]
    has_lapsed = own is not None and own.expires_unix_seconds <= now_unix_seconds
    settled = NOTHING if own is None else own.settled_usd
    kept = max(NOTHING, ask.granted_usd - settled)

    budgets = () if terms is None else terms.budgets
    day = day_of(now_unix_seconds)
    room: Decimal | None = None
    most: Decimal | None = None
    full_price: list[tuple[ModelName, Decimal]] = []
    for budget in budgets:
        first = first_day(budget.period, day)
        left = budget.amount_usd - spent_in(budget.period, spent_by_day, day)
        held = sum(
            (one.outstanding_usd for one in others if one.counts_in(first, now_unix_seconds)),
            NOTHING,
        )
        if budget.downgrade_to is not None:
            full_price.append((budget.downgrade_to, left - held))
        else:
            room = _least(room, left - held - kept)
            most = _least(most, left)

    alive = [one for one in others if one.expires_unix_seconds > now_unix_seconds]
    holders = len(alive) + 1
    granted = NOTHING if has_lapsed else _grant(ask, room, holders)
    expires = now_unix_seconds + lease_seconds
    if own is not None and has_lapsed:
        expires = own.expires_unix_seconds
    lease = Lease(
        ask.holder,
        ask.granted_usd + granted,
        settled,
        ask.spare_usd + granted,
        expires,
    )
    answer = LeaseAnswer(
        ask.tenant,
        ask.holder,
        granted_usd=granted,
        settled_usd=settled,
        has_lapsed=has_lapsed,
        room_usd=None if room is None else room - granted,
        most_usd=most,
        full_price_usd=tuple(full_price),
        spare_elsewhere_usd=sum((one.spare_usd for one in alive), NOTHING),
        holders=holders,
        expires_unix_seconds=expires,
        holds_until_unix_seconds=min(
            (end_of(budget.period, day) for budget in budgets), default=expires
        ),
    )
    return lease, answer


def is_short(ask: LeaseAsk, answer: LeaseAnswer) -> bool:
    """Return whether the asker got less than it cannot do without."""
    return not answer.has_lapsed and answer.granted_usd < ask.least_usd


def _least(known: Decimal | None, other: Decimal) -> Decimal:
    return other if known is None else min(known, other)


def _grant(ask: LeaseAsk, room: Decimal | None, holders: int) -> Decimal:
    if room is None:
        return ask.most_usd
    if room <= 0 or room < ask.least_usd:
        return NOTHING
    share = (room - ask.least_usd) / (SHARES_PER_HOLDER * holders)
    extra = min(ask.most_usd - ask.least_usd, share).quantize(GRANT_QUANTUM, ROUND_DOWN)
    return ask.least_usd + max(NOTHING, extra)
