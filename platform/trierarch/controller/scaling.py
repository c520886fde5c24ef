"""The loop that decides: collect, decide, write down, act.

A decision is written to the ledger before it is acted on, so that nothing
changes without a reason on record. Replicas are never removed on guesses: that
is the pipeline's rule, and this loop only feeds it honest signals.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets

import httpx
from sqlalchemy.exc import SQLAlchemyError

from trierarch.adapters.ledger import Ledger
from trierarch.adapters.ray_serve import RayServe
from trierarch.autoscaling.decision import ScalingDecision
from trierarch.autoscaling.pipeline import decide
from trierarch.autoscaling.signals import (
    CostSignals,
    EngineSignals,
    GatewaySignals,
    Observation,
    StartingReplica,
    VariantObservation,
    measure,
)
from trierarch.autoscaling.state import PipelineState
from trierarch.controller.deployment import ModelDeployment
from trierarch.controller.fleet import Fleet
from trierarch.controller.observing import (
    EngineReader,
    GatewayReader,
    oldest_unix_seconds,
    parse_engine_metrics,
)
from trierarch.controller.telemetry import ControllerMetrics, trace_decision
from trierarch.core.clock import Clock
from trierarch.core.errors import TrierarchError, Unavailable
from trierarch.core.identifiers import DecisionId, ModelName, VariantName
from trierarch.core.replicas import ReplicaEndpoint, ReplicaState
from trierarch.observability.tracing import Tracer
from trierarch.serving.names import DEPLOYMENT_NAME

_logger = logging.getLogger(__name__)

_SCRAPE_TIMEOUT_SECONDS = 2.0
_REPEAT_RECORD_SECONDS = 60.0
"""A decision like the one before it is written down this often: enough to see that the loop
lives, without a row for every look at an idle model."""

_KEPT_COLD_STARTS = 8
_SECONDS_PER_HOUR = 3600.0


@dataclasses.dataclass(slots=True)
class _Memory:
    """What the loop keeps of one model between two decisions."""

    state: PipelineState
    gateway: GatewayReader = dataclasses.field(default_factory=GatewayReader)
    engines: EngineReader = dataclasses.field(default_factory=EngineReader)
    cold_starts_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    recorded_outcome: tuple[object, ...] | None = None
    recorded_seconds: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class ScalingParts:
    """What the loop works with.

    Attributes:
        client: For the gateway and the engines.
        serve: Acts.
        ledger: Costs in, decisions out.
        fleet: What exists.
        metrics: Counts decisions.
        tracer: Traces them.
        clock: Time.
        gateway_admin_url: Where the gateway tells its signals.
        interval_seconds: Between two decisions.
        cost_window_seconds: Over which spend and tokens are compared.
    """

    client: httpx.AsyncClient
    serve: RayServe
    ledger: Ledger
    fleet: Fleet
    metrics: ControllerMetrics
    tracer: Tracer
    clock: Clock
    gateway_admin_url: str
    interval_seconds: float
    cost_window_seconds: float


class Autoscaler:
    """Decides for every model of a fleet, for ever."""

    def __init__(self, parts: ScalingParts) -> None:
        self._parts = parts
        self._memories: dict[str, _Memory] = {}

    async def run(self) -> None:
        """Decide at every interval."""
        parts = self._parts
        while True:
            await asyncio.sleep(parts.interval_seconds)
            if parts.fleet.applications is None:
                continue
            document = await self._ask_gateway()
            for model in parts.fleet.models:
                if parts.fleet.application(model) is not None:
                    await self.decide_once(model, document)

    async def decide_once(
        self, model: ModelDeployment, document: dict[str, object] | None
    ) -> ScalingDecision:
        """Make one decision and act on it.

        Args:
            model: For which.
            document: The gateway's signals; None if it did not answer.
        """
        parts = self._parts
        memory = await self._memory(model)
        began_unix_seconds = parts.clock.unix_seconds()
        observation = await self._observe(model, memory, document)
        observed_unix_seconds = parts.clock.unix_seconds()
        before_seconds = parts.clock.monotonic_seconds()
        decision, memory.state = decide(
            observation,
            model.build_spec(parts.interval_seconds),
            memory.state,
            DecisionId(f"dec-{secrets.token_hex(6)}"),
        )
        duration_seconds = parts.clock.monotonic_seconds() - before_seconds
        decided_unix_seconds = parts.clock.unix_seconds()
        oldest = oldest_unix_seconds(observation.gateway)
        age_seconds = None if oldest is None else max(0.0, decided_unix_seconds - oldest)
        parts.metrics.note_decision(decision, duration_seconds, age_seconds)
        await self._record(memory, decision)
        await self._act(model, decision)
        trace_decision(
            parts.tracer,
            decision,
            began_unix_seconds,
            observed_unix_seconds,
            decided_unix_seconds,
            parts.clock.unix_seconds(),
        )
        return decision

    async def _memory(self, model: ModelDeployment) -> _Memory:
        """Return what is remembered of a model; after a restart from its last decision."""
        memory = self._memories.get(model.name)
        if memory is None:
            memory = _Memory(await asyncio.to_thread(self._restore, model))
            self._memories[model.name] = memory
        return memory

    def _restore(self, model: ModelDeployment) -> PipelineState:
        try:
            records = self._parts.ledger.decisions(deployment=model.deployment, last=1)
            if not records:
                return PipelineState()
            inputs = ScalingDecision.from_record(records[-1]).inputs
            # Deciding again is deterministic, so the state after it need not be stored.
            _, state = decide(inputs.observation, inputs.spec, inputs.state, DecisionId("restored"))
        except (TrierarchError, SQLAlchemyError, ValueError) as error:
            _logger.warning("starting without memory of earlier decisions: %s", error)
            return PipelineState()
        return state

    async def _ask_gateway(self) -> dict[str, object] | None:
        url = self._parts.gateway_admin_url.rstrip("/") + "/api/v1/signals"
        try:
            answer = await self._parts.client.get(url, timeout=_SCRAPE_TIMEOUT_SECONDS)
            answer.raise_for_status()
            document = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            _logger.warning("the gateway's signals cannot be read: %r", error)
            return None
        return document if isinstance(document, dict) else None

    async def _observe(
        self, model: ModelDeployment, memory: _Memory, document: dict[str, object] | None
    ) -> Observation:
        parts = self._parts
        replicas = parts.fleet.replicas(model)
        gateway = self._read_gateway(model, memory, document)
        engine = await self._read_engines(memory, replicas)
        cost, price = await asyncio.to_thread(self._read_costs, model, max(1, len(replicas)))
        for replica in replicas:
            if replica.ready_unix_seconds is not None:
                seconds = max(0.0, replica.ready_unix_seconds - replica.started_unix_seconds)
                memory.cold_starts_seconds.setdefault(replica.replica_id, seconds)
        while len(memory.cold_starts_seconds) > _KEPT_COLD_STARTS:
            del memory.cold_starts_seconds[next(iter(memory.cold_starts_seconds))]
        spec = model.build_spec(parts.interval_seconds).variants[0]
        now_unix_seconds = parts.clock.unix_seconds()
        starts = list(memory.cold_starts_seconds.values())
        expected_seconds = max(starts) if starts else spec.cold_start_seconds
        variant = VariantObservation(
            name=VariantName(model.engine.variant),
            ready=sum(r.state is ReplicaState.READY for r in replicas),
            starting=tuple(
                StartingReplica(
                    expected_ready_unix_seconds=r.started_unix_seconds + expected_seconds,
                    started_unix_seconds=r.started_unix_seconds,
                )
                for r in replicas
                # A failed one is being replaced, which is a start that has been asked for.
                if r.state in (ReplicaState.STARTING, ReplicaState.FAILED)
            ),
            draining=sum(r.state is ReplicaState.DRAINING for r in replicas),
            price_usd_per_hour=measure(price, now_unix_seconds),
            accelerators_per_replica=model.accelerators,
            cold_starts_seconds=tuple(starts),
            engine=engine,
        )
        return Observation(
            now_unix_seconds=now_unix_seconds,
            deployment=model.deployment,
            model=ModelName(model.name),
            variants=(variant,),
            gateway=gateway,
            cost=cost,
        )

    def _read_gateway(
        self, model: ModelDeployment, memory: _Memory, document: dict[str, object] | None
    ) -> GatewaySignals:
        if document is None:
            return memory.gateway.lose()
        try:
            return memory.gateway.read(document, model.name)
        except (KeyError, TypeError, ValueError) as error:
            _logger.warning("the gateway's signals are not what they should be: %r", error)
            return memory.gateway.lose()

    async def _read_engines(
        self, memory: _Memory, replicas: list[ReplicaEndpoint]
    ) -> EngineSignals:
        ready = [r for r in replicas if r.state is ReplicaState.READY and r.port]
        texts = await asyncio.gather(*(self._scrape(r) for r in ready))
        scraped = {
            str(replica.replica_id): None if text is None else parse_engine_metrics(text)
            for replica, text in zip(ready, texts, strict=True)
        }
        return memory.engines.read(scraped, self._parts.clock.unix_seconds())

    async def _scrape(self, replica: ReplicaEndpoint) -> str | None:
        url = f"http://{replica.host}:{replica.port}/metrics"
        try:
            answer = await self._parts.client.get(url, timeout=_SCRAPE_TIMEOUT_SECONDS)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            _logger.debug("replica %s tells no metrics: %r", replica.replica_id, error)
            return None
        return answer.text

    def _read_costs(
        self, model: ModelDeployment, replicas: int
    ) -> tuple[CostSignals, float | None]:
        """Return the cost signals and the price of one replica per hour, if it is known."""
        parts = self._parts
        try:
            rate = parts.ledger.spend_rate(ModelName(model.name), parts.cost_window_seconds)
            spends = [s for s in parts.ledger.current_spend() if s.model == model.name]
        except (TrierarchError, SQLAlchemyError) as error:
            _logger.warning("costs cannot be read: %s", error)
            return CostSignals(), None
        counted = sum(spend.replicas for spend in spends)
        price = float(sum(s.usd_per_hour for s in spends)) / counted if counted else None
        if rate.observed_seconds <= 0:
            return CostSignals(), price
        now_unix_seconds = parts.clock.unix_seconds()
        per_hour = _SECONDS_PER_HOUR / rate.observed_seconds
        tokens = rate.tokens
        return CostSignals(
            spend_usd_per_hour=measure(float(rate.usd_per_hour), now_unix_seconds),
            input_tokens_per_hour=measure(tokens.input_tokens * per_hour, now_unix_seconds),
            cached_tokens_per_hour=measure(tokens.cached_tokens * per_hour, now_unix_seconds),
            output_tokens_per_hour=measure(tokens.output_tokens * per_hour, now_unix_seconds),
        ), price

    async def _record(self, memory: _Memory, decision: ScalingDecision) -> None:
        outcome = (tuple(decision.replicas.items()), decision.reason, decision.binding)
        now_seconds = self._parts.clock.monotonic_seconds()
        is_due = now_seconds - memory.recorded_seconds >= _REPEAT_RECORD_SECONDS
        if not decision.changes and outcome == memory.recorded_outcome and not is_due:
            return
        _logger.info(
            "%s",
            decision.message,
            extra={
                "decision_id": str(decision.id),
                "deployment": decision.deployment,
                "reason": decision.reason.value,
                "binding": decision.binding.value,
                "desired_replicas": decision.desired_replicas,
                "previous_replicas": sum(decision.previous.values()),
            },
        )
        try:
            await asyncio.to_thread(self._parts.ledger.record_decision, decision.as_record())
        except (TrierarchError, SQLAlchemyError) as error:
            # Capacity must follow load even while the books are closed; the log has the line.
            _logger.error("decision %s was not written: %s", decision.id, error)
            return
        memory.recorded_outcome, memory.recorded_seconds = outcome, now_seconds

    async def _act(self, model: ModelDeployment, decision: ScalingDecision) -> None:
        application = self._parts.fleet.application(model)
        if application is None or application.target_replicas in (None, decision.desired_replicas):
            return
        try:
            await self._parts.serve.scale(
                model.application, DEPLOYMENT_NAME, decision.desired_replicas
            )
        except Unavailable as error:
            # The next decision finds the same difference and tries again.
            _logger.warning("decision %s was not carried out: %s", decision.id, error)
