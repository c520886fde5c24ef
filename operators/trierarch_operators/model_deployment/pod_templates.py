"""Pod templates of a variant's Ray cluster: pure.

Engine pods take exactly their share of a group's accelerators; the head takes none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from trierarch.api.v1alpha1.accelerator_class import AcceleratorClassSpec
from trierarch.api.v1alpha1.fields import Toleration
from trierarch.api.v1alpha1.model_deployment import Variant
from trierarch_operators.group_plan import GroupPlan, parse_quantity
from trierarch_operators.labels import GROUP_LABEL, TOKEN_AUDIENCE
from trierarch_operators.model_deployment.engine import MODEL_FOLDER, ModelSource

ZONE_LABEL = "topology.kubernetes.io/zone"

TOKEN_FOLDER = "/var/run/secrets/trierarch.dev"  # noqa: S105  # a folder
TOKEN_LIFE_SECONDS = 3600

_GRACE_AFTER_DRAIN_SECONDS = 30

_RAY_DRAIN_VARIABLE = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
"""How long Ray lets the replicas of a node end after SIGTERM; half a minute if nobody says it."""

_PROXY_DRAIN_VARIABLE = "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S"
"""The shortest life of Serve's proxy on a node after that; half a minute if nobody says it. No
request goes through it, but it would keep a node without answers, and when a whole cluster is
deleted it would outlive the head, after which Ray waits a minute longer."""

_HEAD_RESOURCES = {"cpu": "1", "memory": "4Gi"}


@dataclasses.dataclass(frozen=True, slots=True)
class PodSettings:
    """What is the same for all engine pods of this installation.

    Attributes:
        image: Of Ray head and engine.
        download_image: With the AWS command line.
        huggingface_token_secret: Used where it exists.
        service_account: Of the pods.
        drain_seconds: The longest that an answer may hold up the end of its replica.
        template: Partial pod template, merged over the generated one.
    """

    image: str
    download_image: str = ""
    huggingface_token_secret: str = "huggingface-token"  # noqa: S105  # a Secret's name
    service_account: str = "default"
    drain_seconds: float = 600.0
    template: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def build_head_template(
    labels: Mapping[str, str], settings: PodSettings, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the pod that holds Ray's head and no engine.

    Of the deployment's own template only the image counts: Ray must be the same on all nodes,
    and what else engines need is not for the head.
    """
    container = _container(settings.image, _HEAD_RESOURCES)
    template = _overlay(_template(labels, settings, container), settings.template)
    containers = overrides.get("spec", {}).get("containers", ())
    images = [c["image"] for c in containers if c.get("name") == "ray" and c.get("image")]
    if images:
        template["spec"]["containers"][0]["image"] = images[0]
    return template


def build_engine_template(
    labels: Mapping[str, str],
    variant: Variant,
    accelerator_class: AcceleratorClassSpec,
    plan: GroupPlan,
    source: ModelSource,
    settings: PodSettings,
    overrides: Mapping[str, Any],
) -> dict[str, Any]:
    """Return one node's share of a group."""
    count = plan.accelerators_per_host
    host = accelerator_class.host
    resources = {"cpu": _times(host.cpu, count), "memory": _times(host.memory, count)}
    container = _container(settings.image, resources)
    limits = container["resources"]["limits"]
    if accelerator_class.resource_name:
        limits[accelerator_class.resource_name] = str(count)
    if accelerator_class.rdma is not None and plan.hosts > 1:
        limits[accelerator_class.rdma.resource_name] = str(accelerator_class.rdma.per_node)
        # Cards write into pinned memory.
        container["securityContext"]["capabilities"]["add"] = ["IPC_LOCK"]
    template = _template(labels, settings, container)
    pod = template["spec"]
    pod["volumes"].append(
        {
            "name": "shared-memory",
            "emptyDir": {"medium": "Memory", "sizeLimit": _times(host.shared_memory, count)},
        }
    )
    container["env"] = [
        {"name": _RAY_DRAIN_VARIABLE, "value": str(int(settings.drain_seconds))},
        {"name": _PROXY_DRAIN_VARIABLE, "value": "1"},
    ]
    container["volumeMounts"].append({"name": "shared-memory", "mountPath": "/dev/shm"})  # noqa: S108  # what engines use
    _add_source(pod, container, source, settings)
    _add_placement(pod, labels, variant, accelerator_class, plan)
    if accelerator_class.runtime_class_name:
        pod["runtimeClassName"] = accelerator_class.runtime_class_name
    pod["terminationGracePeriodSeconds"] = int(settings.drain_seconds) + _GRACE_AFTER_DRAIN_SECONDS
    return _overlay(_overlay(template, settings.template), overrides)


def _overlay(template: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = merge(template, over)
    return merged


def _container(image: str, resources: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": "ray",
        "image": image,
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "announce-token", "mountPath": TOKEN_FOLDER, "readOnly": True}],
    }


def _template(
    labels: Mapping[str, str], settings: PodSettings, container: dict[str, Any]
) -> dict[str, Any]:
    return {
        "metadata": {"labels": dict(labels)},
        "spec": {
            "serviceAccountName": settings.service_account,
            # The one token a pod has is for announcing itself, and for nothing else.
            "automountServiceAccountToken": False,
            # As process 1 of its namespace a program that has not set a handler yet, as Ray while
            # it is imported, or a download, would not be reached by SIGTERM at all: a pod deleted
            # then would hold its accelerators for the grace period of an answer.
            "shareProcessNamespace": True,
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                {
                    "name": "announce-token",
                    "projected": {
                        "sources": [
                            {
                                "serviceAccountToken": {
                                    "audience": TOKEN_AUDIENCE,
                                    "expirationSeconds": TOKEN_LIFE_SECONDS,
                                    "path": "token",
                                }
                            }
                        ]
                    },
                }
            ],
        },
    }


def _add_source(
    pod: dict[str, Any], container: dict[str, Any], source: ModelSource, settings: PodSettings
) -> None:
    volume: dict[str, Any] = {"name": "model"}
    path = MODEL_FOLDER
    match source.scheme:
        case "pvc":
            volume["persistentVolumeClaim"] = {"claimName": source.place, "readOnly": True}
        case "file":
            path = source.path
            volume["hostPath"] = {"path": source.path, "type": "Directory"}
        case "hf" | "s3":
            volume["emptyDir"] = {}
            pod["initContainers"] = [_download(container, source, settings)]
    pod["volumes"].append(volume)
    container["volumeMounts"].append({"name": "model", "mountPath": path, "readOnly": True})


def _download(
    container: Mapping[str, Any], source: ModelSource, settings: PodSettings
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": "download",
        "image": settings.image,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "resources": {
            "requests": {"cpu": "1", "memory": "2Gi"},
            "limits": {"cpu": container["resources"]["limits"]["cpu"], "memory": "8Gi"},
        },
        "volumeMounts": [{"name": "model", "mountPath": MODEL_FOLDER}],
    }
    if source.scheme == "s3":
        found["image"] = settings.download_image or settings.image
        place = f"s3://{source.place}/{source.folder}"
        sync = ("aws", "s3", "sync", "--only-show-errors")
        found["command"] = [*sync, place, MODEL_FOLDER]
        return found
    found["command"] = ["hf", "download", source.place, "--local-dir", MODEL_FOLDER]
    found["env"] = [
        {
            "name": "HF_TOKEN",
            "valueFrom": {
                "secretKeyRef": {
                    "name": settings.huggingface_token_secret,
                    "key": "token",
                    "optional": True,
                }
            },
        },
        {"name": "HF_HOME", "value": f"{MODEL_FOLDER}/.cache"},
    ]
    return found


def _add_placement(
    pod: dict[str, Any],
    labels: Mapping[str, str],
    variant: Variant,
    accelerator_class: AcceleratorClassSpec,
    plan: GroupPlan,
) -> None:
    pool = next(
        (p for p in accelerator_class.capacity_pools if p.capacity_type is variant.capacity_type),
        None,
    )
    selector = {**accelerator_class.node_selector, **(pool.node_selector if pool else {})}
    if selector:
        pod["nodeSelector"] = selector
    tolerations = [*accelerator_class.tolerations, *(pool.tolerations if pool else ())]
    if tolerations:
        pod["tolerations"] = [_toleration(t) for t in tolerations]
    affinity: dict[str, Any] = {}
    if variant.zones:
        expression = {"key": ZONE_LABEL, "operator": "In", "values": list(variant.zones)}
        affinity["nodeAffinity"] = {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [expression]}]
            }
        }
    if plan.hosts > 1:
        affinity["podAffinity"] = _keep_together(labels, accelerator_class, plan)
    if affinity:
        pod["affinity"] = affinity
    # Groups spread over zones; the affinity above keeps the pods of one group together.
    pod["topologySpreadConstraints"] = [
        {
            "maxSkew": plan.hosts,
            "topologyKey": ZONE_LABEL,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(labels)},
        }
    ]


def _keep_together(
    labels: Mapping[str, str], accelerator_class: AcceleratorClassSpec, plan: GroupPlan
) -> dict[str, Any]:
    """Return the affinity among the pods of one group.

    A group that fits into a scale-up domain must be in one: across domains its experts would
    talk over the network. A wider one should be in as few domains as possible, and in one zone.
    """
    links = accelerator_class.links
    term = {"labelSelector": {"matchLabels": dict(labels)}, "matchLabelKeys": [GROUP_LABEL]}
    domain = links.scale_up_topology_key
    if domain is not None and plan.layout.accelerators <= links.scale_up_accelerators:
        return {"requiredDuringSchedulingIgnoredDuringExecution": [{**term, "topologyKey": domain}]}
    # Not required: nodes of one's own machine room often carry no zone.
    wishes = [(100, domain)] if domain is not None else []
    wishes.append((50, ZONE_LABEL))
    return {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": weight, "podAffinityTerm": {**term, "topologyKey": key}}
            for weight, key in wishes
        ]
    }


def _toleration(toleration: Toleration) -> dict[str, Any]:
    return toleration.model_dump(mode="json", by_alias=True, exclude_none=True)


def _times(quantity: str, count: int) -> str:
    """Return a quantity times a count, in the same unit where that is exact."""
    digits = quantity.rstrip("kKMGTPim")
    unit = quantity[len(digits) :]
    total = float(digits) * count
    if total.is_integer():
        return f"{int(total)}{unit}"
    return str(int(parse_quantity(quantity) * count))


def merge(base: Any, over: Any) -> Any:
    """Return ``base`` with ``over`` laid over it.

    Objects are merged field by field, lists of named objects by name, other lists replaced;
    null removes a field.
    """
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        found = {key: value for key, value in base.items() if over.get(key, ...) is not None}
        for key, value in over.items():
            if value is not None:
                found[key] = merge(base[key], value) if key in base else value
        return found
    if _is_named(base) and _is_named(over):
        return _merge_named(base, over)
    return over


def _is_named(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(entry, Mapping) and "name" in entry for entry in value)
    )


def _merge_named(base: Sequence[Mapping[str, Any]], over: Sequence[Mapping[str, Any]]) -> list[Any]:
    changes = {entry["name"]: entry for entry in over}
    found = [
        merge(entry, changes.pop(entry["name"])) if entry["name"] in changes else entry
        for entry in base
    ]
    return [*found, *changes.values()]
