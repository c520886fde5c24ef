"""Groups are placed whole or not at all, with the real scheduler, the real KubeRay and nodes
that kwok plays."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.cluster.accelerator_nodes import AcceleratorNodes
from tests.cluster.build import build

from trierarch_operators.labels import TOKEN_AUDIENCE

from .conftest import Cluster, RunningOperator, StartOperator, wait_for

pytestmark = pytest.mark.cluster("kuberay")

SOON = {"PLACEMENT_GRACE_SECONDS": "2", "PLACEMENT_PAUSE_SECONDS": "5"}


@pytest.fixture(scope="module")
def kuberay(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run KubeRay's operator during the module."""
    log = tmp_path_factory.mktemp("kuberay") / "log"
    command = [str(build("kuberay-operator")), "-enable-leader-election=false"]
    command += ["-metrics-addr=127.0.0.1:0", "-health-probe-bind-address=127.0.0.1:0"]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            env={**os.environ, "KUBECONFIG": str(cluster.server.kubeconfig)},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
        assert process.poll() is None, log.read_text()[-3000:]
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def accelerator(cluster: Cluster) -> Iterator[Callable[..., str]]:
    """Yield what makes an accelerator class that finds the nodes of one product."""
    made: list[str] = []

    def make(**spec: Any) -> str:
        name = f"x{secrets.token_hex(3)}"
        fields = {
            "priceKey": name,
            "resourceName": "nvidia.com/gpu",
            "memory": "141Gi",
            "nodeSelector": {"nvidia.com/gpu.product": f"NVIDIA-{name}"},
            "host": {"cpu": "1", "memory": "1Gi", "sharedMemory": "1Gi"},
            **spec,
        }
        cluster.apply(
            {
                "apiVersion": "trierarch.dev/v1alpha1",
                "kind": "AcceleratorClass",
                "metadata": {"name": name},
                "spec": fields,
            }
        )
        made.append(name)
        return name

    yield make
    for name in made:
        cluster.ask("DELETE", f"/apis/trierarch.dev/v1alpha1/acceleratorclasses/{name}")


def deployment(accelerator: str, data: int, **variant: Any) -> dict[str, Any]:
    return {
        "apiVersion": "trierarch.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "chat"},
        "spec": {
            "model": {"name": "m", "source": "hf://org/m"},
            "variants": [
                {
                    "name": "v",
                    "accelerator": accelerator,
                    "parallelism": {"data": data, "expert": True},
                    "minReplicas": 1,
                    "maxReplicas": 4,
                    **variant,
                }
            ],
        },
    }


def engine_pods(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    return [
        pod
        for pod in cluster.list("Pod", namespace)
        if pod["metadata"]["labels"].get("trierarch.dev/role") == "engine"
        and not pod["metadata"].get("deletionTimestamp")
    ]


def placed(cluster: Cluster, namespace: str) -> list[str]:
    pods = engine_pods(cluster, namespace)
    return [pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")]


def progressing(cluster: Cluster, namespace: str) -> dict[str, Any]:
    found = cluster.get("ModelDeployment", namespace, "chat") or {}
    conditions = found.get("status", {}).get("conditions", ())
    return next((c for c in conditions if c["type"] == "Progressing"), {})


def head_node(gpu_nodes: AcceleratorNodes) -> None:
    """Add a node for heads, which take no accelerator."""
    gpu_nodes(1, per_node=0, accelerator="none")


def test_a_group_without_room_is_given_back_whole_and_placed_when_there_is(
    cluster: Cluster,
    namespace: str,
    kuberay: None,
    gpu_nodes: AcceleratorNodes,
    accelerator: Callable[..., str],
    start_operator: StartOperator,
) -> None:
    name = accelerator()
    head_node(gpu_nodes)
    gpu_nodes(1, accelerator=name)
    start_operator(**SOON).wait_until_it_leads()
    cluster.apply(deployment(name, data=16), namespace)

    def is_given_back() -> bool:
        return progressing(cluster, namespace).get("reason") == "InsufficientCapacity"

    wait_for(is_given_back, "the half group to be given back")
    message = progressing(cluster, namespace)["message"]
    assert "only 1 of 2 pods" in message
    assert "nvidia.com/gpu" in message
    wait_for(lambda: not placed(cluster, namespace), "the accelerators to be free")
    gpu_nodes(1, accelerator=name)
    wait_for(lambda: len(set(placed(cluster, namespace))) == 2, "the whole group to be placed")
    wait_for(lambda: not is_given_back(), "the condition to say so")


def test_a_group_as_wide_as_a_domain_lies_in_one_domain(
    cluster: Cluster,
    namespace: str,
    kuberay: None,
    gpu_nodes: AcceleratorNodes,
    accelerator: Callable[..., str],
    start_operator: StartOperator,
) -> None:
    key = "nvidia.com/gpu.clique"
    name = accelerator(
        acceleratorsPerNode=4,
        links={"scaleUpAccelerators": 16, "scaleUpTopologyKey": key},
    )
    head_node(gpu_nodes)
    racks = {}
    for rack in ("a", "b", "c"):
        for node in gpu_nodes(4, accelerator=name, per_node=4, labels={key: rack}):
            racks[node] = rack
    start_operator(**SOON).wait_until_it_leads()
    cluster.apply(deployment(name, data=16), namespace)
    wait_for(lambda: len(placed(cluster, namespace)) == 4, "the group to be placed")
    assert len({racks[node] for node in placed(cluster, namespace)}) == 1


def test_spot_groups_go_to_spot_nodes(
    cluster: Cluster,
    namespace: str,
    kuberay: None,
    gpu_nodes: AcceleratorNodes,
    accelerator: Callable[..., str],
    start_operator: StartOperator,
) -> None:
    name = accelerator(
        capacityPools=[
            {
                "capacityType": "Spot",
                "nodeSelector": {"karpenter.sh/capacity-type": "spot"},
            }
        ]
    )
    head_node(gpu_nodes)
    gpu_nodes(1, accelerator=name)
    (spot,) = gpu_nodes(1, accelerator=name, capacity_type="Spot")
    start_operator(**SOON).wait_until_it_leads()
    cluster.apply(deployment(name, data=8, capacityType="Spot"), namespace)
    wait_for(lambda: placed(cluster, namespace) == [spot], "the group on the spot node")


def announce(
    cluster: Cluster, namespace: str, operator: RunningOperator, pod: dict[str, Any], state: str
) -> int:
    """Say what a replica in this pod would say; return the answer's status."""
    token = cluster.ask(
        "POST",
        f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token",
        {"spec": {"audiences": [TOKEN_AUDIENCE]}},
    )["status"]["token"]
    document = {
        "replica_id": "r",
        "model": "m",
        "variant": "v",
        "state": state,
        "host": pod["status"]["podIP"],
        "port": 8000,
        "started_unix_seconds": 1.0,
        "ready_unix_seconds": 2.0,
        "reason": "",
        "max_model_tokens": 8192,
        "in_flight": 0,
        "pid": 1,
        "message": "",
    }
    headers = {"authorization": f"Bearer {token}"}
    return httpx.post(f"{operator.url}/announcements", json=document, headers=headers).status_code


def ready_replicas(cluster: Cluster, namespace: str) -> int:
    found = cluster.get("ModelDeployment", namespace, "chat") or {}
    return int(found.get("status", {}).get("readyReplicas", 0))


def test_what_serves_stays_when_a_group_has_to_go(
    cluster: Cluster,
    namespace: str,
    kuberay: None,
    gpu_nodes: AcceleratorNodes,
    accelerator: Callable[..., str],
    start_operator: StartOperator,
) -> None:
    name = accelerator()
    head_node(gpu_nodes)
    gpu_nodes(2, accelerator=name)
    operator = start_operator(**SOON, ANNOUNCE_URL="http://operator/announcements")
    operator.wait_until_it_leads()
    cluster.apply(deployment(name, data=8, minReplicas=2), namespace)
    wait_for(lambda: len(placed(cluster, namespace)) == 2, "two groups to be placed")
    wait_for(
        lambda: all(pod["status"].get("podIP") for pod in engine_pods(cluster, namespace)),
        "the pods' addresses",
    )
    serving = engine_pods(cluster, namespace)[-1]
    assert announce(cluster, namespace, operator, serving, "ready") == 200
    wait_for(lambda: ready_replicas(cluster, namespace) == 1, "the replica to be counted")
    (listed,) = [
        replica
        for replica in httpx.get(f"{operator.url}/replicas").json()["replicas"]
        if replica["state"] == "ready"
    ]
    assert listed["host"] == serving["status"]["podIP"]
    cluster.apply(deployment(name, data=8, minReplicas=1, maxReplicas=1), namespace)

    def only_the_serving_one() -> bool:
        # A replica speaks every second while it lives.
        announce(cluster, namespace, operator, serving, "ready")
        names = [pod["metadata"]["name"] for pod in engine_pods(cluster, namespace)]
        return names == [serving["metadata"]["name"]]

    wait_for(only_the_serving_one, "the idle group to go")


def test_who_brings_no_token_of_an_engine_is_not_believed(
    cluster: Cluster, namespace: str, start_operator: StartOperator
) -> None:
    operator = start_operator()
    operator.wait_until_it_leads()
    url = f"{operator.url}/announcements"
    for header in ("", "Bearer nonsense", "Basic x"):
        answer = httpx.post(url, json={}, headers={"authorization": header}, timeout=30)
        assert answer.status_code == 401
