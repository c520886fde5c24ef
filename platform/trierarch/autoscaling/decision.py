"""A scaling decision and everything that explains it.

One object feeds the log line, the metric label, the Event, the status
conditions, the trace and the decision record; nothing is worded twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from trierarch.autoscaling.signals import Observation
from trierarch.autoscaling.specification import ScalingSpec, drop_removed_fields
from trierarch.autoscaling.state import PipelineState
from trierarch.core.admission import Admission
from trierarch.core.identifiers import DecisionId, VariantName

POLICY_VERSION = "trierarch/7"
"""Changes whenever the same inputs could lead to another decision."""


class Stage(StrEnum):
    """Where in the pipeline a number was changed."""

    OBSERVE = "observe"
    ANALYZE = "analyze"
    RECOMMEND = "recommend"
    PLACE = "place"
    STABILIZE = "stabilize"
    CONSTRAIN = "constrain"


class Reason(StrEnum):
    """Why a decision is what it is: the metric label, the Event's reason, what bound."""

    AT_TARGET = "AtTarget"
    QUEUE_DEPTH = "QueueDepth"
    BACKLOG = "Backlog"
    SATURATION = "Saturation"
    LATENCY = "Latency"
    FORECAST = "Forecast"
    LOW_LOAD = "LowLoad"
    IDLE = "Idle"
    ACTIVATION = "Activation"
    CHEAPER_VARIANT = "CheaperVariant"
    ON_DEMAND_FLOOR = "OnDemandFloor"
    STABILIZING = "Stabilizing"
    DWELL = "Dwell"
    STARTING_CREDIT = "StartingCredit"
    BREAK_EVEN = "BreakEven"
    STEP_LIMIT = "StepLimit"
    MIN_REPLICAS = "MinReplicas"
    MAX_REPLICAS = "MaxReplicas"
    INVENTORY = "Inventory"
    BUDGET = "Budget"
    APPROVAL_REQUIRED = "ApprovalRequired"
    COST_TARGET = "CostTarget"
    METRICS_MISSING = "MetricsMissing"
    METRICS_STALE = "MetricsStale"
    PRICES_MISSING = "PricesMissing"
    WARMING_UP = "WarmingUp"


@dataclasses.dataclass(frozen=True, slots=True)
class DecisionStep:
    """One stage's effect on the number of replicas (ready plus starting, all variants)."""

    stage: Stage
    before: int
    after: int
    reason: Reason
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Alternative:
    """What another choice would cost and do; a prediction that could not be made is None.

    Attributes:
        replicas: Count per variant.
        usd_per_hour: Its hourly cost.
        ttft_seconds: Predicted at the objective's percentile.
        tpot_seconds: Predicted mean.
        meets_slo: Whether both stay inside the objective.
        usd_per_million_tokens: Its hourly cost over the tokens that are served now.
    """

    replicas: Mapping[VariantName, int]
    usd_per_hour: float | None
    ttft_seconds: float | None = None
    tpot_seconds: float | None = None
    meets_slo: bool | None = None
    usd_per_million_tokens: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Counterfactual:
    """The choice and its neighbours; None where there is no such neighbour."""

    chosen: Alternative
    one_fewer: Alternative | None = None
    one_more: Alternative | None = None
    cheapest_other: Alternative | None = None


class ConditionStatus(StrEnum):
    """As in Kubernetes."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """One status condition; the shell adds transition times."""

    type: str
    status: ConditionStatus
    reason: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class DecisionInputs:
    """What a decision was made from, whole: enough to make it again."""

    observation: Observation
    spec: ScalingSpec
    state: PipelineState


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScalingDecision:
    """How many replicas of each variant, and why.

    Attributes:
        id: Given by the caller, unique.
        at_unix_seconds: Time of the decision.
        deployment: ``NAMESPACE/NAME``.
        model: Served model name.
        replicas: Desired ready plus starting replicas of each variant.
        previous: Ready plus starting replicas of each variant when it was made.
        reason: What set the number.
        message: One sentence with the numbers.
        steps: What each stage changed.
        binding: What kept the number from being lower (or higher, for a limit); the same word
            as ``reason`` unless a stage after the analysis changed the number.
        counterfactual: Neighbouring choices; None while nothing can be predicted.
        conditions: Status conditions.
        admission: What the gateway should do with lanes that can wait.
        feasible_usd_per_million_tokens: Lowest cost target that could be met now, if known.
        policy_version: Which rules made it.
        inputs: What it was made from.
    """

    id: DecisionId
    at_unix_seconds: float
    deployment: str
    model: str
    replicas: Mapping[VariantName, int]
    previous: Mapping[VariantName, int]
    reason: Reason
    message: str
    steps: tuple[DecisionStep, ...]
    binding: Reason
    counterfactual: Counterfactual | None
    conditions: tuple[Condition, ...]
    admission: Admission
    inputs: DecisionInputs
    feasible_usd_per_million_tokens: float | None = None
    policy_version: str = POLICY_VERSION

    @property
    def desired_replicas(self) -> int:
        """Sum over the variants."""
        return sum(self.replicas.values())

    @property
    def changes(self) -> bool:
        """Whether anything has to be done."""
        return dict(self.replicas) != dict(self.previous)

    def condition(self, condition_type: str) -> Condition:
        """Return one condition.

        Raises:
            KeyError: If the decision has none of this type.
        """
        for condition in self.conditions:
            if condition.type == condition_type:
                return condition
        raise KeyError(condition_type)

    def as_record(self) -> dict[str, Any]:
        """Return the decision and its inputs as JSON values, ``id`` and ``time`` first."""
        fields: dict[str, Any] = _DECISION.dump_python(self, mode="json", exclude={"inputs"})
        return {
            "id": fields.pop("id"),
            "time": fields.pop("at_unix_seconds"),
            **fields,
            "inputs": {
                "observation": self.inputs.observation.as_record(),
                "spec": self.inputs.spec.as_record(),
                "state": self.inputs.state.as_record(),
            },
        }

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> ScalingDecision:
        """Return the decision that ``as_record`` wrote.

        Raises:
            ValueError: If the record is not one.
        """
        missing = [name for name in ("id", "time", "inputs") if name not in record]
        if missing:
            raise ValueError(f"a decision record lacks {', '.join(missing)}")
        fields = {name: value for name, value in record.items() if name != "time"}
        inputs = fields["inputs"]
        if isinstance(inputs, Mapping) and "spec" in inputs:
            fields["inputs"] = {**inputs, "spec": drop_removed_fields(inputs["spec"])}
        return _DECISION.validate_python({**fields, "at_unix_seconds": record["time"]})


_DECISION = TypeAdapter(ScalingDecision)
