"""The RayService of one variant, from a custom resource: pure, and the same for the same input.

One variant is one Ray cluster with one worker group. A replica of that group, in KubeRay's
words, is one whole expert-parallel group: KubeRay makes and removes all its pods together.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from trierarch.api.v1alpha1 import API_VERSION, GROUP
from trierarch.api.v1alpha1.accelerator_class import AcceleratorClassSpec
from trierarch.api.v1alpha1.model_deployment import ModelDeploymentSpec, Variant
from trierarch_operators.group_plan import GroupPlan
from trierarch_operators.labels import (
    DEPLOYMENT_LABEL,
    REVISION_ANNOTATION,
    ROLE_LABEL,
    RUNNER_ANNOTATION,
    VARIANT_LABEL,
)
from trierarch_operators.model_deployment.engine import (
    build_arguments,
    build_engine_spec,
    build_serve_config,
    parse_source,
)
from trierarch_operators.model_deployment.pod_templates import (
    TOKEN_FOLDER,
    PodSettings,
    build_engine_template,
    build_head_template,
)
from trierarch_operators.revisions import compute_revision, mark_pods

RAY_API_VERSION = "ray.io/v1"
WORKER_GROUP = "groups"
"""Name of the one worker group of every cluster."""

FINGERPRINT_ANNOTATION = f"{GROUP}/fingerprint"
"""Hash of everything else in the manifest: a field that is no longer wanted shows here."""

SERVE_REPLICAS_ANNOTATION = f"{GROUP}/serve-replicas"
"""How many replicas Serve was last told to work towards."""

_MOST_NAME_LENGTH = 47
"""KubeRay refuses longer names of RayServices."""

_CLUSTER_DELETION_DELAY_SECONDS = 3600
"""Of a cluster that an update has replaced: the operator removes it as soon as the update has
proved itself and the last answer is out. This is for when no operator runs."""


@dataclasses.dataclass(frozen=True, slots=True)
class Owner:
    """The model deployment an object is made for."""

    namespace: str
    name: str
    uid: str
    annotations: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Counts:
    """How many whole groups.

    Attributes:
        groups: With pods.
        serve_replicas: That Ray Serve works towards.
    """

    groups: int
    serve_replicas: int


@dataclasses.dataclass(frozen=True, slots=True)
class RaySettings:
    """What is the same for all clusters of this installation.

    Attributes:
        pods: Of every pod.
        ray_version: In the image.
        announce_url: Where replicas tell of themselves; empty tells nobody.
        otlp_endpoint: Of a trace collector; empty for none.
    """

    pods: PodSettings
    ray_version: str
    announce_url: str = ""
    otlp_endpoint: str = ""


def ray_service_name(deployment: str, variant: str) -> str:
    """Return the name of a variant's RayService: readable, unique, and short enough."""
    name = f"{deployment}-{variant}".replace(".", "-")
    digest = hashlib.sha256(f"{deployment}/{variant}".encode()).hexdigest()[:8]
    if len(name) <= _MOST_NAME_LENGTH and "." not in deployment:
        return name
    return f"{name[: _MOST_NAME_LENGTH - len(digest) - 1].rstrip('-')}-{digest}"


def application_name(model: str) -> str:
    """Return a Serve application's name; Serve's addresses take no other characters."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", model)


def build_labels(deployment: str, variant: str) -> dict[str, str]:
    """Return the labels by which a variant's objects are found."""
    return {
        "app.kubernetes.io/managed-by": "trierarch",
        DEPLOYMENT_LABEL: deployment,
        VARIANT_LABEL: variant,
    }


def build_ray_service(
    owner: Owner,
    spec: ModelDeploymentSpec,
    variant: Variant,
    accelerator_class: AcceleratorClassSpec,
    plan: GroupPlan,
    counts: Counts,
    settings: RaySettings,
) -> dict[str, Any]:
    """Return the RayService of one variant.

    Raises:
        InvalidInput: If the variant cannot be run as it is written; names the field.
    """
    labels = build_labels(owner.name, variant.name)
    engine = build_engine_spec(spec, variant, accelerator_class, plan, settings.otlp_endpoint)
    announce = None
    if settings.announce_url:
        announce = {"url": settings.announce_url, "token_file": f"{TOKEN_FOLDER}/token"}
    arguments = build_arguments(
        engine,
        runner=owner.annotations.get(RUNNER_ANNOTATION, "vllm"),
        announce=announce,
        drain_seconds=settings.pods.drain_seconds,
    )
    serve = build_serve_config(application_name(spec.model.name), arguments, counts.serve_replicas)
    cluster = _build_cluster(labels, spec, variant, accelerator_class, plan, counts, settings)
    revision = compute_revision(arguments, cluster)
    mark_pods(cluster, revision)
    metadata_labels = dict(labels)
    if spec.gang_admission is not None:
        # KubeRay copies these to the cluster, where the schedulers look.
        if spec.gang_admission.kueue_queue:
            metadata_labels["kueue.x-k8s.io/queue-name"] = spec.gang_admission.kueue_queue
        if spec.gang_admission.volcano_queue:
            metadata_labels["volcano.sh/queue-name"] = spec.gang_admission.volcano_queue
            metadata_labels["ray.io/gang-scheduling-enabled"] = "true"
    manifest: dict[str, Any] = {
        "apiVersion": RAY_API_VERSION,
        "kind": "RayService",
        "metadata": {
            "name": ray_service_name(owner.name, variant.name),
            "namespace": owner.namespace,
            "labels": metadata_labels,
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "ModelDeployment",
                    "name": owner.name,
                    "uid": owner.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            # JSON is YAML, and written a hundred times faster.
            "serveConfigV2": json.dumps(serve, indent=1),
            # A change of the engine is a change of the pods, which carry its revision: it starts
            # a second cluster beside the first, and moves over when that one serves.
            "upgradeStrategy": {"type": "NewCluster"},
            "rayClusterDeletionDelaySeconds": _CLUSTER_DELETION_DELAY_SECONDS,
            "excludeHeadPodFromServeSvc": True,
            "rayClusterConfig": cluster,
        },
    }
    manifest["metadata"]["annotations"] = {
        REVISION_ANNOTATION: revision,
        SERVE_REPLICAS_ANNOTATION: str(counts.serve_replicas),
        FINGERPRINT_ANNOTATION: fingerprint(manifest),
    }
    return manifest


def _build_cluster(
    labels: Mapping[str, str],
    spec: ModelDeploymentSpec,
    variant: Variant,
    accelerator_class: AcceleratorClassSpec,
    plan: GroupPlan,
    counts: Counts,
    settings: RaySettings,
) -> dict[str, Any]:
    overrides = spec.pod_template
    start = {"num-cpus": str(plan.ranks_per_host)}
    if not accelerator_class.cpu_only:
        start["num-gpus"] = str(plan.accelerators_per_host)
    cluster: dict[str, Any] = {
        "rayVersion": settings.ray_version,
        "enableInTreeAutoscaling": False,
        "headGroupSpec": {
            # No replica may land beside the head: it goes when groups come and go.
            "rayStartParams": {
                "dashboard-host": "0.0.0.0",  # noqa: S104  # KubeRay asks it over the pod network
                "num-cpus": "0",
                "num-gpus": "0",
            },
            "template": build_head_template(
                {**labels, ROLE_LABEL: "head"}, settings.pods, overrides
            ),
        },
        "workerGroupSpecs": [
            {
                "groupName": WORKER_GROUP,
                "replicas": counts.groups,
                "minReplicas": 0,
                "maxReplicas": max(variant.max_replicas, counts.groups),
                "numOfHosts": plan.hosts,
                "rayStartParams": start,
                "template": build_engine_template(
                    {**labels, ROLE_LABEL: "engine"},
                    variant,
                    accelerator_class,
                    plan,
                    parse_source(spec.model.source),
                    settings.pods,
                    overrides,
                ),
            }
        ],
    }
    if spec.gcs_fault_tolerance is not None:
        cluster["gcsFaultToleranceOptions"] = _build_fault_tolerance(spec)
    return cluster


def _build_fault_tolerance(spec: ModelDeploymentSpec) -> dict[str, Any]:
    wanted = spec.gcs_fault_tolerance
    assert wanted is not None  # noqa: S101  # the caller has looked
    found: dict[str, Any] = {"redisAddress": wanted.redis_address}
    if wanted.redis_password_secret:
        found["redisPassword"] = {
            "valueFrom": {"secretKeyRef": {"name": wanted.redis_password_secret, "key": "password"}}
        }
    return found


def fingerprint(manifest: Mapping[str, Any]) -> str:
    """Return a short hash of a manifest: equal for what would be the same write."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
