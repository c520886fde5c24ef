"""One decision from collecting to carrying out: the same in embedded mode and in a cluster.

A decision is written to the ledger before it is acted on, so that nothing
changes without a reason on record. Replicas are never removed on guesses: that
is the pipeline's rule, and this module only feeds it honest signals.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence

import httpx
from sqlalchemy.exc import SQLAlchemyError

from trierarch.adapters.ledger import Ledger
from trierarch.autoscaling.decision import POLICY_VERSION, ScalingDecision
from trierarch.autoscaling.pipeline import decide
from trierarch.autoscaling.signals import (
    CostSignals,
    EngineSignals,
    GatewaySignals,
    HourlyBudget,
    Observation,
    StartingReplica,
    VariantObservation,
    measure,
)
from trierarch.autoscaling.specification import ScalingSpec
from trierarch.autoscaling.state import PipelineState, SizingState
from trierarch.controller.admissions import AdmissionBook
from trierarch.controller.gateways import Gateways
from trierarch.controller.observing import (
    EngineReader,
    GatewayReader,
    oldest_unix_seconds,
    parse_engine_metrics,
)
from trierarch.controller.outcomes import Outcome, read_outcome
from trierarch.controller.telemetry import ControllerMetrics, trace_decision
from trierarch.core.clock import Clock
from trierarch.core.errors import TrierarchError
from trierarch.core.identifiers import DecisionId, ModelName, VariantName
from trierarch.core.replicas import ReplicaEndpoint, ReplicaState
from trierarch.observability.tracing import Tracer

_logger = logging.getLogger(__name__)

_SCRAPE_TIMEOUT_SECONDS = 2.0
_REPEAT_RECORD_SECONDS = 60.0
"""A decision like the one before it is written down this often: enough to see that the loop
lives, without a row for every look at an idle model."""

_KEPT_COLD_STARTS = 8
_SECONDS_PER_HOUR = 3600.0

Act = Callable[[ScalingDecision], Awaitable[None]]
"""Carries a decision out."""


@dataclasses.dataclass(frozen=True, slots=True)
class VariantSubject:
    """One variant as it is now.

    Attributes:
        replicas: In whatever state.
        accelerators: Of one replica, in the price book's unit.
        price_usd_per_hour: Of one replica; None takes what the ledger counts.
        obtainable_replicas: How many more the cluster can give; None if unknown.
    """

    name: VariantName
    replicas: Sequence[ReplicaEndpoint]
    accelerators: int
    price_usd_per_hour: float | None = None
    obtainable_replicas: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """What a decision is made for.

    Attributes:
        deployment: ``NAMESPACE/NAME``.
        model: Served model name.
        spec: What was asked for.
        variants: In the order of the spec.
        approved_usd_per_hour: Hourly cost that a person has approved; None if nobody has.
        budgets: What budgets beside its own leave for it.
    """

    deployment: str
    model: ModelName
    spec: ScalingSpec
    variants: tuple[VariantSubject, ...]
    approved_usd_per_hour: float | None = None
    budgets: tuple[HourlyBudget, ...] = ()


@dataclasses.dataclass(slots=True)
class _Memory:
    """What is kept of one deployment between two decisions."""

    state: PipelineState
    gateway: GatewayReader = dataclasses.field(default_factory=GatewayReader)
    engines: dict[str, EngineReader] = dataclasses.field(default_factory=dict)
    cold_starts_seconds: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    outcomes: dict[str, dict[str, Outcome]] = dataclasses.field(default_factory=dict)
    recorded_outcome: tuple[object, ...] | None = None
    recorded_seconds: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class DecidingParts:
    """What decisions are made with.

    Attributes:
        client: For the gateway and the engines.
        ledger: Costs in, decisions out; None leaves costs missing and records nothing.
        metrics: Counts decisions.
        tracer: Traces them.
        clock: Time.
        admissions: Takes what decisions say of lanes.
        gateway_admin_url: Where gateways tell their signals, each address of the name a process;
            empty leaves them missing.
        cost_window_seconds: Over which spend and tokens are compared.
    """

    client: httpx.AsyncClient
    ledger: Ledger | None
    metrics: ControllerMetrics
    tracer: Tracer
    clock: Clock
    admissions: AdmissionBook
    gateway_admin_url: str
    cost_window_seconds: float


class Decider:
    """Makes decisions, one deployment at a time, and remembers what the next one needs."""

    def __init__(self, parts: DecidingParts) -> None:
        self._parts = parts
        self._memories: dict[str, _Memory] = {}
        self._gateways = (
            Gateways(parts.client, parts.gateway_admin_url) if parts.gateway_admin_url else None
        )

    def forget(self, deployment: str) -> None:
        """Drop what is remembered of a deployment that is gone."""
        self._memories.pop(deployment, None)
        self._parts.admissions.forget(deployment)

    def outcomes(self, deployment: str, variant: str) -> Mapping[str, Outcome]:
        """Return how requests ended at a variant's replicas, by replica, when last looked at."""
        memory = self._memories.get(deployment)
        return {} if memory is None else memory.outcomes.get(variant, {})

    async def decide(
        self, subject: Subject, document: dict[str, object] | None, act: Act
    ) -> ScalingDecision:
        """Make one decision and act on it.

        Args:
            subject: For which.
            document: The gateway's signals; None if it did not answer.
            act: Carries it out.
        """
        parts = self._parts
        memory = await self._memory(subject.deployment)
        began_unix_seconds = parts.clock.unix_seconds()
        observation = await self._observe(subject, memory, document)
        observed_unix_seconds = parts.clock.unix_seconds()
        before_seconds = parts.clock.monotonic_seconds()
        decision, memory.state = decide(
            observation, subject.spec, memory.state, DecisionId(f"dec-{secrets.token_hex(6)}")
        )
        duration_seconds = parts.clock.monotonic_seconds() - before_seconds
        decided_unix_seconds = parts.clock.unix_seconds()
        oldest = oldest_unix_seconds(observation.gateway)
        age_seconds = None if oldest is None else max(0.0, decided_unix_seconds - oldest)
        parts.metrics.note_decision(decision, duration_seconds, age_seconds)
        parts.admissions.note(decision)
        await self._record(memory, decision)
        await act(decision)
        trace_decision(
            parts.tracer,
            decision,
            began_unix_seconds,
            observed_unix_seconds,
            decided_unix_seconds,
            parts.clock.unix_seconds(),
        )
        return decision

    async def _memory(self, deployment: str) -> _Memory:
        """Return what is remembered of a deployment; after a restart from its last decision."""
        memory = self._memories.get(deployment)
        if memory is None:
            state = PipelineState()
            if self._parts.ledger is not None:
                state = await asyncio.to_thread(restore_state, self._parts.ledger, deployment)
            memory = self._memories[deployment] = _Memory(state)
        return memory

    async def ask_gateway(self) -> dict[str, object] | None:
        """Return the signals of all models from all gateways; None if they are not all known."""
        return None if self._gateways is None else await self._gateways.ask()

    async def _observe(
        self, subject: Subject, memory: _Memory, document: dict[str, object] | None
    ) -> Observation:
        gateway = _read_gateway(subject, memory, document)
        cost, prices = CostSignals(), dict[str, float]()
        if self._parts.ledger is not None:
            cost, prices = await asyncio.to_thread(self._read_costs, self._parts.ledger, subject)
        variants = [
            await self._observe_variant(subject, variant, memory, prices.get(variant.name))
            for variant in subject.variants
        ]
        return Observation(
            now_unix_seconds=self._parts.clock.unix_seconds(),
            deployment=subject.deployment,
            model=subject.model,
            variants=tuple(variants),
            gateway=gateway,
            cost=cost,
            approved_usd_per_hour=subject.approved_usd_per_hour,
            budgets=subject.budgets,
        )

    async def _observe_variant(
        self, subject: Subject, variant: VariantSubject, memory: _Memory, price: float | None
    ) -> VariantObservation:
        replicas = variant.replicas
        engine = await self._read_engines(memory, variant)
        starts = memory.cold_starts_seconds.setdefault(variant.name, {})
        for replica in replicas:
            if replica.ready_unix_seconds is not None:
                seconds = max(0.0, replica.ready_unix_seconds - replica.started_unix_seconds)
                starts.setdefault(replica.replica_id, seconds)
        while len(starts) > _KEPT_COLD_STARTS:
            del starts[next(iter(starts))]
        believed_seconds = subject.spec.variant(variant.name).cold_start_seconds
        expected_seconds = max(starts.values()) if starts else believed_seconds
        if variant.price_usd_per_hour is not None:
            price = variant.price_usd_per_hour
        return VariantObservation(
            name=variant.name,
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
            price_usd_per_hour=measure(price, self._parts.clock.unix_seconds()),
            accelerators_per_replica=variant.accelerators,
            obtainable_replicas=variant.obtainable_replicas,
            cold_starts_seconds=tuple(starts.values()),
            engine=engine,
        )

    async def _read_engines(self, memory: _Memory, variant: VariantSubject) -> EngineSignals:
        ready = [r for r in variant.replicas if r.state is ReplicaState.READY and r.port]
        texts = await asyncio.gather(*(self._scrape(r) for r in ready))
        scraped = {
            str(replica.replica_id): None if text is None else parse_engine_metrics(text)
            for replica, text in zip(ready, texts, strict=True)
        }
        memory.outcomes[variant.name] = {
            replica: read_outcome(metrics) for replica, metrics in scraped.items() if metrics
        }
        reader = memory.engines.setdefault(variant.name, EngineReader())
        return reader.read(scraped, self._parts.clock.unix_seconds())

    async def _scrape(self, replica: ReplicaEndpoint) -> str | None:
        url = f"http://{replica.host}:{replica.port}/metrics"
        try:
            answer = await self._parts.client.get(url, timeout=_SCRAPE_TIMEOUT_SECONDS)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            _logger.debug("replica %s tells no metrics: %r", replica.replica_id, error)
            return None
        return answer.text

    def _read_costs(self, ledger: Ledger, subject: Subject) -> tuple[CostSignals, dict[str, float]]:
        """Return the cost signals, and the price of one replica per hour where it is known."""
        parts = self._parts
        try:
            rate = ledger.spend_rate(subject.model, parts.cost_window_seconds)
            spends = [s for s in ledger.current_spend() if s.model == subject.model]
        except (TrierarchError, SQLAlchemyError) as error:
            _logger.warning("costs cannot be read: %s", error)
            return CostSignals(), {}
        prices = {}
        for name in {str(spend.variant) for spend in spends}:
            own = [spend for spend in spends if spend.variant == name]
            counted = sum(spend.replicas for spend in own)
            if counted:
                prices[name] = float(sum(spend.usd_per_hour for spend in own)) / counted
        if rate.observed_seconds <= 0:
            return CostSignals(), prices
        now_unix_seconds = parts.clock.unix_seconds()
        per_hour = _SECONDS_PER_HOUR / rate.observed_seconds
        tokens = rate.tokens
        return CostSignals(
            spend_usd_per_hour=measure(float(rate.usd_per_hour), now_unix_seconds),
            input_tokens_per_hour=measure(tokens.input_tokens * per_hour, now_unix_seconds),
            cached_tokens_per_hour=measure(tokens.cached_tokens * per_hour, now_unix_seconds),
            output_tokens_per_hour=measure(tokens.output_tokens * per_hour, now_unix_seconds),
        ), prices

    async def _record(self, memory: _Memory, decision: ScalingDecision) -> None:
        outcome = (
            tuple(decision.previous.items()),
            tuple(decision.replicas.items()),
            decision.reason,
            decision.binding,
        )
        now_seconds = self._parts.clock.monotonic_seconds()
        is_due = now_seconds - memory.recorded_seconds >= _REPEAT_RECORD_SECONDS
        if outcome == memory.recorded_outcome and not is_due:
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
        ledger = self._parts.ledger
        if ledger is not None:
            try:
                await asyncio.to_thread(ledger.record_decision, decision.as_record())
            except (TrierarchError, SQLAlchemyError) as error:
                # Capacity must follow load even while the books are closed; the log has the line.
                _logger.error("decision %s was not written: %s", decision.id, error)
                return
        memory.recorded_outcome, memory.recorded_seconds = outcome, now_seconds


def restore_state(ledger: Ledger, deployment: str) -> PipelineState:
    """Return what the deployment's last decision left to remember; nothing if that is not known."""
    try:
        records = ledger.decisions(deployment=deployment, last=1)
        if not records:
            return PipelineState()
        last = ScalingDecision.from_record(records[-1])
        inputs = last.inputs
        # Deciding again is deterministic, so the state after it need not be stored.
        _, state = decide(inputs.observation, inputs.spec, inputs.state, DecisionId("restored"))
        if last.policy_version != POLICY_VERSION:
            # What another version learned may be in other units; it is learned again in minutes,
            # and until then nothing is removed.
            state = dataclasses.replace(state, sizing=SizingState())
    except (TrierarchError, SQLAlchemyError, ValueError) as error:
        _logger.warning("starting without memory of earlier decisions: %s", error)
        return PipelineState()
    return state


def _read_gateway(
    subject: Subject, memory: _Memory, document: dict[str, object] | None
) -> GatewaySignals:
    if document is None:
        return memory.gateway.lose()
    try:
        return memory.gateway.read(document, subject.model)
    except (KeyError, TypeError, ValueError) as error:
        _logger.warning("the gateway's signals are not what they should be: %r", error)
        return memory.gateway.lose()
