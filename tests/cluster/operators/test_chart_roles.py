"""The operator does its work with exactly the rights that the chart gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.chart.chart import RELEASE, Helm
from tests.cluster.build import build

from .conftest import Cluster, StartOperator, wait_for
from .test_model_deployment import (
    DEPLOYMENTS,
    MERGE,
    accelerator,
    condition,
    deployment,
    reasons,
    wait_for_service,
)

pytestmark = pytest.mark.cluster("helm")

__all__ = ["accelerator"]

RIGHTS = {
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "ClusterRole": ("/apis/rbac.authorization.k8s.io/v1", "clusterroles"),
    "ClusterRoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
}


def give_rights(cluster: Cluster, helm: Helm, namespace: str, scope: str) -> None:
    """Create what the chart makes for the operator's rights, and nothing else of it."""
    values: dict[str, Any] = {"rbac": {"scope": scope}}
    for one in helm.render(values, "--namespace", namespace).objects:
        metadata = one["metadata"]
        is_operators = metadata["labels"]["app.kubernetes.io/component"] == "operator"
        if one["kind"] not in RIGHTS or not is_operators:
            continue
        root, plural = RIGHTS[one["kind"]]
        place = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
        cluster.ask("POST", f"{root}{place}/{plural}", one)


@pytest.mark.parametrize("scope", ["namespace", "cluster"])
def test_nothing_it_does_is_forbidden(
    cluster: Cluster,
    namespace: str,
    accelerator: str,
    start_operator: StartOperator,
    tmp_path: Path,
    scope: str,
) -> None:
    give_rights(cluster, Helm(build("helm"), tmp_path), namespace, scope)
    account = f"{RELEASE}-operator"
    kubeconfig = cluster.server.service_account_kubeconfig(namespace, account)
    operator = start_operator(kubeconfig)
    operator.wait_until_it_leads()
    path = DEPLOYMENTS.format(namespace, "chat")

    cluster.create(deployment(accelerator), namespace)
    wait_for_service(cluster, namespace)
    wait_for(
        lambda: condition(cluster, namespace, "Progressing", "chat")[0], "conditions to be written"
    )
    wait_for(lambda: "RayServiceCreated" in reasons(cluster, namespace), "an event")

    changed = {"spec": {"variants": deployment(accelerator)["spec"]["variants"]}}
    changed["spec"]["variants"][0]["engineArgs"] = {"max-num-seqs": 4}
    cluster.ask("PATCH", path, changed, content_type=MERGE)
    wait_for(lambda: "RayServiceChanged" in reasons(cluster, namespace), "the change to arrive")

    cluster.ask("DELETE", path)
    wait_for(lambda: cluster.get("ModelDeployment", namespace, "chat") is None, "the deletion")
    operator.stop()

    told = [line for line in operator.log.read_text().splitlines() if "orbidden" in line]
    assert told == []
    lease = cluster.get("Lease", namespace, "trierarch-operator")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == "", "given back at the end"
