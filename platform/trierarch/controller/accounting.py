"""Writes down what exists and what it costs, and splits that over who used it.

The same in embedded mode and in a cluster: who looks after the replicas tells what there is.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Sequence

from sqlalchemy.exc import SQLAlchemyError

from trierarch.adapters.ledger import Ledger
from trierarch.adapters.ledger.capacity import CapacityUnit, ObservedReplica
from trierarch.controller.telemetry import ControllerMetrics
from trierarch.core.errors import TrierarchError
from trierarch.core.identifiers import ModelName, VariantName
from trierarch.core.replicas import ReplicaEndpoint, ReplicaState
from trierarch.cost.prices import ANY_REGION, CapacityType

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Priced:
    """The replicas of one variant, and what prices them.

    Attributes:
        accelerators: Of one replica, in the price book's unit.
    """

    model: ModelName
    variant: VariantName
    replicas: Sequence[ReplicaEndpoint]
    accelerator: str
    accelerators: int
    capacity_type: CapacityType = CapacityType.ON_DEMAND
    region: str = ANY_REGION


class Accountant:
    """The cost controller.

    Args:
        ledger: The books.
        look: Returns everything that exists; None before that is known.
        metrics: Cost figures.
        window_seconds: Over which spend and tokens are compared.
    """

    def __init__(
        self,
        ledger: Ledger,
        look: Callable[[], Sequence[Priced] | None],
        metrics: ControllerMetrics,
        window_seconds: float,
    ) -> None:
        self._ledger = ledger
        self._look = look
        self._metrics = metrics
        self._window_seconds = window_seconds

    async def run_capacity(self, interval_seconds: float) -> None:
        """Enter what exists, for ever."""
        while True:
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
        """Enter every replica that exists now, if that is known."""
        priced = self._look()
        if priced is None:
            return
        observed = []
        for variant in priced:
            for replica in variant.replicas:
                unit = CapacityUnit(
                    replica_id=replica.replica_id,
                    model=variant.model,
                    variant=variant.variant,
                    accelerator=variant.accelerator,
                    accelerators=variant.accelerators,
                    capacity_type=variant.capacity_type,
                    region=variant.region,
                )
                observed.append(
                    ObservedReplica(
                        unit, replica.state, replica.started_unix_seconds, _since(replica)
                    )
                )
        self._ledger.observe_capacity(observed)

    def allocate(self) -> None:
        """Split what is due and refresh the cost figures, if it is known what exists."""
        priced = self._look()
        if priced is None:
            return
        self._ledger.allocate_due()
        self._metrics.set_drift(self._ledger.ledger_drift())
        self._metrics.set_spend(self._ledger.current_spend())
        for variant in priced:
            rate = self._ledger.spend_rate(variant.model, self._window_seconds)
            self._metrics.set_unit_cost(variant.model, variant.variant, rate.unit_cost)


def _since(replica: ReplicaEndpoint) -> float | None:
    if replica.state is ReplicaState.READY:
        return replica.ready_unix_seconds
    return replica.started_unix_seconds if replica.state is ReplicaState.STARTING else None
