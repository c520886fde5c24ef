"""Runs a policy, or the whole decision pipeline, inside the simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from trierarch.autoscaling.decision import ScalingDecision
from trierarch.autoscaling.pipeline import decide
from trierarch.autoscaling.policy import Policy
from trierarch.autoscaling.specification import (
    Behavior,
    CapacityType,
    LatencyObjective,
    ScalingSpec,
    ServicePrior,
    VariantSpec,
)
from trierarch.autoscaling.state import PipelineState
from trierarch.core.admission import OPEN
from trierarch.core.identifiers import DecisionId, VariantName
from trierarch.simulation.fleet.replicas import ReplicaPool
from trierarch.simulation.fleet.setup import FleetSetup
from trierarch.simulation.fleet.snapshot import FleetSnapshot
from trierarch.simulation.observing import ObservationBuilder

StateT = TypeVar("StateT")


class PolicyController(Generic[StateT]):
    """A policy on its own: its recommendation is what the fleet is told.

    Peers' own stabilization is part of their law, so nothing is put behind it but the bounds
    of the variants. None of them says when flex requests may start, so they always may, and
    none refuses a lane.
    """

    admission = OPEN

    def __init__(self, policy: Policy[StateT], *, name: str | None = None) -> None:
        self._policy = policy
        self._state = policy.initial_state()
        self.name = name or policy.name
        self.tick_seconds = policy.interval_seconds
        self._builder: ObservationBuilder | None = None

    def begin(self, setup: FleetSetup, pool: ReplicaPool) -> None:
        """Forget everything; the pool is not looked at."""
        self._builder = ObservationBuilder(setup)
        self._state = self._policy.initial_state()

    def decide(self, snapshot: FleetSnapshot) -> Sequence[int]:
        """Return the policy's recommendation."""
        if self._builder is None:
            raise RuntimeError("begin() comes before decide()")
        observation = self._builder.build(snapshot)
        recommendation, self._state = self._policy.recommend(observation, self._state)
        return desired_counts(snapshot, recommendation.replicas)


class PipelineController:
    """The whole pipeline, as the controller in a cluster runs it.

    Attributes:
        decisions: Every decision of the run, oldest first.
        admission: What the last one says of the lanes.
    """

    def __init__(
        self,
        setup: FleetSetup,
        overrides: Mapping[str, Any] | None = None,
        *,
        name: str,
        learned: PipelineState | None = None,
    ) -> None:
        """Check the overrides at once, before a run begins.

        Args:
            setup: The fleet.
            overrides: As for ``build_spec``.
            name: Of the policy, for results.
            learned: What it knows when a run begins; nothing by default.

        Raises:
            ValueError: If a field does not exist or its value is refused.
        """
        self.name = name
        self._overrides = dict(overrides or {})
        self._spec = build_spec(setup, self._overrides)
        self.tick_seconds: float | None = self._spec.behavior.interval_seconds
        self._builder: ObservationBuilder | None = None
        self._learned = learned or PipelineState()
        self._state = self._learned
        self.admission = OPEN
        self.decisions: list[ScalingDecision] = []

    @property
    def state(self) -> PipelineState:
        """What the last decision left."""
        return self._state

    @property
    def decision_records(self) -> list[dict[str, Any]]:
        """Return the decisions as JSON values, oldest first."""
        return [decision.as_record() for decision in self.decisions]

    def begin(self, setup: FleetSetup, pool: ReplicaPool) -> None:
        """Forget what earlier runs taught; the pool is not looked at."""
        self._spec = build_spec(setup, self._overrides)
        self._builder = ObservationBuilder(setup)
        self._state = self._learned
        self.decisions = []
        self.admission = OPEN

    def decide(self, snapshot: FleetSnapshot) -> Sequence[int]:
        """Return what the pipeline decides."""
        if self._builder is None:
            raise RuntimeError("begin() comes before decide()")
        decision, self._state = decide(
            self._builder.build(snapshot),
            self._spec,
            self._state,
            DecisionId(f"simulated-{len(self.decisions):06d}"),
        )
        self.decisions.append(decision)
        self.admission = decision.admission
        return desired_counts(snapshot, decision.replicas)


def desired_counts(snapshot: FleetSnapshot, replicas: Mapping[VariantName, int]) -> list[int]:
    """Return counts in the fleet's order; a variant left out keeps what it has."""
    return [
        int(replicas.get(VariantName(counts.name), counts.current)) for counts in snapshot.variants
    ]


def build_spec(setup: FleetSetup, overrides: Mapping[str, Any] | None = None) -> ScalingSpec:
    """Return what an operator of this fleet would write down.

    The service prior is the fleet's own model without its quadratic term: what a profile run
    gives. Cold starts are believed to take their median.

    Args:
        setup: The fleet.
        overrides: Values by dotted field name, for example ``behavior.backlog_drain_seconds``.

    Raises:
        ValueError: If a field does not exist or its value is refused.
    """
    spec = ScalingSpec(
        variants=tuple(
            VariantSpec(
                name=VariantName(variant.name),
                capacity_type=CapacityType(variant.capacity_type),
                accelerator=variant.accelerator,
                min_replicas=variant.minimum_replicas,
                max_replicas=variant.maximum_replicas,
                cold_start_seconds=max(1.0, variant.cold_start.median_seconds),
                max_running_requests=variant.service.maximum_requests,
                kv_capacity_tokens=variant.service.kv_limit_tokens,
                service_prior=ServicePrior(
                    step_seconds=variant.service.step_seconds,
                    expert_seconds=variant.service.expert_seconds,
                    expert_share_ratio=variant.service.expert_share_ratio,
                    prefill_token_seconds=variant.service.prefill_token_seconds,
                    decode_token_seconds=variant.service.decode_token_seconds,
                    context_token_seconds=variant.service.context_token_seconds,
                ),
            )
            for variant in setup.variants
        ),
        slo=LatencyObjective(
            ttft_seconds=setup.objective.ttft_seconds,
            tpot_seconds=setup.objective.tpot_seconds,
            percentile=setup.objective.percentile,
        ),
        behavior=Behavior(interval_seconds=setup.tick_seconds),
    )
    document = spec.model_dump()
    for path, value in (overrides or {}).items():
        _set(document, path, value)
    return ScalingSpec.model_validate(document)


def _set(document: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    place = document
    for parent in parents:
        inner = place.get(parent)
        if inner is None and parent in place:
            inner = place[parent] = {}
        if not isinstance(inner, dict):
            raise ValueError(f"there is no field {path!r}")
        place = inner
    place[last] = value
