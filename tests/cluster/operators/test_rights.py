"""The operator needs exactly the rights that the chart gives it: none is refused, none unused."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.chart.chart import NAMESPACE, Helm
from tests.cluster.build import build

from trierarch.adapters.kubernetes import ClusterAccess
from trierarch_operators.labels import TOKEN_AUDIENCE

from .conftest import Cluster, StartOperator, wait_for
from .recording_proxy import Recording, Right, recording_proxy

pytestmark = pytest.mark.cluster("helm")

ACCOUNT = "trierarch-operator"


@pytest.fixture
def recording(cluster: Cluster) -> Iterator[Recording]:
    with recording_proxy(ClusterAccess.find(cluster.server.kubeconfig)) as found:
        yield found


def rights(rules: list[Mapping[str, Any]]) -> set[Right]:
    return {
        Right(group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def give_the_charts_rights(
    cluster: Cluster, namespace: str, folder: Path
) -> tuple[set[Right], list[str]]:
    """Make the operator's account and roles; return its rights and what has to be removed."""
    values = {"rbac": {"scope": "namespace", "namespaces": [NAMESPACE]}}
    rendered = Helm(build("helm"), folder).render(values)
    wanted: set[Right] = set()
    cluster_wide: list[str] = []
    cluster.ask(
        "POST",
        f"/api/v1/namespaces/{namespace}/serviceaccounts",
        {"metadata": {"name": ACCOUNT}},
    )
    root = "/apis/rbac.authorization.k8s.io/v1"
    for found in rendered.objects:
        kind, name = found["kind"], found["metadata"]["name"]
        if "operator" not in name or kind not in (
            "Role",
            "ClusterRole",
            "RoleBinding",
            "ClusterRoleBinding",
        ):
            continue
        found["metadata"].pop("namespace", None)
        suffix = ""
        if kind.startswith("Cluster"):
            suffix = f"-{namespace}"
            found["metadata"]["name"] = name + suffix
        if kind.endswith("Binding"):
            if found["roleRef"]["kind"] == "ClusterRole":
                found["roleRef"]["name"] += f"-{namespace}"
            found["subjects"] = [
                {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}
            ]
        else:
            wanted |= rights(found["rules"])
        plural = f"{kind.lower()}s"
        if kind.startswith("Cluster"):
            cluster.ask("POST", f"{root}/{plural}", found)
            cluster_wide.append(f"{root}/{plural}/{found['metadata']['name']}")
        else:
            cluster.ask("POST", f"{root}/namespaces/{namespace}/{plural}", found)
    return wanted, cluster_wide


def kubeconfig_through(cluster: Cluster, namespace: str, url: str, folder: Path) -> Path:
    """Return a kubeconfig of the operator's account that goes through the proxy."""
    path = cluster.server.service_account_kubeconfig(namespace, ACCOUNT)
    document = yaml.safe_load(path.read_text())
    document["clusters"][0]["cluster"] = {"server": url}
    through = folder / "through-proxy.kubeconfig"
    through.write_text(yaml.safe_dump(document))
    return through


def test_no_right_is_missing_and_none_is_unused(
    cluster: Cluster,
    namespace: str,
    recording: Recording,
    start_operator: StartOperator,
    tmp_path: Path,
) -> None:
    wanted, cluster_wide = give_the_charts_rights(cluster, namespace, tmp_path)
    assert len(wanted) > 15
    name = f"x{secrets.token_hex(3)}"
    accelerator = {
        "apiVersion": "trierarch.dev/v1alpha1",
        "kind": "AcceleratorClass",
        "metadata": {"name": name},
        "spec": {"priceKey": name, "resourceName": "nvidia.com/gpu", "memory": "141Gi"},
    }
    try:
        cluster.apply(accelerator)
        through = kubeconfig_through(cluster, namespace, recording.url, tmp_path)
        operator = start_operator(through, RESYNC_SECONDS="1")
        operator.wait_until_it_leads()
        live_a_life(cluster, namespace, name, operator.url)
        wait_for(
            lambda: wanted <= recording.used or recording.refused,
            "every right to be used",
            seconds=30,
        )
    except AssertionError:
        assert recording.refused == []
        assert wanted - recording.used == set(), "rights that nothing uses"
        raise
    finally:
        for path in cluster_wide:
            cluster.ask("DELETE", path)
        cluster.ask("DELETE", f"/apis/trierarch.dev/v1alpha1/acceleratorclasses/{name}")
    assert recording.refused == []
    assert recording.used - wanted == set(), "rights that somebody else gives"


def live_a_life(cluster: Cluster, namespace: str, accelerator: str, url: str) -> None:
    """Create, scale, hear of and delete one deployment, and a tenant."""
    cluster.apply(
        {
            "apiVersion": "trierarch.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": "chat"},
            "spec": {
                "model": {"name": "m", "source": "hf://org/m"},
                "variants": [{"name": "v", "accelerator": accelerator, "minReplicas": 1}],
            },
        },
        namespace,
    )
    service = wait_for(lambda: cluster.get("RayService", namespace, "chat-v"), "the RayService")
    labels = service["metadata"]["labels"]
    spec = service["spec"]["rayClusterConfig"]
    spec["workerGroupSpecs"][0]["replicas"] = 0
    # KubeRay would make it; here only the operator's own rights are looked at.
    ray_cluster = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "chat-v-x", "labels": labels},
        "spec": spec,
    }
    cluster.apply(ray_cluster, namespace)

    def is_scaled() -> bool:
        found = cluster.get("RayCluster", namespace, "chat-v-x")
        return found is not None and found["spec"]["workerGroupSpecs"][0]["replicas"] == 1

    wait_for(is_scaled, "the RayCluster to be scaled")
    wait_for(
        lambda: (cluster.get("ModelDeployment", namespace, "chat") or {}).get("status"),
        "the status, which is written behind",
    )
    replaced = {**ray_cluster, "metadata": {"name": "chat-v-old", "labels": labels}}
    cluster.apply(replaced, namespace)
    cluster.ask(
        "PATCH",
        f"/apis/ray.io/v1/namespaces/{namespace}/rayservices/chat-v/status",
        {"status": {"activeServiceStatus": {"rayClusterName": "chat-v-x"}}},
        content_type="application/merge-patch+json",
    )
    wait_for(
        lambda: cluster.get("RayCluster", namespace, "chat-v-old") is None,
        "the replaced RayCluster to go",
    )
    token = cluster.ask(
        "POST",
        f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token",
        {"spec": {"audiences": [TOKEN_AUDIENCE]}},
    )["status"]["token"]
    headers = {"authorization": f"Bearer {token}"}
    answer = httpx.post(f"{url}/announcements", json={}, headers=headers, timeout=30)
    assert answer.status_code == 400  # the token is believed, the empty announcement is not
    tenant = {"apiVersion": "trierarch.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "x"}}
    cluster.apply({**tenant, "spec": {}}, namespace)
    wait_for(
        lambda: (cluster.get("Tenant", namespace, "x") or {}).get("status"), "the tenant's status"
    )
    path = f"/apis/trierarch.dev/v1alpha1/namespaces/{namespace}/modeldeployments/chat"
    cluster.ask("DELETE", path)
    wait_for(lambda: cluster.get("ModelDeployment", namespace, "chat") is None, "the end")


def test_an_operator_without_rights_says_what_it_may_not(
    cluster: Cluster, namespace: str, start_operator: StartOperator
) -> None:
    kubeconfig = cluster.server.service_account_kubeconfig(namespace, "default")
    operator = start_operator(kubeconfig)
    status = operator.process.wait(timeout=60)
    assert status == 1
    last = operator.log.read_text().strip().splitlines()[-1]
    assert "forbidden" in last
    assert "Traceback" not in operator.log.read_text()
