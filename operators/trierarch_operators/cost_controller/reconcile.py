"""Prices into the ledger, capacity into the ledger, unit cost into the status."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from decimal import Decimal

from sqlalchemy.exc import SQLAlchemyError

from trierarch.adapters.ledger import Ledger
from trierarch.controller.accounting import Priced
from trierarch.core.errors import TrierarchError
from trierarch.core.identifiers import ModelName, VariantName
from trierarch.cost.documents import PriceDocument
from trierarch.cost.prices import ANY_REGION, CapacityType, PriceBook, PriceEntry
from trierarch.cost.unit_cost import UnitCost
from trierarch_operators.context import ControllerContext
from trierarch_operators.cost_controller.status import build_status, is_written
from trierarch_operators.object_cache import Key, Object, key_of, version_of
from trierarch_operators.price_books import price_of, read_entries
from trierarch_operators.resources import MODEL_DEPLOYMENTS, PRICE_BOOKS
from trierarch_operators.status_writes import apply_status

_logger = logging.getLogger(__name__)

FIELD_MANAGER = "trierarch-cost-controller"


class CostReconciler:
    """Looks at prices and at what exists.

    Args:
        context: What it works with.
        ledger: The books; None where there are none, which leaves unit costs missing.
        window_seconds: Over which spend and tokens are compared.
    """

    def __init__(
        self,
        context: ControllerContext,
        ledger: Ledger | None,
        window_seconds: float,
    ) -> None:
        self._api = context.api
        self._cache = context.cache
        self._fleet = context.fleet
        self._ledger = ledger
        self._window_seconds = window_seconds
        self._clock = context.clock
        self._leads = context.leads
        self._read: tuple[object, PriceBook] = ((), PriceBook())
        self._imported: list[PriceEntry] = []

    def prices(self) -> PriceBook:
        """Return the book of all PriceBooks of the cluster."""
        books = tuple(self._cache.all(PRICE_BOOKS))
        basis = tuple(sorted((key_of(book).name, version_of(book)) for book in books))
        if self._read[0] != basis:
            self._read = (basis, PriceBook(read_entries(books)))
        return self._read[1]

    def priced(self) -> list[Priced] | None:
        """Return all replicas with what prices them; None while this process does not lead."""
        if not self._leads() or not self._fleet.is_known:
            return None
        return [
            Priced(
                model=ModelName(deployment.spec.model.name),
                variant=VariantName(planned.variant.name),
                replicas=self._fleet.replicas(
                    key_of(found), deployment.spec.model.name, planned.variant.name
                ),
                accelerator=planned.price_key,
                accelerators=planned.plan.layout.accelerators,
                capacity_type=CapacityType(planned.variant.capacity_type.value),
                region=planned.accelerator_class.region or ANY_REGION,
            )
            for found, deployment, planned in self._fleet.planned()
        ]

    async def run(self, interval_seconds: float) -> None:
        """Import prices and write what things cost, at every interval."""
        while True:
            await asyncio.sleep(interval_seconds)
            if not self._leads():
                continue
            try:
                await self.once()
            except (TrierarchError, SQLAlchemyError) as error:
                _logger.warning("costs were not brought up to date: %s", error)

    async def once(self) -> None:
        """Import prices and write what every deployment costs.

        Raises:
            TrierarchError: If the ledger or the API server refuses.
        """
        await self._import_prices()
        costs: dict[Key, dict[str, Decimal]] = {}
        book, now = self.prices(), self._clock.unix_seconds()
        models: dict[Key, str] = {}
        for found, deployment, planned in self._fleet.planned():
            key = key_of(found)
            models[key] = deployment.spec.model.name
            own = costs.setdefault(key, {})
            price = price_of(book, planned, now)
            if price is not None:
                count = len(self._fleet.groups(key, planned.variant.name))
                own[planned.variant.name] = price * count
        for key, hourly_costs in costs.items():
            unit_cost = None
            if self._ledger is not None:
                unit_cost = await asyncio.to_thread(self._unit_cost, self._ledger, models[key])
            await self._write(key, hourly_costs, unit_cost)

    def _unit_cost(self, ledger: Ledger, model: str) -> Decimal | None:
        found = ledger.spend_rate(ModelName(model), self._window_seconds).unit_cost
        return found.usd_per_million_tokens if isinstance(found, UnitCost) else None

    async def _import_prices(self) -> None:
        entries: Sequence[PriceEntry] = list(self.prices())
        if self._ledger is None or entries == self._imported:
            return
        document = PriceDocument(prices=tuple(entries))
        await asyncio.to_thread(
            self._ledger.import_prices, document, actor=FIELD_MANAGER, source="PriceBook"
        )
        self._imported = list(entries)

    async def _write(
        self, key: Key, hourly_costs: dict[str, Decimal], unit_cost: Decimal | None
    ) -> None:
        found: Object | None = self._cache.get(MODEL_DEPLOYMENTS, key)
        if found is None or found["metadata"].get("deletionTimestamp"):
            return
        wanted = build_status(hourly_costs, unit_cost)
        if is_written(wanted, found.get("status") or {}):
            return
        await apply_status(self._api, self._cache, found, wanted, FIELD_MANAGER)
