"""Tenants' terms into the ledger, where gateways read them; what was spent into their status.

The whole set is compared at every look, so nothing has to be remembered: a Tenant that was
deleted while no operator ran is gone from the ledger after the first one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from sqlalchemy.exc import SQLAlchemyError

from trierarch.adapters.ledger import Ledger
from trierarch.autoscaling.signals import HourlyBudget
from trierarch.controller.telemetry import ControllerMetrics
from trierarch.core.errors import TrierarchError
from trierarch.core.identifiers import ModelName
from trierarch.cost.budgets import SECONDS_PER_DAY, Period, TenantTerms, day_of, first_day
from trierarch.cost.prices import PriceBook
from trierarch.ports import TenantBook
from trierarch_operators.conditions import holds
from trierarch_operators.context import ControllerContext
from trierarch_operators.events import EventRecorder
from trierarch_operators.object_cache import Key, Object, key_of
from trierarch_operators.price_books import price_of
from trierarch_operators.resources import MODEL_DEPLOYMENTS, TENANTS
from trierarch_operators.tenants.allowances import PaidDeployment, build_allowances
from trierarch_operators.tenants.status import build_status, find_conditions
from trierarch_operators.tenants.terms import TenantReading, read_tenants

_logger = logging.getLogger(__name__)

FIELD_MANAGER = "trierarch-tenant-controller"

_GATHER_SECONDS = 0.2
"""Changes that come together, as in an applied file, are taken together."""


TOLD = frozenset({"BudgetUsedUp", "TenantNameTaken", "LedgerMissing"})
"""Reasons that are worth an Event when a condition changes to them."""


class TenantReconciler:
    """Looks at all tenants.

    Args:
        context: What it works with.
        ledger: Where terms go and charges come from; None where there is none.
        metrics: Budget figures.
        events: Tells people.
        prices: Returns the book of now.
    """

    def __init__(
        self,
        context: ControllerContext,
        ledger: Ledger | None,
        metrics: ControllerMetrics,
        events: EventRecorder,
        prices: Callable[[], PriceBook],
    ) -> None:
        self._api = context.api
        self._cache = context.cache
        self._fleet = context.fleet
        self._ledger = ledger
        self._metrics = metrics
        self._events = events
        self._prices = prices
        self._clock = context.clock
        self._leads = context.leads
        self._changed = asyncio.Event()
        self._allowances: Mapping[Key, tuple[HourlyBudget, ...]] = {}
        self._told_missing: set[tuple[str, int]] = set()

    def budgets_of(self, deployment: Key, payer: str | None) -> tuple[HourlyBudget, ...]:
        """Return what tenants' budgets leave for one model deployment, as last found.

        Before the first look nobody knows, and nothing may grow on that.

        Args:
            deployment: Which.
            payer: The tenant that its spec names; None if it names none.
        """
        if payer is None or self._ledger is None:
            return ()
        unknown = (HourlyBudget(f"of tenant {payer}, not looked at yet,", 0.0),)
        return self._allowances.get(deployment, unknown)

    def note_change(self) -> None:
        """Look again soon."""
        self._changed.set()

    async def run(self, interval_seconds: float) -> None:
        """Look at every interval and soon after every change, for ever."""
        while True:
            try:
                await asyncio.wait_for(self._changed.wait(), interval_seconds)
                await asyncio.sleep(_GATHER_SECONDS)
            except TimeoutError:
                pass
            self._changed.clear()
            if not self._leads() or not self._fleet.is_known:
                continue
            try:
                await self.once()
            except (TrierarchError, SQLAlchemyError) as error:
                _logger.warning("tenants were not brought up to date: %s", error)

    async def once(self) -> None:
        """Bring ledger, statuses and allowances up to date.

        Raises:
            TrierarchError: If the ledger or the API server refuses.
        """
        readings = read_tenants(self._cache.all(TENANTS))
        book = None
        if self._ledger is not None:
            terms = [reading.terms for reading in readings if reading.terms is not None]
            book = await asyncio.to_thread(_exchange, self._ledger, terms)
            await self._allow(self._ledger, readings)
            self._metrics.set_budgets(book, self._clock.unix_seconds())
        for reading in readings:
            await self._write(reading, book)

    async def _allow(self, ledger: Ledger, readings: Sequence[TenantReading]) -> None:
        by_name = {key_of(r.found): r.terms for r in readings if r.terms is not None}
        costs, unlimited = self._hourly_costs(by_name)
        now_unix_seconds = self._clock.unix_seconds()

        def measure() -> list[PaidDeployment]:
            return [
                PaidDeployment(
                    key, terms, usd_per_hour, _spent(ledger, model, terms, now_unix_seconds)
                )
                for key, (model, terms, usd_per_hour) in costs.items()
            ]

        paid = await asyncio.to_thread(measure)
        self._allowances = build_allowances(paid, now_unix_seconds) | dict.fromkeys(unlimited, ())

    def _hourly_costs(
        self, by_name: Mapping[Key, TenantTerms]
    ) -> tuple[dict[Key, tuple[ModelName, TenantTerms, Decimal | None]], set[Key]]:
        """Return model, payer and present cost of every deployment that a tenant pays for.

        And those whose tenant does not exist.
        """
        if not any("tenant" in one["spec"] for one in self._cache.all(MODEL_DEPLOYMENTS)):
            return {}, set()
        book, now = self._prices(), self._clock.unix_seconds()
        costs: dict[Key, tuple[ModelName, TenantTerms, Decimal | None]] = {}
        unlimited: set[Key] = set()
        for found, deployment, planned in self._fleet.planned():
            key, payer = key_of(found), deployment.spec.tenant
            if payer is None:
                continue
            terms = by_name.get(Key(key.namespace, payer))
            if terms is None:
                unlimited.add(key)
                self._tell_missing(found, payer)
                continue
            model = ModelName(deployment.spec.model.name)
            before = costs.get(key, (model, terms, Decimal(0)))[2]
            groups = len(self._fleet.groups(key, planned.variant.name))
            price = price_of(book, planned, now) if groups else Decimal(0)
            cost = None if before is None or price is None else before + price * groups
            costs[key] = (model, terms, cost)
        return costs, unlimited

    def _tell_missing(self, found: Object, payer: str) -> None:
        metadata = found["metadata"]
        told = (metadata["uid"], metadata["generation"])
        if told not in self._told_missing:
            self._told_missing.add(told)
            note = f"spec.tenant: there is no Tenant {payer} here, so no tenant's budget limits it"
            self._events.record(found, "Budget", "TenantMissing", note, "Warning")

    async def _write(self, reading: TenantReading, book: TenantBook | None) -> None:
        found, terms = reading.found, reading.terms
        now_unix_seconds = self._clock.unix_seconds()
        spent = None
        if book is not None and terms is not None:
            spent = book.spent_by_day.get(terms.tenant, {})
        findings = [] if reading.problem is None else [reading.problem]
        if terms is not None:
            findings = find_conditions(terms, spent, now_unix_seconds)
        existing = found.get("status") or {}
        generation = found["metadata"]["generation"]
        wanted = build_status(terms, findings, spent, existing, generation, now_unix_seconds)
        if holds(wanted, existing) and wanted.keys() == existing.keys():
            return
        key = key_of(found)
        written = await self._api.apply(
            TENANTS,
            {
                "apiVersion": TENANTS.api_version,
                "kind": "Tenant",
                "metadata": {
                    "name": key.name,
                    "namespace": key.namespace,
                    # Without it the API server would make an object that was deleted in between.
                    "uid": found["metadata"]["uid"],
                },
                "status": wanted,
            },
            subresource="status",
            field_manager=FIELD_MANAGER,
        )
        self._cache.put(TENANTS, written)
        before = {c["type"]: c["reason"] for c in existing.get("conditions", ())}
        for finding in findings:
            is_new = before.get(finding.type) != finding.reason
            if is_new and finding.reason in TOLD:
                self._events.record(found, "Budget", finding.reason, finding.message, "Warning")


def _exchange(ledger: Ledger, terms: Sequence[TenantTerms]) -> TenantBook:
    """Bring terms into the ledger; return what is in it."""
    changed = ledger.replace_tenants(terms, actor=FIELD_MANAGER)
    if changed:
        _logger.info("terms of %d tenants changed", changed)
    return ledger.tenant_book()


def _spent(
    ledger: Ledger, model: ModelName, terms: TenantTerms, now_unix_seconds: float
) -> dict[Period, Decimal]:
    """Return what a model's capacity has cost in the present periods of the budgets."""
    day = day_of(now_unix_seconds)
    return {
        period: ledger.capacity_spend(model, float(first_day(period, day) * SECONDS_PER_DAY)).amount
        for period in {budget.period for budget in terms.budgets}
    }
