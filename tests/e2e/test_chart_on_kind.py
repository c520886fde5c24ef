"""The chart on real nodes in CPU mode: installed, used, upgraded, rolled back and removed."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest
from tests.chart.chart import CHART, CPU_VALUES, Helm, Refused
from tests.cluster.build import build
from tests.cluster.node.fixtures import KindCluster, wait_for

pytestmark = [
    pytest.mark.cluster("kind", "coredns", "kuberay", "helm"),
    pytest.mark.timeout(1800),
]

RELEASE = "trierarch"
WAIT = ("--wait", "--timeout", "8m")
SHARED = ("--take-ownership", "--force-conflicts")
"""The definitions may be there from another release."""


@pytest.fixture
def helm(kind_cluster: KindCluster, tmp_path: Path) -> Helm:
    return Helm(build("helm"), tmp_path, kind_cluster.kubeconfig, timeout_seconds=600)


def explain(cluster: KindCluster, namespace: str) -> str:
    """Return what an SRE would look at first."""
    pods = cluster.kubectl("get", "pods", "--namespace", namespace, "--output", "wide")
    events = cluster.kubectl("get", "events", "--namespace", namespace, "--sort-by=.lastTimestamp")
    logs = [
        cluster.kubectl(
            *("logs", "--namespace", namespace, "--all-containers", "--prefix", "--tail=20"),
            *("--selector", f"app.kubernetes.io/component={component}"),
            check=False,
        )
        for component in ("gateway", "operator", "postgresql")
    ]
    return "\n".join([pods, events[-4000:], *logs])


def test_a_release_lives_and_leaves(
    helm: Helm,
    kind_cluster: KindCluster,
    cluster_namespace: str,
) -> None:
    namespace = cluster_namespace
    where = ("--namespace", namespace)
    values = ("--values", CPU_VALUES)

    def ready_pods(component: str) -> int:
        selector = f"app.kubernetes.io/component={component}"
        found = kind_cluster.get("pods", *where, "--selector", selector)["items"]
        return sum(
            condition["type"] == "Ready" and condition["status"] == "True"
            for pod in found
            for condition in pod["status"]["conditions"]
        )

    def list_models(key: str) -> list[str]:
        service = f"service/{RELEASE}-gateway"
        with (
            kind_cluster.port_forward(service, 8080, namespace) as port,
            openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key) as client,
        ):
            return [model.id for model in client.models.list()]

    def is_known(key: str) -> bool:
        try:
            return list_models(key) == []
        except openai.AuthenticationError:
            return False

    try:
        helm.run("install", RELEASE, CHART, *where, *values, *WAIT, *SHARED)
    except Refused as refused:
        raise AssertionError(f"{refused}\n{explain(kind_cluster, namespace)}") from refused
    command = ("python", "-m", "trierarch.cli.main", "keys", "create", "--tenant", "default")
    gateway = f"deployment/{RELEASE}-gateway"
    key = kind_cluster.kubectl("exec", *where, gateway, "-c", "gateway", "--", *command).strip()
    # Gateways look for new keys every few seconds.
    wait_for(lambda: is_known(key), 30)
    helm.run("test", RELEASE, *where, "--timeout", "3m")

    helm.run("upgrade", RELEASE, CHART, *where, *values, *WAIT, "--set", "gateway.replicas=2")
    assert ready_pods("gateway") == 2
    assert list_models(key) == [], "keys outlive an upgrade"
    helm.run("rollback", RELEASE, "1", *where, *WAIT)
    assert list_models(key) == []

    helm.run("uninstall", RELEASE, *where, *WAIT)
    kinds = "deployments,statefulsets,services,serviceaccounts,networkpolicies,roles,rolebindings"
    left = kind_cluster.get(kinds, *where, "--selector", "app.kubernetes.io/part-of=trierarch")
    assert left["items"] == []
    kept = kind_cluster.get("customresourcedefinitions")["items"]
    assert "modeldeployments.trierarch.dev" in {one["metadata"]["name"] for one in kept}
