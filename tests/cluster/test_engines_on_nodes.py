"""Real engines on real nodes: the shipped example, and one expert-parallel group over two."""

from __future__ import annotations

import concurrent.futures
import copy
import dataclasses
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.cluster.node.diagnostics import describe_ray_pods
from tests.cluster.node.fixtures import KindCluster, wait_for

pytestmark = [
    pytest.mark.cluster("kind", "coredns", "kuberay", "network-policies", "helm"),
    pytest.mark.engine,
    # The first test also waits for the cluster, which on a cold cache is 20 minutes.
    pytest.mark.timeout(1800),
]

EXAMPLE = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "rayservice.yaml"

START_SECONDS = 480.0
"""Ray, KubeRay's own waits and the imports of several engines, on two busy cores."""

PROMPTS = [f"{number} oars and {number * 7} rowers" for number in range(6)]

LABEL = "trierarch.test/ranks"
"""On the pods that the group's ranks run in; each stands on a node of its own."""


def deploy(
    cluster: KindCluster, namespace: str, manifest: dict[str, Any], applications: set[str]
) -> float:
    """Apply a RayService, wait until these applications run and return how long that took."""
    name = manifest["metadata"]["name"]
    arguments = ("--namespace", namespace, "apply", "--filename", "-")
    cluster.kubectl(*arguments, stdin=yaml.safe_dump(manifest))

    def runs() -> bool:
        status = cluster.get(f"rayservice/{name}", "--namespace", namespace).get("status", {})
        found = status.get("activeServiceStatus", {}).get("applicationStatuses", {})
        states = {name: application["status"] for name, application in found.items()}
        assert "DEPLOY_FAILED" not in states.values(), found
        running = {name for name, state in states.items() if state == "RUNNING"}
        return running == applications and _has_endpoints(cluster, namespace)

    def describe() -> str:
        return describe_ray_pods(cluster, namespace)

    return wait_for(runs, START_SECONDS, every_seconds=2.0, describe=describe)


def _has_endpoints(cluster: KindCluster, namespace: str) -> bool:
    """Whether a serve service of the namespace has a ready pod behind it."""
    slices = cluster.get("endpointslices", "--namespace", namespace)["items"]
    return any(
        endpoint.get("conditions", {}).get("ready")
        for each in slices
        if each["metadata"]["labels"].get("kubernetes.io/service-name", "").endswith("serve-svc")
        for endpoint in each.get("endpoints") or ()
    )


@dataclasses.dataclass(frozen=True)
class Example:
    """The shipped example, as it ran in a namespace of its own.

    Attributes:
        namespace: Where its Ray cluster is.
        answer: To "What is the capital of France?".
    """

    namespace: str
    answer: httpx.Response


@pytest.fixture(scope="module")
def example(kind_cluster: KindCluster) -> Iterator[Example]:
    """The shipped example, which has run and answered: another test takes its place."""
    namespace = f"engines-{os.urandom(3).hex()}"
    kind_cluster.kubectl("create", "namespace", namespace)
    took = deploy(kind_cluster, namespace, yaml.safe_load(EXAMPLE.read_text()), {"pocket"})
    print(f"the RayService ran {took:.0f} s after it was applied")
    body = {
        "model": "pocket",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 24,
        "temperature": 0,
    }
    with kind_cluster.port_forward("service/pocket-serve-svc", 8000, namespace) as port:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        answer = httpx.post(url, json=body, timeout=120.0, trust_env=False)
    yield Example(namespace, answer)
    kind_cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def test_the_shipped_rayservice_answers_with_sense(example: Example) -> None:
    assert example.answer.status_code == 200, example.answer.text
    assert "Paris" in example.answer.json()["choices"][0]["message"]["content"]


VARIANTS: dict[str, dict[str, Any]] = {
    "one": {},
    "group": {"parallelism": {"data": 2, "expert": True}, "spread_ranks": "strict-spread"},
    "tensor": {"parallelism": {"tensor": 2, "expert": True}},
}
"""Ways to run one model with its experts: as one rank, as a data-parallel group over both pods, as
a tensor-parallel group in one of them."""


def turn_into_group(manifest: dict[str, Any], *variants: str) -> dict[str, Any]:
    """Return a RayService with a pod on each of two nodes, and one model on them in several ways.

    The example's model goes, for its memory. Its Ray cluster stays, because KubeRay adds worker
    groups to a running one: a second cluster would cost a minute of two cores.
    """
    made = copy.deepcopy(manifest)

    def application(variant: str) -> dict[str, Any]:
        return {
            "name": variant,
            "route_prefix": f"/{variant}",
            "import_path": "trierarch.serving.application:build_application",
            "args": {
                "engine": {
                    "model_path": "/trierarch/models/tiny-qwen3-moe",
                    "served_name": "tiny-qwen3-moe",
                    "dtype": "float32",
                    "max_model_tokens": 512,
                    "variant": variant,
                    **VARIANTS[variant],
                }
            },
        }

    serve = yaml.safe_load(made["spec"]["serveConfigV2"])
    serve["applications"] = [application(variant) for variant in variants]
    made["spec"]["serveConfigV2"] = yaml.safe_dump(serve)

    groups = made["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    ranks = copy.deepcopy(groups[0])
    groups[0] |= {"replicas": 0, "minReplicas": 0}
    ranks |= {"groupName": "ranks", "replicas": 2, "minReplicas": 2, "maxReplicas": 2}
    ranks["rayStartParams"] = {"num-cpus": "2"}
    ranks["template"]["metadata"] = {"labels": {LABEL: "true"}}
    apart = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {LABEL: "true"}},
    }
    rule = {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}
    ranks["template"]["spec"]["affinity"] = {"podAntiAffinity": rule}
    groups.append(ranks)
    return made


def complete(port: int, variant: str, prompt: str, timeout_seconds: float = 120.0) -> list[int]:
    """Return the tokens with which a variant goes on, always the likeliest one."""
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
    assert answer.status_code == 200, answer.text
    return list(answer.json()["choices"][0]["token_ids"])


def find_ranks(cluster: KindCluster, namespace: str, kind: str = "DP") -> dict[str, dict[str, str]]:
    """Return the pod with each rank's engine process, by the rank's name, and that pod's node.

    Args:
        cluster: Where it runs.
        namespace: Of the pods.
        kind: ``DP`` for data-parallel ranks, ``TP`` for tensor-parallel ones.
    """
    found = {}
    for pod in cluster.get("pods", "--namespace", namespace, f"--selector={LABEL}")["items"]:
        name = pod["metadata"]["name"]
        listing = ["--namespace", namespace, "exec", name, "--container=ray", "--", "ps", "-eo"]
        # A pod that ends or only starts cannot be asked, and has no rank then.
        processes = cluster.kubectl(*listing, "args", check=False)
        for line in processes.splitlines():
            # One that has ended but is not waited for yet is listed by another name.
            rank = re.fullmatch(rf"VLLM::Worker_({kind}\d+_EP\d+)", line.strip())
            if rank is not None:
                found[rank[1]] = {"pod": name, "node": pod["spec"]["nodeName"]}
    return found


def test_a_group_over_two_nodes_speaks_as_one_rank_and_is_lost_and_made_as_one(
    kind_cluster: KindCluster, example: Example
) -> None:
    namespace = example.namespace
    example_manifest = yaml.safe_load(EXAMPLE.read_text())
    manifest = turn_into_group(example_manifest, "one", "group")
    took = deploy(kind_cluster, namespace, manifest, {"one", "group"})
    print(f"the group over two nodes ran {took:.0f} s after it was applied")

    forward = ("service/pocket-serve-svc", 8000, namespace)
    with kind_cluster.port_forward(*forward) as port:
        expected = [complete(port, "one", prompt) for prompt in PROMPTS]
        assert len({tuple(tokens) for tokens in expected}) == len(PROMPTS)
        assert complete(port, "group", PROMPTS[0]) == expected[0]
        with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
            together = pool.map(lambda prompt: complete(port, "group", prompt), PROMPTS)
            assert list(together) == expected
    ranks = find_ranks(kind_cluster, namespace)
    assert sorted(ranks) == ["DP0_EP0", "DP1_EP1"]
    assert len({rank["node"] for rank in ranks.values()}) == 2

    lost, untouched = ranks["DP1_EP1"]["pod"], ranks["DP0_EP0"]["pod"]
    began_seconds = time.monotonic()
    delete = ("delete", "pod", lost, "--grace-period=0", "--force")
    kind_cluster.kubectl("--namespace", namespace, *delete)

    def first_rank_ended() -> bool:
        now = find_ranks(kind_cluster, namespace)
        return now.get("DP0_EP0", {}).get("pod") != untouched

    def whole_again() -> bool:
        try:
            now = find_ranks(kind_cluster, namespace)
            if sorted(now) != sorted(ranks) or lost in {rank["pod"] for rank in now.values()}:
                return False
            with kind_cluster.port_forward(*forward) as port:
                return complete(port, "group", PROMPTS[0], 20.0) == expected[0]
        except (httpx.HTTPError, AssertionError):
            # Not yet: a pod has just gone, the service has none, or the proxy in it no replica.
            return False

    def describe() -> str:
        return describe_ray_pods(kind_cluster, namespace)

    # The rank that was not touched ends too: no half group goes on.
    failed_seconds = wait_for(first_rank_ended, 120, describe=describe)
    wait_for(whole_again, START_SECONDS, every_seconds=2.0, describe=describe)
    whole_seconds = time.monotonic() - began_seconds
    figures = {"failed_as_one_seconds": failed_seconds, "whole_again_seconds": whole_seconds}
    print(f"after the loss of a rank's pod: {json.dumps(figures)}")

    # Tensor-parallel ranks are two processes of one pod. They take the others' memory.
    manifest = turn_into_group(example_manifest, "tensor")
    took = deploy(kind_cluster, namespace, manifest, {"tensor"})
    print(f"the group in one pod ran {took:.0f} s after it was applied")
    with kind_cluster.port_forward(*forward) as port:
        assert [complete(port, "tensor", prompt) for prompt in PROMPTS] == expected
    inside_one = find_ranks(kind_cluster, namespace, "TP")
    assert sorted(inside_one) == ["TP0_EP0", "TP1_EP1"]
    assert len({rank["pod"] for rank in inside_one.values()}) == 1


def test_a_pod_told_to_end_while_ray_starts_ends(
    kind_cluster: KindCluster, cluster_namespace: str
) -> None:
    """Ray hears SIGTERM only once it is imported and has found its head.

    As process 1 it would not be ended by it before, and the pod would keep what it holds for the
    whole grace period.
    """
    [group] = yaml.safe_load(EXAMPLE.read_text())["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    pod = copy.deepcopy(group["template"])
    pod["spec"] |= {"restartPolicy": "Never", "terminationGracePeriodSeconds": 3600}
    # What KubeRay runs in it, with a head that never comes.
    pod["spec"]["containers"][0] |= {
        "command": ["/bin/bash", "-c", "--"],
        "args": ["ulimit -n 65536; ray start --address=no-head.invalid:6379 --block"],
    }
    pod |= {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "starting"}}
    where = ("--namespace", cluster_namespace)
    kind_cluster.kubectl(*where, "apply", "--filename", "-", stdin=json.dumps(pod))

    def phase() -> str:
        return str(kind_cluster.get("pod/starting", *where)["status"]["phase"])

    wait_for(lambda: phase() == "Running", 120, every_seconds=0.2)
    kind_cluster.kubectl(*where, "delete", "pod/starting", "--wait=false")
    gone = wait_for(
        lambda: kind_cluster.get("pods", *where)["items"] == [],
        120,
        describe=lambda: kind_cluster.kubectl(*where, "get", "pods"),
    )
    print(f"the pod was gone {gone:.0f} s after it was told to end")
