"""A tenant's own limits and budgets, from its terms in the ledger.

Whether a budget can pay is asked of the leases that this process holds (``leases.py``). What a
tenant has spent, for it to see and for ``Throttle`` to pace, is what the ledger last told, plus
what this process has charged since. Without terms a tenant has no limits but the gateway's own.
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
from trierarch.gateway.admission.lease_keeper import LeaseKeeper
from trierarch.gateway.errors import (
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
    unsettled_usd: Decimal = NOTHING
    unsettled: deque[tuple[int, Decimal]] = dataclasses.field(default_factory=deque)
    saved_usd: float = 0.0
    saved_at_seconds: float | None = None


class TenantDesk:
    """Asks tenants' terms and counts what they do here.

    Args:
        source: Terms and charges.
        clock: Time.

    Attributes:
        keeper: Leases of budgets.
    """

    def __init__(self, source: TenantSource, clock: Clock) -> None:
        self.keeper = LeaseKeeper(source, clock)
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

    def check_pace(self, terms: TenantTerms) -> None:
        """Hold back a tenant that is ahead of the pace at which a budget lasts.

        Raises:
            GatewayError: If so.
        """
        for budget in terms.budgets:
            if budget.action is Action.THROTTLE:
                day = day_of(self._clock.unix_seconds())
                self._pace(terms.tenant, budget, self._spent(terms.tenant, budget, day), day)

    def check_parallel(self, terms: TenantTerms) -> None:
        """Refuse one request more than the tenant may have at the same time.

        Raises:
            GatewayError: If so.
        """
        limit, standing = terms.parallel_requests, self._standings.get(terms.tenant)
        if limit is not None and standing is not None and standing.running >= limit:
            raise parallel_limit_reached(limit, PARALLEL_RETRY_SECONDS)

    def begin(self, tenant: TenantId) -> None:
        """Count a request that is let in."""
        self._standings.setdefault(tenant, _Standing()).running += 1

    def end(self, tenant: TenantId) -> None:
        """Give back the place that ``begin`` has taken."""
        self._standings[tenant].running -= 1

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
        # Other processes pace the same budget: each takes an equal part.
        holders = self.keeper.leases.holders_of(tenant)
        usd_per_second = float(budget.amount_usd - spent) / left_seconds / holders
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
