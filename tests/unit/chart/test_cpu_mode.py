"""The examples and the chart's CPU mode make pods that fit the kind cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from trierarch.api.v1alpha1.accelerator_class import AcceleratorClass
from trierarch.api.v1alpha1.model_deployment import ModelDeployment
from trierarch_operators.group_plan import choose_layout, find_class, plan_group
from trierarch_operators.labels import ROLE_LABEL
from trierarch_operators.model_deployment.manifests import (
    Counts,
    Owner,
    RaySettings,
    build_labels,
    build_ray_service,
)
from trierarch_operators.model_deployment.pod_templates import PodSettings

ROOT = Path(__file__).resolve().parents[3]


def read(path: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / path).read_text())
    return document


def test_replicas_of_the_example_take_their_environment_from_the_node_and_fit_two_cores() -> None:
    engine = read("deploy/helm/trierarch/values-cpu.yaml")["engine"]
    deployment = ModelDeployment.model_validate(read("docs/examples/model-deployment.yaml"))
    accelerators = AcceleratorClass.model_validate(read("docs/examples/accelerator-class.yaml"))
    [variant] = deployment.spec.variants
    found = find_class(variant, {"cpu": accelerators})
    layout = choose_layout(deployment.spec, variant, found)
    plan = plan_group(layout, found[1].spec.accelerators_per_node, what=variant.name)
    pods = PodSettings(image="trierarch-engine:host", template=engine["podTemplate"])
    service = build_ray_service(
        Owner("models", "pocket", "uid"),
        deployment.spec,
        variant,
        found[1].spec,
        plan,
        Counts(1, 1),
        RaySettings(pods=pods, ray_version="2.60.0", announce_url="http://operator/announcements"),
    )
    cluster = service["spec"]["rayClusterConfig"]
    [group] = cluster["workerGroupSpecs"]
    for template in (cluster["headGroupSpec"]["template"], group["template"]):
        [ray] = template["spec"]["containers"]
        assert {"name": "PYTHONPATH", "value": "/trierarch/environment/source"} in ray["env"]
        mounts = {mount["mountPath"]: mount["name"] for mount in ray["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        environment = volumes[mounts["/trierarch/environment"]]
        assert environment["hostPath"]["path"] == "/trierarch/environment"
        assert set(mounts.values()) <= volumes.keys()
    [engine_pod] = group["template"]["spec"]["containers"]
    assert engine_pod["resources"]["requests"]["cpu"] == "250m", "two of them beside a head"
    assert engine_pod["resources"]["limits"]["cpu"] == "2", "imports use what is idle"
    assert "/trierarch/models/pocket" in {m["mountPath"] for m in engine_pod["volumeMounts"]}


def test_the_expert_parallel_example_is_a_rank_on_each_of_two_nodes() -> None:
    text = (ROOT / "docs/examples/expert-parallel/two-nodes.yaml").read_text()
    one_cpu, deployment_document = yaml.safe_load_all(text)
    accelerators = AcceleratorClass.model_validate(one_cpu)
    deployment = ModelDeployment.model_validate(deployment_document)
    [variant] = deployment.spec.variants
    cpu = AcceleratorClass.model_validate(read("docs/examples/accelerator-class.yaml"))
    known = {"cpu": cpu, one_cpu["metadata"]["name"]: accelerators}
    name, found = find_class(variant, known)
    layout = choose_layout(deployment.spec, variant, (name, found))
    plan = plan_group(layout, found.spec.accelerators_per_node, what=variant.name)
    assert (layout.expert, plan.hosts, plan.ranks_per_host) == (True, 2, 1)
    book = read("docs/examples/price-book.yaml")
    assert found.spec.price_key in {entry["accelerator"] for entry in book["spec"]["entries"]}
    affinity = deployment_document["spec"]["podTemplate"]["spec"]["affinity"]
    [rule] = affinity["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    labels = build_labels(deployment_document["metadata"]["name"], variant.name)
    engines = {**labels, ROLE_LABEL: "engine"}
    assert rule["labelSelector"]["matchLabels"].items() <= engines.items()
