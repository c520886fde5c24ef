"""The chart on real nodes in CPU mode: installed, used, upgraded, rolled back and removed.

One release goes through its whole life, and the model of ``docs/examples`` with it: what a cluster
needs minutes for (Ray and an engine start) happens while the release is upgraded and rolled back.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from tests.chart.chart import CHART, CPU_VALUES, EXAMPLES, Helm, Refused
from tests.cluster.build import build
from tests.cluster.node.addresses import NODE_NETWORKS
from tests.cluster.node.fixtures import KindCluster, wait_for
from tests.e2e.clients import Clients
from tests.e2e.disturbances import (
    QUESTION,
    expect_a_balanced_ledger,
    expect_a_dead_node_to_cost_no_answer,
    expect_a_kill_to_cost_no_answer,
)
from tests.e2e.disturbances import TENANT as CLIENTS
from tests.e2e.reach import expect_policies_to_hold
from tests.e2e.release import COMPONENTS, CONTROL_PLANE, MODEL, RELEASE, TENANT, Release
from tests.e2e.updates import expect_a_bad_update_to_go_back, expect_an_update_beside_what_serves

pytestmark = [
    pytest.mark.cluster("kind", "coredns", "kuberay", "network-policies", "helm"),
    pytest.mark.engine,
    pytest.mark.timeout(1800),
    # Clients that outlive the pods behind a Service ask at a node's own address.
    pytest.mark.allow_hosts(["127.0.0.1", "::1", *NODE_NETWORKS]),
]

WAIT = ("--wait", "--timeout", "8m")
SHARED = ("--take-ownership", "--force-conflicts")
"""The definitions may be there from another release."""

START_SECONDS = 600.0
"""KubeRay's own waits, Ray, and the imports of both ranks, on two busy cores."""

GONE_SECONDS = 180.0

UNHURT = {
    "nodeSelector": {CONTROL_PLANE: ""},
    "tolerations": [{"key": CONTROL_PLANE, "operator": "Exists"}],
}
"""A place for pods on the node that lives on."""

VALUES = {
    **dict.fromkeys(COMPONENTS, UNHURT),
    # The address of a node outlives the pods behind it, which a forwarded port does not.
    "gateway": {**UNHURT, "service": {"type": "NodePort"}},
    "operator": {**UNHURT, "settings": {"updateObservationSeconds": 5}},
}


@pytest.fixture
def helm(kind_cluster: KindCluster, tmp_path: Path) -> Helm:
    return Helm(build("helm"), tmp_path, kind_cluster.kubeconfig, timeout_seconds=600)


def test_a_release_serves_a_model_lives_and_leaves(
    helm: Helm, kind_cluster: KindCluster, cluster_namespace: str, tmp_path: Path
) -> None:
    release = Release(kind_cluster, cluster_namespace)
    where = ("--namespace", cluster_namespace)
    ours = tmp_path / "values.json"
    ours.write_text(json.dumps(VALUES))
    values = ("--values", CPU_VALUES, "--values", ours)
    try:
        helm.run("install", RELEASE, CHART, *where, *values, *WAIT, *SHARED)
        release.apply_examples()
        key = release.make_key()
        # Gateways look for new keys every few seconds.
        wait_for(lambda: release.knows(key), 30)
        helm.run("test", RELEASE, *where, "--timeout", "3m")
        helm.run("upgrade", RELEASE, CHART, *where, *values, *WAIT, "--set", "gateway.replicas=2")
        assert release.ready_pods("gateway") == 2
        assert release.list_models(key) == [MODEL], "keys outlive an upgrade"
        helm.run("rollback", RELEASE, "1", *where, *WAIT)
        assert release.list_models(key) == [MODEL]

        took = wait_for(lambda: release.status().get("readyReplicas") == 2, START_SECONDS)
        print(f"the model served {took:.0f} s after the release was rolled back")
        expect_an_answer_with_its_cost(release, key)
        expect_a_story(release)
        if kind_cluster.is_ours:
            expect_policies_to_hold(release)
            clients = release.make_key(CLIENTS)
            wait_for(lambda: release.knows(clients), 30)
            expect_a_life_under_load(release, clients)
        release.kubectl("delete", "--filename", str(EXAMPLES))
        expect_nothing_of_the_model(release)
    except (Refused, AssertionError) as problem:
        raise AssertionError(f"{problem}\n{release.explain()}") from problem

    helm.run("uninstall", RELEASE, *where, *WAIT)
    kinds = "deployments,statefulsets,services,serviceaccounts,networkpolicies,roles,rolebindings"
    left = release.get(kinds, "--selector", "app.kubernetes.io/part-of=trierarch")
    assert left["items"] == []
    kept = kind_cluster.get("customresourcedefinitions")["items"]
    assert "modeldeployments.trierarch.dev" in {one["metadata"]["name"] for one in kept}


def expect_a_life_under_load(release: Release, key: str) -> None:
    """Break and change what clients use, one thing after the other."""
    with Clients(release.url, key, QUESTION, 2) as clients:
        expect_a_dead_node_to_cost_no_answer(release, clients)

        def kill_each() -> None:
            for component in ("operator", "postgresql", "gateway"):
                expect_a_kill_to_cost_no_answer(release, clients, component)

        expect_an_update_beside_what_serves(release, clients, meanwhile=kill_each)
        expect_a_bad_update_to_go_back(release, clients)
    expect_a_balanced_ledger(release, clients)


def expect_an_answer_with_its_cost(release: Release, key: str) -> None:
    text, usage = release.ask(key, "What is the capital of France?")
    assert "Paris" in text
    assert usage.completion_tokens > 0
    assert Decimal(usage.model_extra["cost"]["amount"]) > 0


def expect_a_story(release: Release) -> None:
    """Look at the model deployment as people do."""
    wait_for(lambda: "costPerMillionTokens" in release.status(), 60)
    [titles, line] = release.kubectl("get", "md").splitlines()
    row = dict(zip(titles.split(), line.split(), strict=False))
    assert (row["READY"], row["DESIRED"]) == ("2", "2")
    assert Decimal(row["$/MTOK"]) > 0
    events = release.kubectl("describe", "md", MODEL).partition("Events:")[2]
    assert "RayServiceCreated" in events
    assert "Serving" in events
    wait_for(lambda: "remaining" in release.get("tenant", TENANT).get("status", {}), 60)
    assert Decimal(release.get("tenant", TENANT)["status"]["spent"]) >= 0


def expect_nothing_of_the_model(release: Release) -> None:
    kinds = "modeldeployments,rayservices,rayclusters"
    wait_for(lambda: release.get(kinds)["items"] == [], GONE_SECONDS)
    selector = ("--selector", "trierarch.dev/model-deployment")
    wait_for(lambda: release.get("pods,services,jobs", *selector)["items"] == [], GONE_SECONDS)
