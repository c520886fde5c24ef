"""``spec.scaling`` of a model deployment: targets, what gives way, how fast."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ConfigDict, Field

from trierarch.api.v1alpha1.fields import (
    ApiModel,
    Decimal,
    Percent,
    PositiveDecimal,
    Seconds,
    rule,
    rules,
)


class OnConflict(StrEnum):
    """Which of cost and latency gives way when both targets cannot be met."""

    PREFER_LATENCY = "PreferLatency"
    PREFER_COST = "PreferCost"


class LatencyObjective(ApiModel):
    """The promise to users, for requests that are not flex."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.ttftSeconds) || has(self.tpotSeconds)",
                "slo: set ttftSeconds, tpotSeconds or both",
            )
        )
    )

    ttft_seconds: PositiveDecimal | None = None
    """Time to first token, from arrival at the gateway, in seconds ("2.0")."""
    tpot_seconds: PositiveDecimal | None = None
    """Mean time per output token after the first, in seconds ("0.050")."""
    percentile: int = Field(default=95, ge=1, le=99)
    """Share of requests, in percent, that should meet the objective."""


class CostTarget(ApiModel):
    """What a million input plus output tokens should cost at most."""

    target: PositiveDecimal
    """Dollars per million tokens ("0.60")."""
    on_conflict: OnConflict = OnConflict.PREFER_LATENCY
    """Which gives way when cost and latency cannot both be met: PreferLatency keeps the
    latency objective and reports CostTargetMet=False, PreferCost caps the replicas."""


class Approval(ApiModel):
    """Growth that waits for a person."""

    above_hourly_cost: PositiveDecimal
    """Dollars per hour of the whole deployment above which growth needs the annotation
    trierarch.dev/approved-hourly-cost."""


class Budget(ApiModel):
    """What the deployment may cost."""

    hourly_cost: PositiveDecimal
    """Dollars per hour; ready, starting and draining replicas together never cost more."""


class ScaleUp(ApiModel):
    """How fast capacity may grow."""

    stabilization_window_seconds: Seconds = 0
    """A higher need must last this long before it counts."""
    max_step_percent: int = Field(default=200, ge=1, le=10_000)
    """At most this share of the current replicas more in one decision."""
    max_step_replicas: int = Field(default=4, ge=1, le=1_000)
    """Always allowed in one decision, however few replicas there are."""


class ScaleDown(ApiModel):
    """How carefully capacity is given back."""

    stabilization_window_seconds: Seconds | None = None
    """The largest need of this window counts; left out, twice the measured cold start."""
    dwell_seconds: Seconds | None = None
    """No removal this soon after an addition; left out, derived from the cold start."""
    max_step_percent: int = Field(default=50, ge=1, le=100)
    """At most this share of the current replicas in one decision, but always one."""


class ScaleToZero(ApiModel):
    """Whether the last replica may go."""

    enabled: bool = False
    """Allowed only where every variant has minReplicas 0."""
    idle_seconds: Seconds | None = None
    """Idle time before the last replica goes; left out, the time at which keeping it has
    cost as much as starting it again."""
    cold_start_miss_cost: Decimal = "0"
    """Dollars that a request meeting an empty deployment costs, beside the cold start."""


class Behavior(ApiModel):
    """How the autoscaler moves."""

    scale_up: ScaleUp = ScaleUp()
    """Growing."""
    scale_down: ScaleDown = ScaleDown()
    """Giving back."""
    scale_to_zero: ScaleToZero = ScaleToZero()
    """Giving back the last replica."""
    interval_seconds: int = Field(default=15, ge=1, le=3_600)
    """Between two decisions."""
    stale_after_seconds: int = Field(default=120, ge=1, le=86_400)
    """Metrics older than this are lost: counts are kept as they are and MetricsFresh is
    False."""
    backlog_drain_seconds: int = Field(default=60, ge=1, le=86_400)
    """Time in which waiting work should be gone once capacity serves."""
    on_demand_floor_percent: Percent = 30
    """Share of the needed capacity that Spot may never carry."""


class Scaling(ApiModel):
    """What the autoscaler keeps a deployment at."""

    target_queue_depth: int = Field(default=4, ge=1, le=10_000)
    """Waiting requests per ready replica."""
    slo: LatencyObjective | None = None
    """Latency objective; left out, the queue alone decides."""
    cost_per_million_tokens: CostTarget | None = None
    """Cost target; left out, cost is reported and not steered."""
    approval: Approval | None = None
    """Left out, no growth waits for a person."""
    budget: Budget | None = None
    """Left out, only tenants' budgets limit."""
    behavior: Behavior = Behavior()
    """Windows, steps and scale to zero."""
