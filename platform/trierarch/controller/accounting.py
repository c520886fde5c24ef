"""Writes down what exists and what it costs, and splits that over who used it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from trierarch.adapters.ledger import Ledger
from trierarch.adapters.ledger.capacity import CapacityUnit, ObservedReplica
from trierarch.controller.fleet import Fleet
from trierarch.controller.telemetry import ControllerMetrics
from trierarch.core.errors import TrierarchError
from trierarch.core.identifiers import ModelName
from trierarch.core.replicas import ReplicaEndpoint, ReplicaState

_logger = logging.getLogger(__name__)


class Accountant:
    """The cost controller.

    Args:
        ledger: The books.
        fleet: What exists.
        metrics: Cost figures.
        window_seconds: Over which spend and tokens are compared.
    """

    def __init__(
        self, ledger: Ledger, fleet: Fleet, metrics: ControllerMetrics, window_seconds: float
    ) -> None:
        self._ledger = ledger
        self._fleet = fleet
        self._metrics = metrics
        self._window_seconds = window_seconds

    async def run_capacity(self, interval_seconds: float) -> None:
        """Enter what exists, for ever."""
        while True:
            if self._fleet.applications is not None:
                await self._guard("capacity was not written", self.observe)
            await asyncio.sleep(interval_seconds)

    async def run_allocation(self, interval_seconds: float) -> None:
        """Split what capacity cost, for ever."""
        while True:
            await asyncio.sleep(interval_seconds)
            await self._guard("costs were not allocated", self.allocate)

    async def _guard(self, what: str, work: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(work)
        except (TrierarchError, SQLAlchemyError) as error:
            # The ledger catches up: intervals are closed by time, not by the number of looks.
            _logger.warning("%s: %s", what, error)

    def observe(self) -> None:
        """Enter every replica that exists now."""
        observed = []
        for model in self._fleet.models:
            for replica in self._fleet.replicas(model):
                unit = CapacityUnit(
                    replica_id=replica.replica_id,
                    model=ModelName(model.name),
                    variant=replica.variant,
                    accelerator=model.accelerator,
                    accelerators=model.accelerators,
                )
                observed.append(
                    ObservedReplica(
                        unit, replica.state, replica.started_unix_seconds, _since(replica)
                    )
                )
        self._ledger.observe_capacity(observed)

    def allocate(self) -> None:
        """Split what is due and refresh the cost figures."""
        self._ledger.allocate_due()
        self._metrics.set_drift(self._ledger.ledger_drift())
        self._metrics.set_spend(self._ledger.current_spend())
        for model in self._fleet.models:
            rate = self._ledger.spend_rate(ModelName(model.name), self._window_seconds)
            self._metrics.set_unit_cost(model.name, model.engine.variant, rate.unit_cost)


def _since(replica: ReplicaEndpoint) -> float | None:
    if replica.state is ReplicaState.READY:
        return replica.ready_unix_seconds
    return replica.started_unix_seconds if replica.state is ReplicaState.STARTING else None
