"""Decides for one model deployment after the other, each at its own interval.

The decisions are those of embedded mode: one object becomes record, log line, metric,
trace, Event and status. Carrying it out is the other controller's, which reads the status.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from pydantic import ValidationError

from trierarch.api.v1alpha1.model_deployment import ModelDeployment
from trierarch.autoscaling.decision import ScalingDecision
from trierarch.autoscaling.signals import HourlyBudget
from trierarch.controller.deciding import Decider
from trierarch.core.errors import InvalidInput, TrierarchError
from trierarch.cost.prices import PriceBook
from trierarch_operators.autoscaler.status import (
    build_status,
    says_something_new,
    wants_other_counts,
)
from trierarch_operators.autoscaler.subjects import build_subject
from trierarch_operators.context import ControllerContext
from trierarch_operators.events import EventRecorder
from trierarch_operators.fleet import PlannedVariant
from trierarch_operators.object_cache import Key, Object
from trierarch_operators.price_books import price_of
from trierarch_operators.resources import MODEL_DEPLOYMENTS
from trierarch_operators.status_writes import apply_status

_logger = logging.getLogger(__name__)

FIELD_MANAGER = "trierarch-autoscaler"

_DOCUMENT_LIFE_SECONDS = 1.0
"""One answer of the gateway serves all decisions of this time: it tells of all models."""


class AutoscalerReconciler:
    """Looks at model deployments.

    Args:
        context: What it works with.
        decider: Makes decisions.
        events: Tells people.
        prices: Returns the book of now.
        budgets: Returns what its tenant's budgets leave for a deployment.
    """

    def __init__(
        self,
        context: ControllerContext,
        decider: Decider,
        events: EventRecorder,
        prices: Callable[[], PriceBook],
        budgets: Callable[[Key, str | None], tuple[HourlyBudget, ...]],
    ) -> None:
        self._api = context.api
        self._cache = context.cache
        self._fleet = context.fleet
        self._decider = decider
        self._events = events
        self._prices = prices
        self._budgets = budgets
        self._clock = context.clock
        self._leads = context.leads
        self._asked_seconds = float("-inf")
        self._answer: asyncio.Future[dict[str, object] | None] | None = None
        self._words = asyncio.Lock()

    async def reconcile(self, key: Key) -> float | None:
        """Decide for one deployment; return the seconds until its next decision.

        Raises:
            TrierarchError: If the decision could not be written into the status.
        """
        found = self._cache.get(MODEL_DEPLOYMENTS, key)
        if found is None or not self._leads():
            self._decider.forget(str(key))
            return None
        try:
            deployment = self._fleet.read(found)
        except ValidationError:
            # The other controller says so; a correction is a change and comes here again.
            return None
        spec = deployment.spec
        if found["metadata"].get("deletionTimestamp") or spec.paused or spec.suspend:
            return None
        if spec.replicas == 0:
            return None
        planned = self._plan(found, deployment)
        interval_seconds = float(spec.scaling.behavior.interval_seconds)
        if not any(one.variant.max_replicas for one in planned):
            return interval_seconds
        await self._decide(key, found, deployment, planned)
        return interval_seconds

    def _plan(self, found: Object, deployment: ModelDeployment) -> list[PlannedVariant]:
        planned = []
        for variant in deployment.spec.variants:
            try:
                planned.append(self._fleet.plan(found, deployment, variant))
            except InvalidInput:
                # Said by the other controller; what cannot be run is no choice.
                continue
        return planned

    async def _decide(
        self,
        key: Key,
        found: Object,
        deployment: ModelDeployment,
        planned: list[PlannedVariant],
    ) -> None:
        now_unix_seconds = self._clock.unix_seconds()
        book = self._prices()
        model = deployment.spec.model.name
        names = [one.variant.name for one in planned]
        subject = build_subject(
            key,
            deployment,
            found["metadata"].get("annotations") or {},
            planned,
            {name: self._fleet.replicas(key, model, name) for name in names},
            {one.variant.name: price_of(book, one, now_unix_seconds) for one in planned},
            now_unix_seconds,
            self._budgets(key, deployment.spec.tenant),
        )

        async def act(decision: ScalingDecision) -> None:
            await self._write(key, decision)

        await self._decider.decide(subject, await self._ask_gateway(), act)

    async def _ask_gateway(self) -> dict[str, object] | None:
        now_seconds = self._clock.monotonic_seconds()
        if self._answer is None or now_seconds - self._asked_seconds >= _DOCUMENT_LIFE_SECONDS:
            # Many decisions at once ask only once, and all wait for the answer.
            self._asked_seconds = now_seconds
            self._answer = asyncio.ensure_future(self._decider.ask_gateway())
        return await asyncio.shield(self._answer)

    async def _write(self, key: Key, decision: ScalingDecision) -> None:
        # Others may have written while the engines were asked.
        found = self._cache.get(MODEL_DEPLOYMENTS, key)
        if found is None or not self._leads():
            return
        existing = found.get("status") or {}
        wanted = build_status(decision, existing, found["metadata"]["generation"])
        if not says_something_new(wanted, existing):
            return
        try:
            # Words may wait for each other; numbers are what capacity waits for.
            async with contextlib.nullcontext() if decision.changes else self._words:
                await apply_status(self._api, self._cache, found, wanted, FIELD_MANAGER)
        except TrierarchError as error:
            # The next decision finds the same difference and tries again.
            _logger.warning("decision %s was not carried out: %s", decision.id, error)
            return
        if wants_other_counts(wanted, existing):
            self._events.record(found, "Scale", decision.reason.value, decision.message)
