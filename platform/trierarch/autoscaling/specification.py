"""What an operator asks of the autoscaler, checked once when it is written down.

A wrong value is refused here, with its field's name, and never at a tick.
Durations are seconds, amounts are dollars per hour or per million tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trierarch.core.identifiers import VariantName

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class CapacityType(StrEnum):
    """How capacity is bought."""

    ON_DEMAND = "OnDemand"
    SPOT = "Spot"
    RESERVED = "Reserved"


class OnConflict(StrEnum):
    """Which of cost and latency gives way when both targets cannot be met."""

    PREFER_LATENCY = "PreferLatency"
    PREFER_COST = "PreferCost"


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ServicePrior(_Spec):
    """What is believed of a replica's speed before anything was measured."""

    step_seconds: NotNegative
    """Time of an engine step with one request in it."""
    expert_seconds: NotNegative = 0.0
    """Extra time of a step that reads every expert's weights."""
    expert_share_ratio: Ratio = 0.0
    """Share of the experts that one token touches."""
    prefill_token_seconds: NotNegative = 0.0
    """Time per prompt token."""
    decode_token_seconds: NotNegative = 0.0
    """Time per token decoded in a step."""
    context_token_seconds: NotNegative = 0.0
    """Time per token of context that a decode step reads."""


class VariantSpec(_Spec):
    """One way to run the model."""

    name: VariantName = Field(min_length=1)
    """Unique in the deployment."""
    capacity_type: CapacityType = CapacityType.ON_DEMAND
    """Spot replicas can be taken back at any time."""
    accelerator: str = ""
    """Key of the price book, with capacity type and region."""
    region: str = ""
    """Key of the price book."""
    zone: str = ""
    """Spot replicas of one zone are lost together."""
    min_replicas: int = Field(default=0, ge=0)
    """Never fewer whole groups."""
    max_replicas: int = Field(default=1, ge=0)
    """Never more whole groups."""
    cold_start_seconds: Positive = 120.0
    """Believed until starts were measured."""
    max_running_requests: int | None = Field(default=None, ge=1)
    """Seats of one replica's batch; None if the engine's limit is unknown."""
    kv_capacity_tokens: int | None = Field(default=None, ge=1)
    """KV memory of one replica; None if unknown."""
    service_prior: ServicePrior | None = None
    """Speed believed until enough was measured; None trusts nothing but queues until then."""

    @model_validator(mode="after")
    def _check_bounds(self) -> VariantSpec:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"variant {self.name}: minReplicas {self.min_replicas} is above "
                f"maxReplicas {self.max_replicas}"
            )
        return self


class LatencyObjective(_Spec):
    """The promise to users, for the lanes that are not flex."""

    ttft_seconds: Positive | None = None
    """Time to first token, from arrival at the gateway."""
    tpot_seconds: Positive | None = None
    """Mean time per output token after the first."""
    percentile: float = Field(default=95.0, gt=0, lt=100, allow_inf_nan=False)
    """Share of requests, in percent, that should meet both."""

    @model_validator(mode="after")
    def _check_something_is_promised(self) -> LatencyObjective:
        if self.ttft_seconds is None and self.tpot_seconds is None:
            raise ValueError("slo: set ttftSeconds, tpotSeconds or both")
        return self


class CostTarget(_Spec):
    """Dollars per million input plus output tokens."""

    target_usd_per_million_tokens: Positive
    """The unit cost that should not be exceeded."""
    on_conflict: OnConflict = OnConflict.PREFER_LATENCY
    """What gives way."""


class ScaleUp(_Spec):
    """How fast capacity may grow."""

    window_seconds: NotNegative = 0.0
    """A higher demand must last this long; the smallest recommendation of the window counts."""
    max_step_ratio: Positive = 2.0
    """At most this many times the current replicas more in one decision."""
    max_step_replicas: int = Field(default=4, ge=1)
    """Always allowed in one decision, however few replicas there are."""


class ScaleDown(_Spec):
    """How carefully capacity is given back."""

    window_seconds: NotNegative | None = None
    """The largest recommendation of this window counts; None derives it from the cold start."""
    dwell_seconds: NotNegative | None = None
    """No removal this soon after an addition; None derives it from the cold start."""
    max_step_ratio: Ratio = 0.5
    """At most this share of the current replicas in one decision, but always one."""


class ScaleToZero(_Spec):
    """Whether the last replica may go."""

    enabled: bool = False
    """Needs variants whose minReplicas are 0."""
    idle_seconds: NotNegative | None = None
    """Idle time before the last replica goes; None takes the break-even time."""
    cold_start_miss_usd: NotNegative = 0.0
    """What a request that meets an empty deployment costs, beside the cold start itself."""


class Behavior(_Spec):
    """How the autoscaler moves."""

    scale_up: ScaleUp = ScaleUp()
    scale_down: ScaleDown = ScaleDown()
    scale_to_zero: ScaleToZero = ScaleToZero()
    interval_seconds: Positive = 15.0
    """Time between two decisions."""
    stale_after_seconds: Positive = 120.0
    """Metrics older than this are lost: counts are kept as they are, and an alarm is raised."""
    backlog_drain_seconds: Positive = 60.0
    """Time in which work that is waiting should be gone once capacity serves."""
    on_demand_floor_ratio: Ratio = 0.3
    """Share of the needed capacity that spot may never carry."""


class ScalingSpec(_Spec):
    """Everything an operator asks for one model deployment."""

    variants: tuple[VariantSpec, ...] = Field(min_length=1)
    target_queue_depth: Positive = 4.0
    """Waiting requests per ready replica."""
    slo: LatencyObjective | None = None
    cost: CostTarget | None = None
    approval_above_usd_per_hour: Positive | None = None
    """Growth above this hourly cost waits for a person."""
    budget_usd_per_hour: Positive | None = None
    """Ready, starting and draining replicas together never cost more by a decision."""
    behavior: Behavior = Behavior()

    @model_validator(mode="after")
    def _check_together(self) -> ScalingSpec:
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise ValueError(f"variants: two variants share a name, got {names}")
        if not any(variant.max_replicas for variant in self.variants):
            raise ValueError("variants: at least one variant needs maxReplicas above 0")
        if self.behavior.scale_to_zero.enabled and any(v.min_replicas for v in self.variants):
            raise ValueError("behavior.scaleToZero: every variant's minReplicas must be 0")
        return self

    @property
    def min_replicas(self) -> int:
        """Sum of the variants' fewest replicas."""
        return sum(variant.min_replicas for variant in self.variants)

    def variant(self, name: str) -> VariantSpec:
        """Return one variant.

        Raises:
            KeyError: If there is none of this name.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)

    def as_record(self) -> dict[str, Any]:
        """Return the spec as JSON values."""
        return self.model_dump(mode="json")

    @staticmethod
    def from_record(record: object) -> ScalingSpec:
        """Return the spec that ``as_record`` wrote.

        Raises:
            ValueError: If the record is not one.
        """
        return ScalingSpec.model_validate(drop_removed_fields(record))


_REMOVED_FROM_BEHAVIOR = "miss_to_idle_ratio"
"""The ratio of miss and idle cost is what the objective's percentile says; nothing read it."""


def drop_removed_fields(record: object) -> object:
    """Return a spec's record without what older versions wrote and no decision depended on."""
    if not isinstance(record, Mapping) or not isinstance(record.get("behavior"), Mapping):
        return record
    behavior = {n: v for n, v in record["behavior"].items() if n != _REMOVED_FROM_BEHAVIOR}
    return {**record, "behavior": behavior}
