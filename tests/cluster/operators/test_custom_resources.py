"""The API server itself refuses what is wrong, and says which field."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from trierarch_operators.model_deployment.reconcile import FINALIZER

from .conftest import ApiError, Cluster, wait_for

pytestmark = pytest.mark.cluster

GOOD: dict[str, dict[str, Any]] = {
    "ModelDeployment": {
        "model": {"name": "deepseek-v4-flash", "source": "hf://deepseek-ai/v4-flash"},
        "variants": [
            {
                "name": "h200",
                "accelerator": "H200",
                "parallelism": {"data": 8, "expert": True},
                "minReplicas": 0,
                "maxReplicas": 4,
            }
        ],
        "scaling": {
            "slo": {"ttftSeconds": "2.0"},
            "costPerMillionTokens": {"target": "0.60"},
        },
    },
    "AcceleratorClass": {"resourceName": "nvidia.com/gpu", "memory": "141Gi"},
    "PriceBook": {
        "entries": [
            {
                "accelerator": "H200",
                "pricePerHour": "3.20",
                "effectiveFrom": "2026-01-01T00:00:00Z",
            }
        ]
    },
    "Tenant": {"budgets": [{"period": "Day", "amount": "100", "action": "Block"}]},
}

CLUSTER_WIDE = {"AcceleratorClass", "PriceBook"}


def manifest(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "trierarch.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def changed(kind: str, path: str, value: Any) -> dict[str, Any]:
    """Return the good spec with one place changed; ``...`` removes it."""
    spec = copy.deepcopy(GOOD[kind])
    *parents, last = path.split(".")
    place: Any = spec
    for part in parents:
        place = place.setdefault(part, {}) if isinstance(place, dict) else place[int(part)]
    if value is ...:
        del place[last]
    elif isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return spec


VARIANT = GOOD["ModelDeployment"]["variants"][0]

BAD: list[tuple[str, str, Any, str]] = [
    ("ModelDeployment", "model", ..., "spec.model: Required value"),
    ("ModelDeployment", "model.source", "weights", "spec.model.source"),
    ("ModelDeployment", "model.name", "a b", "spec.model.name"),
    ("ModelDeployment", "variants", [], "spec.variants"),
    ("ModelDeployment", "variants", [VARIANT, VARIANT], "spec.variants[1]: Duplicate value"),
    ("ModelDeployment", "variants.0.name", "H200", "spec.variants[0].name"),
    (
        "ModelDeployment",
        "variants.0.minReplicas",
        5,
        "spec.variants[0].minReplicas: Invalid value: minReplicas must not be above maxReplicas",
    ),
    ("ModelDeployment", "variants.0.minReplicas", -1, "spec.variants[0].minReplicas"),
    (
        "ModelDeployment",
        "variants.0.maxReplicas",
        0,
        "variants: at least one variant needs maxReplicas above 0",
    ),
    ("ModelDeployment", "variants.0.capacityType", "Cheap", "spec.variants[0].capacityType"),
    (
        "ModelDeployment",
        "variants.0.parallelism",
        {"auto": True, "data": 8},
        "parallelism.auto: remove data, tensor and expert, or set auto to false",
    ),
    (
        "ModelDeployment",
        "variants.0.parallelism",
        {"expert": True},
        "parallelism.expert: needs data or tensor above 1 to spread experts",
    ),
    (
        "ModelDeployment",
        "variants.0.parallelism",
        {"auto": True},
        "model.configJson: needed where a variant has parallelism.auto",
    ),
    ("ModelDeployment", "variants.0.parallelism.data", "8", "spec.variants[0].parallelism.data"),
    ("ModelDeployment", "replicas", 5, "replicas: is above the sum of the variants' maxReplicas"),
    ("ModelDeployment", "replicas", -1, "spec.replicas"),
    ("ModelDeployment", "scaling.targetQueueDepth", 0, "spec.scaling.targetQueueDepth"),
    ("ModelDeployment", "scaling.targetQueueDepth", 1.5, "spec.scaling.targetQueueDepth"),
    ("ModelDeployment", "scaling.slo", {}, "slo: set ttftSeconds, tpotSeconds or both"),
    ("ModelDeployment", "scaling.slo.ttftSeconds", 2.0, "spec.scaling.slo.ttftSeconds"),
    ("ModelDeployment", "scaling.slo.ttftSeconds", "fast", "spec.scaling.slo.ttftSeconds"),
    ("ModelDeployment", "scaling.slo.ttftSeconds", "0", "spec.scaling.slo.ttftSeconds"),
    ("ModelDeployment", "scaling.slo.percentile", 100, "spec.scaling.slo.percentile"),
    (
        "ModelDeployment",
        "scaling.costPerMillionTokens.target",
        "-1",
        "spec.scaling.costPerMillionTokens.target",
    ),
    (
        "ModelDeployment",
        "scaling.costPerMillionTokens.target",
        "0.00",
        "spec.scaling.costPerMillionTokens.target",
    ),
    (
        "ModelDeployment",
        "scaling.costPerMillionTokens.onConflict",
        "Both",
        "spec.scaling.costPerMillionTokens.onConflict",
    ),
    ("ModelDeployment", "scaling.approval", {}, "spec.scaling.approval.aboveHourlyCost"),
    (
        "ModelDeployment",
        "scaling.behavior.scaleDown",
        {"maxStepPercent": 0},
        "spec.scaling.behavior.scaleDown.maxStepPercent",
    ),
    (
        "ModelDeployment",
        "scaling.behavior.onDemandFloorPercent",
        101,
        "spec.scaling.behavior.onDemandFloorPercent",
    ),
    (
        "ModelDeployment",
        "gangAdmission",
        {"kueueQueue": "a", "volcanoQueue": "b"},
        "gangAdmission: set exactly one of kueueQueue and volcanoQueue",
    ),
    ("ModelDeployment", "scalling", {}, 'unknown field "spec.scalling"'),
    (
        "AcceleratorClass",
        "resourceName",
        ...,
        "resourceName: set it, or set cpuOnly to true for engines on CPU cores",
    ),
    ("AcceleratorClass", "memory", "lots", "spec.memory"),
    ("AcceleratorClass", "acceleratorsPerNode", 0, "spec.acceleratorsPerNode"),
    (
        "AcceleratorClass",
        "links",
        {"scaleUpAccelerators": 12},
        "links.scaleUpAccelerators: must be whole nodes of acceleratorsPerNode, or divide one",
    ),
    ("PriceBook", "entries", [], "spec.entries"),
    ("PriceBook", "currency", "EUR", "spec.currency"),
    ("PriceBook", "entries.0.pricePerHour", 3.2, "spec.entries[0].pricePerHour"),
    ("PriceBook", "entries.0.pricePerHour", "-3", "spec.entries[0].pricePerHour"),
    ("PriceBook", "entries.0.effectiveFrom", "yesterday", "spec.entries[0].effectiveFrom"),
    (
        "PriceBook",
        "entries.0.effectiveUntil",
        "2025-01-01T00:00:00Z",
        "effectiveUntil must be after effectiveFrom",
    ),
    ("Tenant", "budgets.0.amount", "0", "spec.budgets[0].amount"),
    ("Tenant", "budgets.0.period", "Week", "spec.budgets[0].period"),
    (
        "Tenant",
        "budgets.0.action",
        "Downgrade",
        "downgradeTo: name the cheaper model for action Downgrade, and only for it",
    ),
    ("Tenant", "limits", {"tokensPerMinute": 0}, "spec.limits.tokensPerMinute"),
    ("Tenant", "allowedModels", ["a", "a"], "spec.allowedModels[1]: Duplicate value"),
]


@pytest.mark.parametrize(
    ("kind", "path", "value", "words"),
    BAD,
    ids=[f"{kind}-{path}={json.dumps(value, default=str)}"[:70] for kind, path, value, _ in BAD],
)
def test_the_api_server_refuses_it_and_names_the_field(
    cluster: Cluster, kind: str, path: str, value: Any, words: str
) -> None:
    place = "" if kind in CLUSTER_WIDE else "default"
    with pytest.raises(ApiError) as refused:
        cluster.create(manifest(kind, "bad", changed(kind, path, value)), place)
    assert refused.value.status in (400, 422)
    message = str(refused.value)
    assert words in message


@pytest.mark.parametrize("kind", GOOD)
def test_good_manifests_are_taken_and_completed(
    cluster: Cluster, namespace: str, kind: str
) -> None:
    place = "" if kind in CLUSTER_WIDE else namespace
    name = f"good-{namespace}"
    made = cluster.create(manifest(kind, name, GOOD[kind]), place)
    try:
        if kind == "ModelDeployment":
            assert made["spec"]["variants"][0]["capacityType"] == "OnDemand"
            assert made["spec"]["scaling"]["behavior"]["intervalSeconds"] == 15
            assert made["spec"]["scaling"]["costPerMillionTokens"]["onConflict"] == "PreferLatency"
    finally:
        if kind in CLUSTER_WIDE:
            plural = {"AcceleratorClass": "acceleratorclasses", "PriceBook": "pricebooks"}[kind]
            cluster.ask("DELETE", f"/apis/trierarch.dev/v1alpha1/{plural}/{name}")


def test_a_model_s_name_cannot_change(cluster: Cluster, namespace: str) -> None:
    cluster.apply(manifest("ModelDeployment", "md", GOOD["ModelDeployment"]), namespace)
    other = changed("ModelDeployment", "model.name", "other")
    with pytest.raises(ApiError) as refused:
        cluster.apply(manifest("ModelDeployment", "md", other), namespace)
    assert "model.name cannot change" in str(refused.value)


def test_the_scale_subresource_reads_and_writes_replicas(cluster: Cluster, namespace: str) -> None:
    cluster.apply(manifest("ModelDeployment", "md", GOOD["ModelDeployment"]), namespace)
    path = f"/apis/trierarch.dev/v1alpha1/namespaces/{namespace}/modeldeployments/md/scale"
    scaled = cluster.ask(
        "PATCH", path, {"spec": {"replicas": 3}}, content_type="application/merge-patch+json"
    )
    assert scaled["spec"]["replicas"] == 3
    found = cluster.get("ModelDeployment", namespace, "md")
    assert found is not None
    assert found["spec"]["replicas"] == 3


def test_the_namespace_of_a_test_ends_whatever_its_operator_has_left(cluster: Cluster) -> None:
    held = manifest("ModelDeployment", "md", GOOD["ModelDeployment"])
    held["metadata"]["finalizers"] = [FINALIZER]
    with cluster.server.new_namespace() as name:
        cluster.create(held, name)
    wait_for(lambda: cluster.get("Namespace", "", name) is None, "the namespace to end")
