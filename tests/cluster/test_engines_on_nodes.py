"""Real engines on real nodes: one replica that makes sense, and one group over two nodes."""

from __future__ import annotations

import concurrent.futures
import copy
import json
import time
from collections.abc import Iterator
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

PROMPTS = [f"{number} oars and {number * 7} rowers" for number in range(6)]


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


def describe_group(name: str) -> dict[str, Any]:
    """Return the shipped example with two nodes' workers and two ways of one model on them."""
    manifest: dict[str, Any] = copy.deepcopy(yaml.safe_load(EXAMPLE.read_text()))
    manifest["metadata"]["name"] = name

    def application(variant: str, model: str, **engine: Any) -> dict[str, Any]:
        return {
            "name": variant,
            "route_prefix": f"/{variant}",
            "import_path": "trierarch.serving.application:build_application",
            "args": {
                "engine": {
                    "model_path": f"/trierarch/models/{model}",
                    "served_name": model,
                    "dtype": "float32",
                    "max_model_tokens": 512,
                    "variant": variant,
                    **engine,
                }
            },
        }

    group = {"parallelism": {"data": 2, "expert": True}, "spread_ranks": "strict-spread"}
    serve = {
        "proxy_location": "EveryNode",
        "applications": [
            application("one", "tiny-qwen3-moe"),
            application("group", "tiny-qwen3-moe", **group),
        ],
    }
    manifest["spec"]["serveConfigV2"] = yaml.safe_dump(serve)
    [workers] = manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    workers |= {"replicas": 2, "minReplicas": 2, "maxReplicas": 2}
    workers["rayStartParams"] = {"num-cpus": "2"}
    workers["template"] = copy.deepcopy(workers["template"])
    workers["template"].setdefault("metadata", {})["labels"] = {"rank": "engine"}
    workers["template"]["spec"]["affinity"] = {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {
                    "topologyKey": "kubernetes.io/hostname",
                    "labelSelector": {"matchLabels": {"rank": "engine"}},
                }
            ]
        }
    }
    return manifest


@pytest.fixture(scope="module")
def group_namespace(kind_cluster: KindCluster) -> Iterator[str]:
    name = "expert-group"
    kind_cluster.kubectl("create", "namespace", name)
    took = deploy(kind_cluster, name, describe_group("ranks"))
    print(f"the group over two nodes ran {took:.0f} s after it was applied")
    yield name
    kind_cluster.kubectl("delete", "namespace", name, "--wait=false")


def complete(port: int, variant: str, prompt: str, timeout_seconds: float = 120.0) -> list[int]:
    answer = httpx.post(
        f"http://127.0.0.1:{port}/{variant}/v1/completions",
        json={
            "model": "tiny-qwen3-moe",
            "prompt": prompt,
            "max_tokens": 24,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
        },
        timeout=timeout_seconds,
        trust_env=False,
    )
    answer.raise_for_status()
    return list(answer.json()["choices"][0]["token_ids"])


def find_ranks(cluster: KindCluster, namespace: str) -> dict[str, dict[str, str]]:
    """Return the pod with each rank's engine process and that pod's node."""
    found = {}
    pods = cluster.get("pods", "--namespace", namespace, "--selector=rank=engine")["items"]
    for pod in pods:
        name = pod["metadata"]["name"]
        listing = ["--namespace", namespace, "exec", name, "--container=ray", "--", "ps", "-eo"]
        processes = cluster.kubectl(*listing, "args", check=False)
        for line in processes.splitlines():
            rank = line.partition("VLLM::Worker_")[2].strip()
            if rank.startswith("DP"):
                found[rank] = {"pod": name, "node": pod["spec"]["nodeName"]}
    return found


def test_a_group_over_two_nodes_speaks_as_one_rank_and_is_lost_and_made_as_one(
    kind_cluster: KindCluster, group_namespace: str
) -> None:
    forward = ("service/ranks-serve-svc", 8000, group_namespace)
    with kind_cluster.port_forward(*forward) as port:
        expected = [complete(port, "one", prompt) for prompt in PROMPTS]
        assert len({tuple(tokens) for tokens in expected}) == len(PROMPTS)
        assert [complete(port, "group", prompt) for prompt in PROMPTS] == expected
        with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
            together = pool.map(lambda prompt: complete(port, "group", prompt), PROMPTS)
            assert list(together) == expected
    ranks = find_ranks(kind_cluster, group_namespace)
    assert sorted(ranks) == ["DP0_EP0", "DP1_EP1"]
    assert len({rank["node"] for rank in ranks.values()}) == 2

    lost = ranks["DP1_EP1"]["pod"]
    began_seconds = time.monotonic()
    delete = ["--namespace", group_namespace, "delete", "pod", lost, "--grace-period=0"]
    kind_cluster.kubectl(*delete, "--force")
    survivor = ranks["DP0_EP0"]["pod"]

    def whole_again() -> bool:
        now = find_ranks(kind_cluster, group_namespace)
        if sorted(now) != sorted(ranks) or lost in {rank["pod"] for rank in now.values()}:
            return False
        try:
            with kind_cluster.port_forward(*forward) as port:
                return complete(port, "group", PROMPTS[0], 20.0) == expected[0]
        except (httpx.HTTPError, AssertionError):
            return False

    def first_rank_ended() -> bool:
        now = find_ranks(kind_cluster, group_namespace)
        return not any(rank["pod"] == survivor and name == "DP0_EP0" for name, rank in now.items())

    # The rank that was not touched ends too: no half group goes on.
    failed_seconds = wait_for(first_rank_ended, 120)
    wait_for(whole_again, START_SECONDS, every_seconds=3.0)
    whole_seconds = time.monotonic() - began_seconds
    figures = {"failed_as_one_seconds": failed_seconds, "whole_again_seconds": whole_seconds}
    print(f"after the loss of a rank's pod: {json.dumps(figures)}")
