"""The kind cluster: what it is, what it leaves alone, and how it breaks and mends."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cluster.node.access import find_kubectl
from tests.cluster.node.engine import interface_name
from tests.cluster.node.fixtures import KindCluster, wait_for
from tests.cluster.node.limits import SETTING_NAME

pytestmark = [
    pytest.mark.cluster("kind", "coredns", "kuberay", "network-policies", "helm"),
    # The first test also waits for the cluster, which on a cold cache is 20 minutes.
    pytest.mark.timeout(1800),
]

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: %(node)s
  terminationGracePeriodSeconds: 0
  containers:
    - name: web
      image: python:3.11-slim-bookworm
      command: [python3, -m, http.server, "8000"]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 8000}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: %(other)s
  terminationGracePeriodSeconds: 0
  volumes: [{name: room, emptyDir: {}}]
  containers:
    - name: client
      image: python:3.11-slim-bookworm
      command: [sleep, "3600"]
      volumeMounts: [{name: room, mountPath: /room}]
"""


def workers(cluster: KindCluster) -> list[str]:
    return sorted(name for name in cluster.nodes() if "control-plane" not in name)


def control_plane(cluster: KindCluster) -> str:
    [name] = [name for name in cluster.nodes() if "control-plane" in name]
    return name


def start_pods(cluster: KindCluster, namespace: str) -> Callable[..., str]:
    """Start a web server and a client on two nodes; return what runs a command in the client."""
    node, other = workers(cluster)
    pods = PODS % {"node": node, "other": other}
    cluster.kubectl("--namespace", namespace, "apply", "--filename", "-", stdin=pods)
    ready = ["wait", "--for=condition=Ready", "--timeout=120s", "pod/web", "pod/client"]
    cluster.kubectl("--namespace", namespace, *ready)

    def run(*command: str, check: bool = True) -> str:
        words = ["--namespace", namespace, "exec", "client", "--", *command]
        return cluster.kubectl(*words, check=check)

    return run


def test_three_nodes_are_ready_and_kuberay_runs(kind_cluster: KindCluster) -> None:
    # A fault that another test just mended may have taken the operator along.
    wait_for(lambda: list(kind_cluster.nodes().values()) == [True, True, True], 120)
    assert len(workers(kind_cluster)) == 2
    operator = ["--for=condition=Available", "deployment/kuberay-operator", "--timeout=180s"]
    kind_cluster.kubectl("wait", *operator)
    dns = ["wait", "--for=condition=Ready", "pod", "--selector=k8s-app=kube-dns"]
    kind_cluster.kubectl("--namespace", "kube-system", *dns, "--timeout=60s")


def test_pods_find_each_other_across_nodes_and_the_host_finds_them(
    kind_cluster: KindCluster, cluster_namespace: str
) -> None:
    run = start_pods(kind_cluster, cluster_namespace)
    answer = f"http://web.{cluster_namespace}.svc.cluster.local:8000/"
    assert "Directory listing" in run("wget", "-T", "10", "-qO-", answer)
    with (
        kind_cluster.port_forward("service/web", 8000, cluster_namespace) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page,
    ):
        assert page.status == 200
    service = kind_cluster.get("service/web", "--namespace", cluster_namespace)
    node_port = service["spec"]["ports"][0]["nodePort"]
    for node in kind_cluster.get("nodes")["items"]:
        [address] = [a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"]
        fetch = ["wget", "-T", "10", "-qO-", f"http://{address}:{node_port}/"]
        page_text = subprocess.run(fetch, capture_output=True, text=True, check=True).stdout
        assert "Directory listing" in page_text


def test_only_the_limit_of_file_watches_changes_while_the_cluster_runs(
    kind_cluster: KindCluster,
) -> None:
    if kind_cluster.settings_before is None:
        pytest.skip("this session did not start the cluster, so it did not see the time before")
    assert set(kind_cluster.find_changed_settings()) <= {SETTING_NAME}


def test_the_engine_is_one_interface_and_no_mount_on_the_machine(
    kind_cluster: KindCluster,
) -> None:
    engine = kind_cluster.engine
    if engine is None:
        pytest.skip("the engine is the machine's own")
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    ours = re.findall(r"^(tri-[0-9a-f]+)", links, re.MULTILINE)
    assert interface_name(engine.place.name) in ours
    mounts = Path("/proc/self/mounts").read_text()
    assert str(engine.place.state) not in mounts


@pytest.mark.disrupts(1)
def test_a_partitioned_node_is_reached_again_after_healing(kind_cluster: KindCluster) -> None:
    node = workers(kind_cluster)[0]
    with kind_cluster.faults.partition(node):
        assert not answers(kind_cluster, node)
    wait_for(lambda: answers(kind_cluster, node), 60)


@pytest.mark.disrupts(2)
def test_a_frozen_node_is_reached_again_after_thawing(kind_cluster: KindCluster) -> None:
    node = workers(kind_cluster)[0]
    with kind_cluster.faults.freeze(node):
        assert not answers(kind_cluster, node)
    wait_for(lambda: answers(kind_cluster, node), 60)


def answers(cluster: KindCluster, node: str) -> bool:
    """Whether the API server reaches the node's kubelet."""
    path = f"/api/v1/nodes/{node}/proxy/healthz"
    command = [find_kubectl(), "get", "--raw", path, "--request-timeout=3s"]
    done = subprocess.run(
        command, env=cluster.environment, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() == "ok"


@pytest.mark.disrupts(5)
def test_a_full_disk_stops_writes_until_it_is_emptied(
    kind_cluster: KindCluster, cluster_namespace: str
) -> None:
    if kind_cluster.engine is None:
        pytest.skip("nodes have no disks of their own: the machine's would be filled")
    faults = kind_cluster.faults
    run = start_pods(kind_cluster, cluster_namespace)
    write = ["sh", "-c", "dd if=/dev/zero of=/room/file bs=1M count=8 2>&1; true"]
    with faults.fill_disk(workers(kind_cluster)[1]):
        assert "No space left" in run(*write)
    assert "No space left" not in run(*write)


@pytest.mark.disrupts(4)
def test_a_killed_node_comes_back_with_its_pods(
    kind_cluster: KindCluster, cluster_namespace: str
) -> None:
    faults = kind_cluster.faults
    start_pods(kind_cluster, cluster_namespace)
    node = workers(kind_cluster)[0]
    with faults.kill_node(node):
        assert not answers(kind_cluster, node)
    took = wait_for(lambda: answers(kind_cluster, node), 120)
    print(f"node answered again {took:.0f} s after it was started")
    pod = ["--namespace", cluster_namespace, "get", "pod/web", "--output"]
    restarts = "jsonpath={.status.containerStatuses[0].restartCount}"
    wait_for(lambda: kind_cluster.kubectl(*pod, restarts) == "1", 120)
    run = ["--namespace", cluster_namespace, "exec", "client", "--", "wget", "-T", "3", "-qO-"]
    page = f"http://web.{cluster_namespace}:8000/"
    wait_for(lambda: "Directory" in kind_cluster.kubectl(*run, page, check=False), 60)


@pytest.mark.disrupts(3)
def test_the_api_server_stops_and_comes_back(kind_cluster: KindCluster) -> None:
    faults = kind_cluster.faults
    health = [find_kubectl(), "get", "--raw", "/readyz", "--request-timeout=3s"]

    def is_up() -> bool:
        done = subprocess.run(
            health, env=kind_cluster.environment, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() == "ok"

    with faults.stop_api_server(control_plane(kind_cluster)):
        wait_for(lambda: not is_up(), 60)
    wait_for(is_up, 120)
