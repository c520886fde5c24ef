"""Groups are placed whole or not at all, with the real scheduler, the real KubeRay and nodes
that kwok plays."""

from __future__ import annotations

import dataclasses
import os
import secrets
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.cluster.accelerator_nodes import AcceleratorNodes
from tests.cluster.build import build

from trierarch_operators.labels import TOKEN_AUDIENCE

from .conftest import Cluster, RunningOperator, StartOperator, wait_for

pytestmark = pytest.mark.cluster("kuberay")

SOON = {"PLACEMENT_GRACE_SECONDS": "5", "PLACEMENT_PAUSE_SECONDS": "5"}


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


@dataclasses.dataclass
class Ground:
    """One namespace with nodes, accelerator classes and an operator that gives back soon."""

    cluster: Cluster
    namespace: str
    nodes: AcceleratorNodes
    start_operator: StartOperator
    classes: list[str] = dataclasses.field(default_factory=list)

    def new_class(self, **spec: Any) -> str:
        """Make an accelerator class that finds the nodes of one product; return its name."""
        name = f"x{secrets.token_hex(3)}"
        fields = {
            "priceKey": name,
            "resourceName": "nvidia.com/gpu",
            "memory": "141Gi",
            "nodeSelector": {"nvidia.com/gpu.product": f"NVIDIA-{name}"},
            "host": {"cpu": "1", "memory": "1Gi", "sharedMemory": "1Gi"},
            **spec,
        }
        self.cluster.apply(
            {
                "apiVersion": "trierarch.dev/v1alpha1",
                "kind": "AcceleratorClass",
                "metadata": {"name": name},
                "spec": fields,
            }
        )
        self.classes.append(name)
        return name

    def start(self, **settings: str) -> RunningOperator:
        """Start an operator and wait until it leads."""
        operator = self.start_operator(**{**SOON, **settings})
        operator.wait_until_it_leads()
        return operator

    def deploy(self, accelerator: str, data: int, **variant: Any) -> None:
        """Apply the one model deployment, with a variant of so many ranks."""
        self.cluster.apply(deployment(accelerator, data, **variant), self.namespace)

    def engine_pods(self) -> list[dict[str, Any]]:
        """Return the engine pods that are not being deleted."""
        return [
            pod
            for pod in self.cluster.list("Pod", self.namespace)
            if pod["metadata"]["labels"].get("trierarch.dev/role") == "engine"
            and not pod["metadata"].get("deletionTimestamp")
        ]

    def placed(self) -> list[str]:
        """Return the nodes of the engine pods that have one."""
        pods = self.engine_pods()
        return [pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")]

    def wait_for_addresses(self, count: int) -> list[dict[str, Any]]:
        """Return the engine pods once there are so many with an address."""

        def pods() -> list[dict[str, Any]]:
            found = [pod for pod in self.engine_pods() if pod["status"].get("podIP")]
            return found if len(found) == count else []

        found: list[dict[str, Any]] = wait_for(pods, f"{count} pods with an address")
        return found

    def status(self) -> dict[str, Any]:
        """Return the model deployment's status."""
        found = self.cluster.get("ModelDeployment", self.namespace, "chat") or {}
        return dict(found.get("status", {}))

    def progressing(self) -> dict[str, Any]:
        """Return the condition Progressing."""
        conditions = self.status().get("conditions", ())
        return next((c for c in conditions if c["type"] == "Progressing"), {})

    def reasons(self) -> set[str]:
        """Return the reasons of all Events."""
        return {event["reason"] for event in self.cluster.list("Event", self.namespace)}

    def announce(
        self, operator: RunningOperator, pod: dict[str, Any], state: str, message: str = ""
    ) -> int:
        """Say what a replica in this pod would say; return the answer's status."""
        token = self.cluster.ask(
            "POST",
            f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default/token",
            {"spec": {"audiences": [TOKEN_AUDIENCE]}},
        )["status"]["token"]
        is_listening = state != "failed"
        document = {
            "replica_id": "r",
            "model": "m",
            "variant": "v",
            "state": state,
            "address": pod["status"]["podIP"],
            "host": pod["status"]["podIP"] if is_listening else "",
            "port": 8000 if is_listening else 0,
            "started_unix_seconds": 1.0,
            "ready_unix_seconds": 2.0 if is_listening else None,
            "reason": "" if is_listening else "StartFailed",
            "max_model_tokens": 8192,
            "in_flight": 0,
            "pid": 1,
            "message": message,
        }
        headers = {"authorization": f"Bearer {token}"}
        url = f"{operator.url}/announcements"
        return httpx.post(url, json=document, headers=headers).status_code


@pytest.fixture
def ground(
    cluster: Cluster,
    namespace: str,
    kuberay: None,
    gpu_nodes: AcceleratorNodes,
    start_operator: StartOperator,
) -> Iterator[Ground]:
    """Yield a namespace with a node for heads, which take no accelerator."""
    gpu_nodes(1, per_node=0, accelerator="none")
    found = Ground(cluster, namespace, gpu_nodes, start_operator)
    yield found
    for name in found.classes:
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


def test_a_group_without_room_is_given_back_whole_and_placed_when_there_is(ground: Ground) -> None:
    name = ground.new_class()
    ground.nodes(1, accelerator=name)
    ground.start()
    ground.deploy(name, data=16)

    def is_given_back() -> bool:
        return ground.progressing().get("reason") == "InsufficientCapacity"

    wait_for(is_given_back, "the half group to be given back")
    message = ground.progressing()["message"]
    assert "only 1 of 2 pods" in message
    assert "nvidia.com/gpu" in message
    wait_for(lambda: not ground.placed(), "the accelerators to be free")
    ground.nodes(1, accelerator=name)
    wait_for(lambda: len(set(ground.placed())) == 2, "the whole group to be placed")
    wait_for(lambda: not is_given_back(), "the condition to say so")


def test_a_group_as_wide_as_a_domain_lies_in_one_domain(ground: Ground) -> None:
    key = "nvidia.com/gpu.clique"
    name = ground.new_class(
        acceleratorsPerNode=4,
        links={"scaleUpAccelerators": 16, "scaleUpTopologyKey": key},
    )
    racks = {}
    for rack in ("a", "b", "c"):
        for node in ground.nodes(4, accelerator=name, per_node=4, labels={key: rack}):
            racks[node] = rack
    ground.start()
    ground.deploy(name, data=16)
    wait_for(lambda: len(ground.placed()) == 4, "the group to be placed")
    assert len({racks[node] for node in ground.placed()}) == 1


def test_spot_groups_go_to_spot_nodes(ground: Ground) -> None:
    selector = {"karpenter.sh/capacity-type": "spot"}
    name = ground.new_class(capacityPools=[{"capacityType": "Spot", "nodeSelector": selector}])
    ground.nodes(1, accelerator=name)
    (spot,) = ground.nodes(1, accelerator=name, capacity_type="Spot")
    ground.start()
    ground.deploy(name, data=8, capacityType="Spot")
    wait_for(lambda: ground.placed() == [spot], "the group on the spot node")


def test_what_serves_stays_when_a_group_has_to_go(ground: Ground) -> None:
    name = ground.new_class()
    ground.nodes(2, accelerator=name)
    operator = ground.start(ANNOUNCE_URL="http://operator/announcements")
    ground.deploy(name, data=8, minReplicas=2)
    serving = ground.wait_for_addresses(2)[-1]
    assert ground.announce(operator, serving, "ready") == 200
    wait_for(lambda: ground.status().get("readyReplicas") == 1, "the replica to be counted")
    (listed,) = [
        replica
        for replica in httpx.get(f"{operator.url}/replicas").json()["replicas"]
        if replica["state"] == "ready"
    ]
    assert listed["host"] == serving["status"]["podIP"]
    ground.deploy(name, data=8, minReplicas=1, maxReplicas=1)

    def only_the_serving_one() -> bool:
        # A replica speaks every second while it lives.
        ground.announce(operator, serving, "ready")
        names = [pod["metadata"]["name"] for pod in ground.engine_pods()]
        return names == [serving["metadata"]["name"]]

    wait_for(only_the_serving_one, "the idle group to go")


def test_why_a_group_does_not_start_is_said_until_it_does(ground: Ground) -> None:
    name = ground.new_class()
    ground.nodes(1, accelerator=name)
    operator = ground.start(ANNOUNCE_URL="http://operator/announcements")
    ground.deploy(name, data=8)
    (pod,) = ground.wait_for_addresses(1)

    def say_of_the_container(ready: bool, **state: Any) -> None:
        container = {
            "name": "ray",
            "image": "engine:1",
            "imageID": "",
            "ready": ready,
            "restartCount": 0,
            "state": state,
        }
        conditions = [{"type": "Ready", "status": str(ready)}]
        ground.cluster.ask(
            "PATCH",
            f"/api/v1/namespaces/{ground.namespace}/pods/{pod['metadata']['name']}/status",
            {"status": {"containerStatuses": [container], "conditions": conditions}},
            content_type="application/strategic-merge-patch+json",
        )

    def wait_for_reason(reason: str) -> str:
        wait_for(lambda: ground.progressing().get("reason") == reason, f"the reason {reason}")
        return str(ground.progressing()["message"])

    back_off = 'Back-off pulling image "engine:1"'
    say_of_the_container(False, waiting={"reason": "ImagePullBackOff", "message": back_off})
    assert back_off in wait_for_reason("ImagePullFailed")
    say_of_the_container(True, running={"startedAt": "2026-01-01T00:00:00Z"})
    ground.announce(operator, pod, "failed", "ValueError: max-model-len is too large")
    assert "max-model-len is too large" in wait_for_reason("EngineFailed")
    wait_for(
        lambda: {"ImagePullFailed", "EngineFailed"} <= ground.reasons(), "an Event of each failure"
    )
    ground.announce(operator, pod, "ready")
    wait_for_reason("Settled")


def test_who_brings_no_token_of_an_engine_is_not_believed(
    cluster: Cluster, namespace: str, start_operator: StartOperator
) -> None:
    operator = start_operator()
    operator.wait_until_it_leads()
    url = f"{operator.url}/announcements"
    for header in ("", "Bearer nonsense", "Basic x"):
        answer = httpx.post(url, json={}, headers={"authorization": header}, timeout=30)
        assert answer.status_code == 401
