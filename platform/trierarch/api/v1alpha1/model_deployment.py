"""``ModelDeployment``: a model, the ways to run it, and what it is kept at."""

from __future__ import annotations

from pydantic import ConfigDict, Field, JsonValue

from trierarch.api.v1alpha1.fields import (
    MOST_REPLICAS,
    MOST_VARIANTS,
    ApiModel,
    CapacityType,
    Decimal,
    Name,
    ServedName,
    map_list,
    open_object,
    rule,
    rules,
)
from trierarch.api.v1alpha1.scaling import Scaling


class ModelReference(ApiModel):
    """Which weights, under which name."""

    name: ServedName = Field(
        json_schema_extra=rules(
            rule(
                "self == oldSelf",
                "model.name cannot change: clients use it; make a second ModelDeployment",
            )
        )
    )
    """What clients write in "model"; cannot change."""
    source: str = Field(
        pattern=r"^(hf://[^/]+/.+|pvc://[^/]+(/.*)?|s3://[^/]+/.+|file:///.+)$", max_length=1024
    )
    """Where the weights are: hf://ORG/NAME (downloaded into each pod), pvc://CLAIM/FOLDER,
    s3://BUCKET/FOLDER (downloaded into each pod) or file:///FOLDER (on the nodes)."""
    config_json: str | None = Field(default=None, max_length=65_536)
    """The model's config.json as text. With it the planner knows the architecture and can
    choose the parallelism of variants with auto: true."""


class Parallelism(ApiModel):
    """How one replica is spread over accelerators."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!self.auto || !(has(self.data) || has(self.tensor) || has(self.expert))",
                "parallelism.auto: remove data, tensor and expert, or set auto to false",
                ".auto",
            ),
            rule(
                "!has(self.expert) || !self.expert ||"
                " (has(self.data) ? self.data : 1) * (has(self.tensor) ? self.tensor : 1) > 1",
                "parallelism.expert: needs data or tensor above 1 to spread experts",
                ".expert",
            ),
        )
    )

    data: int | None = Field(default=None, ge=1, le=4_096)
    """Data-parallel ranks, each with requests of its own; 1 if left out."""
    tensor: int | None = Field(default=None, ge=1, le=64)
    """Accelerators that share every matrix of one rank; 1 if left out. Never crosses a
    machine."""
    expert: bool | None = None
    """Spread whole experts over all data x tensor accelerators; false if left out."""
    auto: bool = False
    """Let the planner choose the cheapest layout that meets the latency objective; needs
    model.configJson."""


class Variant(ApiModel):
    """One way to run the model; a replica is one whole expert-parallel group."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.minReplicas <= self.maxReplicas",
                "minReplicas must not be above maxReplicas",
                ".minReplicas",
            )
        )
    )

    name: Name = Field(max_length=32)
    """Unique in the deployment."""
    accelerator: str = Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")
    """The AcceleratorClass: by its name or its priceKey."""
    capacity_type: CapacityType = CapacityType.ON_DEMAND
    """How the capacity is bought: OnDemand, Spot (can be taken back) or Reserved."""
    parallelism: Parallelism = Parallelism()
    """How one replica is spread over accelerators."""
    min_replicas: int = Field(default=0, ge=0, le=MOST_REPLICAS)
    """Never fewer whole groups."""
    max_replicas: int = Field(default=1, ge=0, le=MOST_REPLICAS)
    """Never more whole groups."""
    zones: list[str] | None = Field(default=None, max_length=16)
    """Zones whose nodes may be used; left out, all. Groups are spread over them evenly."""
    engine_args: dict[str, JsonValue] = Field(default_factory=dict, json_schema_extra=open_object())
    """vLLM's options by their command-line names without dashes in front, for example
    max-model-len: 32768. Options that spread the model are parallelism's."""
    cold_start_seconds: int = Field(default=120, ge=1, le=86_400)
    """Believed time from asking for a replica until it serves, until starts were measured."""


class GcsFaultTolerance(ApiModel):
    """Lets Ray's head node restart without its cluster."""

    redis_address: str = Field(min_length=1, max_length=253)
    """host:port of a Redis that keeps the head's state."""
    redis_password_secret: str | None = Field(default=None, max_length=253)
    """Secret whose key "password" holds Redis' password."""


class GangAdmission(ApiModel):
    """Admission of whole groups by a scheduler beside Kubernetes' own."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "(has(self.kueueQueue) ? 1 : 0) + (has(self.volcanoQueue) ? 1 : 0) == 1",
                "gangAdmission: set exactly one of kueueQueue and volcanoQueue",
            )
        )
    )

    kueue_queue: str | None = Field(default=None, max_length=63)
    """Kueue's LocalQueue that admits the deployment's clusters."""
    volcano_queue: str | None = Field(default=None, max_length=63)
    """Volcano's queue that admits the deployment's clusters."""


class ModelDeploymentSpec(ApiModel):
    """What is wanted."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.variants.exists(v, v.maxReplicas > 0)",
                "variants: at least one variant needs maxReplicas above 0",
                ".variants",
            ),
            rule(
                "!self.scaling.behavior.scaleToZero.enabled ||"
                " self.variants.all(v, v.minReplicas == 0)",
                "scaling.behavior.scaleToZero: needs minReplicas 0 in every variant",
                ".scaling.behavior.scaleToZero",
            ),
            rule(
                "!has(self.replicas) || self.replicas <= self.variants.map(v, v.maxReplicas).sum()",
                "replicas: is above the sum of the variants' maxReplicas",
                ".replicas",
            ),
            rule(
                "has(self.model.configJson) || !self.variants.exists(v, v.parallelism.auto)",
                "model.configJson: needed where a variant has parallelism.auto",
                ".model",
            ),
        )
    )

    model: ModelReference
    """Which weights, under which name."""
    variants: list[Variant] = Field(
        min_length=1, max_length=MOST_VARIANTS, json_schema_extra=map_list("name")
    )
    """Ways to run the model; the autoscaler chooses among them by cost."""
    scaling: Scaling = Scaling()
    """What the deployment is kept at."""
    replicas: int | None = Field(default=None, ge=0)
    """A fixed number of whole groups over all variants, as "kubectl scale" sets it: the
    autoscaler then only chooses the cheapest variants for that number. Left out, the
    autoscaler chooses the number."""
    tenant: Name | None = Field(default=None, max_length=63)
    """The Tenant of this namespace that pays for the capacity: its budgets limit how many
    groups run. Left out, no tenant's budget does."""
    paused: bool = False
    """Change nothing in the cluster; keep observing and reporting."""
    suspend: bool = False
    """Run no replica at all, and keep everything else."""
    gang_admission: GangAdmission | None = None
    """Left out, Kubernetes' own scheduler places each group."""
    gcs_fault_tolerance: GcsFaultTolerance | None = None
    """Left out, a lost head node takes its Ray cluster with it."""
    pod_template: dict[str, JsonValue] = Field(
        default_factory=dict, json_schema_extra=open_object()
    )
    """Part of a pod template, merged over the one that is generated for engine pods: lists
    of named things by name, other lists replaced."""


class Condition(ApiModel):
    """As in every Kubernetes API."""

    type: str = Field(max_length=316)
    """What is told of."""
    status: str = Field(json_schema_extra={"enum": ["True", "False", "Unknown"]})
    """Whether it holds."""
    reason: str = Field(min_length=1, max_length=1_024)
    """One CamelCase word; the runbook has a page for each."""
    message: str = Field(max_length=32_768)
    """A sentence with the numbers."""
    last_transition_time: str = Field(json_schema_extra={"format": "date-time"})
    """When the status last changed."""
    observed_generation: int | None = Field(default=None, ge=0)
    """Of the spec that it was found for."""


class VariantStatus(ApiModel):
    """One variant now."""

    name: Name = Field(max_length=32)
    """The variant."""
    ready_replicas: int | None = Field(default=None, ge=0)
    """Whole groups that serve."""
    desired_replicas: int | None = Field(default=None, ge=0)
    """Whole groups the autoscaler has decided on."""
    starting_replicas: int | None = Field(default=None, ge=0)
    """Whole groups on their way."""
    waiting_for: str | None = Field(default=None, max_length=1_024)
    """What is missing for a group that cannot be placed; empty if nothing is."""
    hourly_cost: Decimal | None = None
    """Dollars per hour of all groups that exist."""
    ray_service: str | None = Field(default=None, max_length=63)
    """The RayService that runs it."""
    layout: str | None = Field(default=None, max_length=63)
    """How one replica is spread, for example DP8+EP8."""


class LastDecision(ApiModel):
    """The newest scaling decision; "trierarch explain ID" tells all of it."""

    id: str = Field(max_length=63)
    """Of the decision record."""
    reason: str = Field(max_length=63)
    """One CamelCase word."""
    message: str = Field(max_length=1_024)
    """A sentence with the numbers."""
    time: str = Field(json_schema_extra={"format": "date-time"})
    """When it was made."""


class ModelDeploymentStatus(ApiModel):
    """What is there."""

    observed_generation: int | None = Field(default=None, ge=0)
    """Of the spec that the rest of the status follows from."""
    replicas: int | None = Field(default=None, ge=0)
    """Whole groups that exist, ready or starting."""
    ready_replicas: int | None = Field(default=None, ge=0)
    """Whole groups that serve."""
    desired_replicas: int | None = Field(default=None, ge=0)
    """Whole groups that should be there."""
    selector: str | None = Field(default=None, max_length=1_024)
    """Label selector of the engine pods."""
    cost_per_million_tokens: Decimal | None = None
    """Dollars per million input plus output tokens over the recent window."""
    variants: list[VariantStatus] | None = Field(
        default=None, max_length=MOST_VARIANTS, json_schema_extra=map_list("name")
    )
    """Each variant."""
    last_decision: LastDecision | None = None
    """The newest scaling decision."""
    conditions: list[Condition] | None = Field(
        default=None, max_length=16, json_schema_extra=map_list("type")
    )
    """Available, Progressing, SLOMet, CostTargetMet, ScalingLimited, MetricsFresh."""


class ModelDeployment(ApiModel):
    """Runs one mixture-of-experts model on one or more kinds of accelerators.

    Keeps it at its queue depth, latency objective and dollars per million tokens.
    """

    spec: ModelDeploymentSpec
    """What is wanted."""
    status: ModelDeploymentStatus = ModelDeploymentStatus()
    """What is there; written by the operator."""
