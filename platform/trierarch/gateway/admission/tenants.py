"""A tenant's own limits and budgets, from its terms in the ledger.

What a tenant has spent is what the ledger last told, plus what this process has charged since
and what its running requests may cost at most. So one gateway process does not let a request in
that its tenant's budget cannot pay; several of them hear of each other through the ledger, about
a second later. Without terms a tenant has no limits but the gateway's own.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from decimal import Decimal

from trierarch.core.clock import Clock
from trierarch.core.identifiers import ModelName, TenantId
from trierarch.cost.budgets import (
    NOTHING,
    THROTTLE_FROM_RATIO,
    Action,
    Budget,
    TenantTerms,
    day_of,
    end_of,
    spent_in,
)
from trierarch.gateway.errors import (
    insufficient_quota,
    model_not_allowed,
    parallel_limit_reached,
    spending_throttled,
)
from trierarch.ports import TenantSource

THROTTLE_BURST_SECONDS = 60.0
"""A throttled tenant may save up the pace of so long."""

PARALLEL_RETRY_SECONDS = 1.0
"""When a place of a tenant may be free again; nobody knows how long answers take."""


@dataclasses.dataclass(frozen=True, slots=True)
class BudgetLeft:
    """One budget now, for its tenant to see.

    Attributes:
        spent_usd: In the present period, running requests not included.
        ends_unix_seconds: When it starts from zero again.
    """

    budget: Budget
    spent_usd: Decimal
    ends_unix_seconds: float

    @property
    def remaining_usd(self) -> Decimal:
        """At least zero."""
        return max(NOTHING, self.budget.amount_usd - self.spent_usd)


@dataclasses.dataclass(slots=True)
class _Standing:
    """What this process knows of one tenant beyond the ledger."""

    running: int = 0
    reserved_usd: Decimal = NOTHING
    unsettled_usd: Decimal = NOTHING
    unsettled: deque[tuple[int, Decimal]] = dataclasses.field(default_factory=deque)
    saved_usd: float = 0.0
    saved_at_seconds: float | None = None


class TenantDesk:
    """Asks tenants' terms and counts what they do here.

    Args:
        source: Terms and charges.
        clock: Time.
    """

    def __init__(self, source: TenantSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._standings: dict[TenantId, _Standing] = {}
        self._recorded = 0

    def terms_of(self, tenant: TenantId) -> TenantTerms | None:
        """Return a tenant's terms; None if it has none."""
        return self._source.book().terms.get(tenant)

    def budgets_of(self, tenant: TenantId) -> list[BudgetLeft]:
        """Return a tenant's budgets as they are now."""
        terms = self.terms_of(tenant)
        if terms is None:
            return []
        day = day_of(self._clock.unix_seconds())
        return [
            BudgetLeft(budget, self._spent(tenant, budget, day), end_of(budget.period, day))
            for budget in terms.budgets
        ]

    def check_model(self, terms: TenantTerms, model: ModelName) -> None:
        """Refuse a model that the tenant may not use.

        Raises:
            GatewayError: If so.
        """
        if terms.allowed_models is not None and model not in terms.allowed_models:
            raise model_not_allowed(model)

    def check_budgets(self, terms: TenantTerms, worst_usd: Decimal) -> ModelName | None:
        """Return the model that has to answer instead, or None if the asked one may.

        Args:
            terms: With budgets.
            worst_usd: The most that the request may cost.

        Raises:
            GatewayError: If a budget cannot pay for it, or spending is throttled.
        """
        tenant = terms.tenant
        standing = self._standings.get(tenant)
        reserved = NOTHING if standing is None else standing.reserved_usd
        day = day_of(self._clock.unix_seconds())
        instead: ModelName | None = None
        for budget in terms.budgets:
            spent = self._spent(tenant, budget, day)
            is_used_up = spent + reserved + worst_usd > budget.amount_usd
            if budget.action is Action.DOWNGRADE:
                instead = instead or (budget.downgrade_to if is_used_up else None)
            elif is_used_up:
                ends_in = end_of(budget.period, day) - self._clock.unix_seconds()
                raise insufficient_quota(budget.period.value, budget.amount_usd, ends_in)
            elif budget.action is Action.THROTTLE:
                self._pace(tenant, budget, spent, day)
        return instead

    def check_parallel(self, terms: TenantTerms) -> None:
        """Refuse one request more than the tenant may have at the same time.

        Raises:
            GatewayError: If so.
        """
        limit, standing = terms.parallel_requests, self._standings.get(terms.tenant)
        if limit is not None and standing is not None and standing.running >= limit:
            raise parallel_limit_reached(limit, PARALLEL_RETRY_SECONDS)

    def begin(self, tenant: TenantId, worst_usd: Decimal) -> None:
        """Count a request that is let in, and reserve what it may cost at most."""
        standing = self._standings.get(tenant)
        if standing is None:
            standing = self._standings[tenant] = _Standing()
        standing.running += 1
        standing.reserved_usd += worst_usd

    def end(self, tenant: TenantId, worst_usd: Decimal) -> None:
        """Give back what ``begin`` has taken."""
        standing = self._standings[tenant]
        standing.running -= 1
        standing.reserved_usd -= worst_usd

    def note_record(self, tenant: TenantId, charge_usd: Decimal) -> None:
        """Count a usage record of this process; call it for each, in their order."""
        self._recorded += 1
        terms = self.terms_of(tenant)
        if charge_usd and terms is not None and terms.budgets:
            standing = self._standings.setdefault(tenant, _Standing())
            standing.unsettled.append((self._recorded, charge_usd))
            standing.unsettled_usd += charge_usd
            standing.saved_usd -= float(charge_usd)

    def _spent(self, tenant: TenantId, budget: Budget, day: int) -> Decimal:
        book = self._source.book()
        spent = spent_in(budget.period, book.spent_by_day.get(tenant, {}), day)
        standing = self._standings.get(tenant)
        if standing is None:
            return spent
        while standing.unsettled and standing.unsettled[0][0] <= book.settled_records:
            standing.unsettled_usd -= standing.unsettled.popleft()[1]
        return spent + standing.unsettled_usd

    def _pace(self, tenant: TenantId, budget: Budget, spent: Decimal, day: int) -> None:
        """Let the last part of a budget last until its period ends.

        Raises:
            GatewayError: If the tenant is ahead of that pace.
        """
        standing = self._standings.setdefault(tenant, _Standing())
        if spent < THROTTLE_FROM_RATIO * budget.amount_usd:
            standing.saved_at_seconds = None
            return
        left_seconds = max(1.0, end_of(budget.period, day) - self._clock.unix_seconds())
        usd_per_second = float(budget.amount_usd - spent) / left_seconds
        most_usd = usd_per_second * THROTTLE_BURST_SECONDS
        now_seconds = self._clock.monotonic_seconds()
        if standing.saved_at_seconds is None:
            standing.saved_usd = most_usd
        else:
            gained = (now_seconds - standing.saved_at_seconds) * usd_per_second
            standing.saved_usd = min(most_usd, standing.saved_usd + gained)
        standing.saved_at_seconds = now_seconds
        if standing.saved_usd <= 0 or usd_per_second <= 0:
            wait_seconds = THROTTLE_BURST_SECONDS
            if usd_per_second > 0:
                wait_seconds = -standing.saved_usd / usd_per_second
            raise spending_throttled(budget.period.value, wait_seconds)
