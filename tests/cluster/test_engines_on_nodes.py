"""A real engine on real nodes: the shipped example answers with sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.cluster.node.fixtures import KindCluster, wait_for

pytestmark = [
    pytest.mark.cluster("kind", "coredns", "kuberay", "helm"),
    pytest.mark.engine,
    # The first test also waits for the cluster, which on a cold cache is 20 minutes.
    pytest.mark.timeout(1800),
]

EXAMPLE = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "rayservice.yaml"

START_SECONDS = 480.0
"""Ray, KubeRay's own waits and the imports of several engines, on two busy cores."""


def deploy(cluster: KindCluster, namespace: str, manifest: dict[str, Any]) -> float:
    """Create a RayService, wait until it runs and return how long that took."""
    name = manifest["metadata"]["name"]
    arguments = ("--namespace", namespace, "apply", "--filename", "-")
    cluster.kubectl(*arguments, stdin=yaml.safe_dump(manifest))

    def runs() -> bool:
        status = cluster.get(f"rayservice/{name}", "--namespace", namespace).get("status", {})
        applications = status.get("activeServiceStatus", {}).get("applicationStatuses", {})
        states = [application["status"] for application in applications.values()]
        assert "DEPLOY_FAILED" not in states, applications
        return bool(states) and set(states) == {"RUNNING"} and _has_endpoints(cluster, namespace)

    return wait_for(runs, START_SECONDS, every_seconds=2.0)


def _has_endpoints(cluster: KindCluster, namespace: str) -> bool:
    """Whether a serve service of the namespace has a ready pod behind it."""
    slices = cluster.get("endpointslices", "--namespace", namespace)["items"]
    return any(
        endpoint.get("conditions", {}).get("ready")
        for each in slices
        if each["metadata"]["labels"].get("kubernetes.io/service-name", "").endswith("serve-svc")
        for endpoint in each.get("endpoints") or ()
    )


def test_the_shipped_rayservice_answers_with_sense(
    kind_cluster: KindCluster, cluster_namespace: str
) -> None:
    took = deploy(kind_cluster, cluster_namespace, yaml.safe_load(EXAMPLE.read_text()))
    print(f"the RayService ran {took:.0f} s after it was applied")
    question = "What is the capital of France?"
    body = {
        "model": "pocket",
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 24,
        "temperature": 0,
    }
    with kind_cluster.port_forward("service/pocket-serve-svc", 8000, cluster_namespace) as port:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        answer = httpx.post(url, json=body, timeout=120.0, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert "Paris" in answer.json()["choices"][0]["message"]["content"]
    kind_cluster.kubectl("--namespace", cluster_namespace, "delete", "rayservice/pocket")
