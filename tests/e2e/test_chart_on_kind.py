"""The chart on real nodes in CPU mode: installed, used, upgraded, rolled back and removed.

One release goes through its whole life, and the model of ``docs/examples`` with it: what a cluster
needs minutes for (Ray and an engine start) happens while the release is upgraded and rolled back.
"""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.chart.chart import CHART, CPU_VALUES, EXAMPLES, Helm, Refused
from tests.cluster.build import build
from tests.cluster.node.fixtures import KindCluster, wait_for

pytestmark = [
    pytest.mark.cluster("kind", "coredns", "kuberay", "helm"),
    pytest.mark.engine,
    pytest.mark.timeout(1800),
]

RELEASE = "trierarch"
WAIT = ("--wait", "--timeout", "8m")
SHARED = ("--take-ownership", "--force-conflicts")
"""The definitions may be there from another release."""

MODEL, TENANT = "pocket", "default"
"""Of the examples: the ModelDeployment and what it serves, and who asks it."""

START_SECONDS = 600.0
"""KubeRay's own waits, Ray, and the imports of both ranks, on two busy cores."""

GONE_SECONDS = 180.0


@dataclasses.dataclass(frozen=True)
class Release:
    """A release in a namespace of its own.

    Attributes:
        cluster: Where.
        namespace: Of the release and of its models.
    """

    cluster: KindCluster
    namespace: str

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        """Run kubectl in the namespace and return what it printed."""
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, check=check)

    def get(self, *arguments: str) -> Any:
        """Return what ``kubectl get`` finds in the namespace."""
        return self.cluster.get("--namespace", self.namespace, *arguments)

    def explain(self) -> str:
        """Return what an SRE would look at first."""
        logs = [
            self.kubectl(
                *("logs", "--all-containers", "--prefix", "--tail=20"),
                *("--selector", f"app.kubernetes.io/component={component}"),
                check=False,
            )
            for component in ("gateway", "operator", "postgresql")
        ]
        pods = self.kubectl("get", "pods", "--output", "wide")
        events = self.kubectl("get", "events", "--sort-by=.lastTimestamp")
        models = self.kubectl("describe", "modeldeployments", check=False)
        return "\n".join([pods, events[-4000:], models, *logs])

    def ready_pods(self, component: str) -> int:
        """Return how many ready pods a component has."""
        selector = f"app.kubernetes.io/component={component}"
        return sum(
            condition["type"] == "Ready" and condition["status"] == "True"
            for pod in self.get("pods", "--selector", selector)["items"]
            for condition in pod["status"].get("conditions", ())
        )

    def make_key(self) -> str:
        """Return a new API key, made as the chart's notes say."""
        command = ("python", "-m", "trierarch.cli.main", "keys", "create", "--tenant", TENANT)
        gateway = f"deployment/{RELEASE}-gateway"
        return self.kubectl("exec", gateway, "-c", "gateway", "--", *command).strip()

    def list_models(self, key: str) -> list[str]:
        """Return the models that the gateway's Service names."""
        with (
            self.cluster.port_forward(self._gateway, 8080, self.namespace) as port,
            openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key) as client,
        ):
            return [model.id for model in client.models.list()]

    def knows(self, key: str) -> bool:
        """Whether the gateway takes a key."""
        try:
            self.list_models(key)
        except openai.AuthenticationError:
            return False
        return True

    def ask(self, key: str, question: str) -> tuple[str, Any]:
        """Return a streamed answer and its usage, through the gateway's Service."""
        with (
            self.cluster.port_forward(self._gateway, 8080, self.namespace) as port,
            openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key) as client,
        ):
            stream = client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": question}],
                max_tokens=24,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = list(stream)
        words = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        return "".join(words), chunks[-1].usage

    def status(self) -> dict[str, Any]:
        """Return the model deployment's status."""
        found: dict[str, Any] = self.get("modeldeployment", MODEL).get("status", {})
        return found

    @property
    def _gateway(self) -> str:
        return f"service/{RELEASE}-gateway"


@pytest.fixture
def helm(kind_cluster: KindCluster, tmp_path: Path) -> Helm:
    return Helm(build("helm"), tmp_path, kind_cluster.kubeconfig, timeout_seconds=600)


def test_a_release_serves_a_model_lives_and_leaves(
    helm: Helm, kind_cluster: KindCluster, cluster_namespace: str
) -> None:
    release = Release(kind_cluster, cluster_namespace)
    where = ("--namespace", cluster_namespace)
    values = ("--values", CPU_VALUES)
    try:
        helm.run("install", RELEASE, CHART, *where, *values, *WAIT, *SHARED)
        release.kubectl("apply", "--filename", str(EXAMPLES))
        key = release.make_key()
        # Gateways look for new keys every few seconds.
        wait_for(lambda: release.knows(key), 30)
        helm.run("test", RELEASE, *where, "--timeout", "3m")
        helm.run("upgrade", RELEASE, CHART, *where, *values, *WAIT, "--set", "gateway.replicas=2")
        assert release.ready_pods("gateway") == 2
        assert release.list_models(key) == [MODEL], "keys outlive an upgrade"
        helm.run("rollback", RELEASE, "1", *where, *WAIT)
        assert release.list_models(key) == [MODEL]

        took = wait_for(lambda: release.status().get("readyReplicas") == 1, START_SECONDS)
        print(f"the model served {took:.0f} s after the release was rolled back")
        expect_an_answer_with_its_cost(release, key)
        expect_a_story(release)
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
    assert (row["READY"], row["DESIRED"]) == ("1", "1")
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
