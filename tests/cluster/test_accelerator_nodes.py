"""Simulated nodes take pods with accelerators, and are lost in the ways that real ones are."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes import client
from tests.cluster.accelerator_nodes import CAPACITY_TYPE_LABEL, AcceleratorNodes
from tests.cluster.api_tier import wait_until

pytestmark = pytest.mark.cluster


def pod(name: str, accelerators: int, zone: str) -> dict[str, Any]:
    """Return a pod for one of a test's own nodes, which no other test's zone name equals."""
    limits = {"nvidia.com/gpu": str(accelerators)}
    container = {"name": "engine", "image": "engine", "resources": {"limits": limits}}
    return {
        "metadata": {"name": name},
        "spec": {
            "containers": [container],
            "nodeSelector": {"topology.kubernetes.io/zone": zone},
            "terminationGracePeriodSeconds": 0,
        },
    }


def phases(core: client.CoreV1Api, namespace: str) -> dict[str, str]:
    return {each.metadata.name: each.status.phase for each in _pods(core, namespace)}


def _pods(core: client.CoreV1Api, namespace: str) -> list[client.V1Pod]:
    return list(core.list_namespaced_pod(namespace).items)


def is_placed(core: client.CoreV1Api, namespace: str, manifest: dict[str, Any]) -> bool:
    """Make a pod and tell whether it got a node; one that did is taken away again."""
    name = manifest["metadata"]["name"]
    core.create_namespaced_pod(namespace, manifest)

    def is_looked_at() -> bool:
        found = core.read_namespaced_pod(name, namespace)
        conditions = found.status.conditions or []
        return any(each.type == "PodScheduled" for each in conditions)

    wait_until(is_looked_at, "the scheduler to look at the pod")
    has_node = core.read_namespaced_pod(name, namespace).spec.node_name is not None
    if has_node:
        core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)
    return has_node


@pytest.fixture
def core(api_client: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(api_client)


def test_nodes_say_what_they_are(core: client.CoreV1Api, gpu_nodes: AcceleratorNodes) -> None:
    names = gpu_nodes(
        count=2, accelerator="H200", per_node=8, capacity_type="Spot", zone="zone-described"
    )
    assert len(set(names)) == 2
    for name in names:
        node = core.read_node(name)
        assert node.status.allocatable["nvidia.com/gpu"] == "8"
        assert node.metadata.labels[CAPACITY_TYPE_LABEL] == "spot"
        assert node.metadata.labels["nvidia.com/gpu.product"] == "NVIDIA-H200"
        assert node.metadata.labels["topology.kubernetes.io/zone"] == "zone-described"


def test_an_unknown_capacity_type_is_refused(gpu_nodes: AcceleratorNodes) -> None:
    with pytest.raises(ValueError, match="'Cheap' is none of OnDemand, Reserved, Spot"):
        gpu_nodes(capacity_type="Cheap")


def test_pods_take_accelerators_until_none_is_left(
    core: client.CoreV1Api, gpu_nodes: AcceleratorNodes, namespace: str
) -> None:
    names = gpu_nodes(count=2, per_node=8, zone="zone-full")
    for number in range(5):
        core.create_namespaced_pod(namespace, pod(f"rank-{number}", 4, "zone-full"))
    wait_until(
        lambda: sorted(phases(core, namespace).values()) == ["Pending", *["Running"] * 4],
        "four pods to run",
    )
    (left_over,) = [each for each in _pods(core, namespace) if each.status.phase == "Pending"]

    def reason() -> str | None:
        conditions = core.read_namespaced_pod(left_over.metadata.name, namespace).status.conditions
        return next((each.reason for each in conditions or [] if each.status == "False"), None)

    wait_until(lambda: reason() == "Unschedulable", "the scheduler's verdict on the fifth")
    placed = [each.spec.node_name for each in _pods(core, namespace) if each.spec.node_name]
    assert sorted(placed) == sorted(names * 2)
    assert left_over.spec.node_name is None


def test_a_lost_node_is_given_up_and_comes_back(
    core: client.CoreV1Api, gpu_nodes: AcceleratorNodes, namespace: str
) -> None:
    lost, kept = gpu_nodes(count=2, zone="zone-dark")
    for number in range(2):
        core.create_namespaced_pod(namespace, pod(f"rank-{number}", 8, "zone-dark"))
    wait_until(
        lambda: list(phases(core, namespace).values()) == ["Running"] * 2, "both pods to run"
    )
    gpu_nodes.lose(lost)
    assert gpu_nodes.readiness(kept) == "True"

    def taints() -> set[str]:
        return {each.key for each in core.read_node(lost).spec.taints or []}

    wait_until(lambda: "node.kubernetes.io/unreachable" in taints(), "the taint")

    def not_ready() -> list[str]:
        return [each.spec.node_name for each in _pods(core, namespace) if not _is_ready(each)]

    wait_until(lambda: not_ready() == [lost], "its pod to count as not ready")
    gpu_nodes.restore(lost)
    wait_until(lambda: taints() == set(), "the taint to go")


def _is_ready(each: client.V1Pod) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in each.status.conditions or [])


def test_a_spot_node_is_taken_back_with_its_pods(
    core: client.CoreV1Api, gpu_nodes: AcceleratorNodes, namespace: str
) -> None:
    (spot,) = gpu_nodes(capacity_type="Spot", zone="zone-market")
    core.create_namespaced_pod(namespace, pod("first", 4, "zone-market"))
    wait_until(lambda: phases(core, namespace) == {"first": "Running"}, "the pod to run")
    gpu_nodes.warn_of_reclaim(spot)
    # The scheduler hears of the taint and of pods apart, on a busy machine of a new pod first.
    second = pod("second", 4, "zone-market")
    wait_until(lambda: not is_placed(core, namespace, second), "the node to be left alone")
    assert phases(core, namespace)["first"] == "Running"
    gpu_nodes.reclaim(spot)
    assert phases(core, namespace) == {"second": "Pending"}
    assert spot not in {each.metadata.name for each in core.list_node().items}


def test_only_spot_nodes_are_taken_back(gpu_nodes: AcceleratorNodes) -> None:
    (node,) = gpu_nodes(capacity_type="OnDemand")
    with pytest.raises(ValueError, match="is no spot node"):
        gpu_nodes.reclaim(node)
    assert gpu_nodes.readiness(node) == "True"


def test_a_removed_node_leaves_nothing(
    core: client.CoreV1Api, gpu_nodes: AcceleratorNodes, namespace: str
) -> None:
    gpu_nodes(zone="zone-gone")
    core.create_namespaced_pod(namespace, pod("only", 8, "zone-gone"))
    wait_until(lambda: phases(core, namespace) == {"only": "Running"}, "the pod to run")
    gpu_nodes.remove_all()
    wait_until(lambda: phases(core, namespace) == {}, "the pod to be gone")
    assert gpu_nodes.names == []
