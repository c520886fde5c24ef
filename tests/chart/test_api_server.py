"""What a real API server says of the chart: every object, and the life of a release."""

from __future__ import annotations

import base64
import dataclasses
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from tests.chart.chart import (
    CASES,
    CHART,
    CPU_VALUES,
    EXAMPLES,
    RELEASE,
    Helm,
    Refused,
    Rendered,
)
from tests.cluster.api_server import ApiServer
from tests.cluster.build import build, module_folder
from tests.cluster.go_command import find_go, go_environment

pytestmark = pytest.mark.cluster("helm")

SHARED = ("--take-ownership", "--force-conflicts")
"""The definitions may be there from another test, which is no release of ours."""

CLUSTER_WIDE = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}


def prometheus_operator_folder() -> Path:
    """Return the unpacked source of the pinned Prometheus operator."""
    answer = subprocess.run(
        [
            find_go(),
            "mod",
            "download",
            "-json",
            "github.com/prometheus-operator/prometheus-operator",
        ],
        cwd=Path(__file__).parent / "prometheus_operator",
        capture_output=True,
        text=True,
        check=True,
        env=go_environment(),
    )
    return Path(json.loads(answer.stdout)["Dir"])


@dataclasses.dataclass(frozen=True)
class Kubectl:
    """kubectl as an administrator."""

    kubeconfig: Path

    def run(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [build("kubectl"), "--kubeconfig", self.kubeconfig, *arguments],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def get(self, kind: str, namespace: str | None = None) -> dict[str, Any]:
        """Return objects by their names."""
        place = ("--all-namespaces",) if namespace is None else ("--namespace", namespace)
        done = self.run("get", kind, *place, "--output", "json")
        assert done.returncode == 0, done.stderr
        return {one["metadata"]["name"]: one for one in json.loads(done.stdout)["items"]}


@pytest.fixture(scope="module")
def kubectl(api_server: ApiServer) -> Kubectl:
    return Kubectl(api_server.kubeconfig)


@pytest.fixture(scope="module")
def definitions(kubectl: Kubectl) -> None:
    """Install the definitions of others that the chart can make objects of."""
    routes = module_folder("kuberay", "sigs.k8s.io/gateway-api") / "config" / "crd" / "standard"
    monitors = prometheus_operator_folder() / "example" / "prometheus-operator-crd"
    files = [
        routes / "gateway.networking.k8s.io_httproutes.yaml",
        monitors / "monitoring.coreos.com_servicemonitors.yaml",
        monitors / "monitoring.coreos.com_prometheusrules.yaml",
    ]
    for file in files:
        done = kubectl.run("apply", "--server-side", "--filename", str(file))
        assert done.returncode == 0, done.stderr
    done = kubectl.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def cluster_helm(api_server: ApiServer, helm_program: Path, tmp_path: Path) -> Helm:
    return Helm(helm_program, tmp_path, api_server.kubeconfig)


@pytest.fixture
def two_namespaces(api_server: ApiServer) -> Iterator[list[str]]:
    with api_server.new_namespace("team-a") as first, api_server.new_namespace("team-b") as second:
        yield [first, second]


def move(objects: list[dict[str, Any]], places: dict[str, str]) -> str:
    """Return objects as YAML, in other namespaces."""
    for one in objects:
        metadata = one["metadata"]
        if one["kind"] not in CLUSTER_WIDE:
            metadata["namespace"] = places[metadata["namespace"]]
    return yaml.safe_dump_all(objects)


@pytest.mark.parametrize("values", [*CASES, CPU_VALUES], ids=lambda path: path.stem)
def test_every_object_is_accepted_without_an_unknown_field(
    helm: Helm,
    kubectl: Kubectl,
    definitions: None,
    namespace: str,
    two_namespaces: list[str],
    values: Path,
) -> None:
    rendered = helm.render(values)
    places = dict(zip(("serving", "team-a", "team-b"), (namespace, *two_namespaces), strict=True))
    done = kubectl.run(
        *("apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename", "-"),
        given=move(rendered.objects, places),
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(rendered.objects)
    assert "Warning" not in done.stderr


def pods_of(rendered: Rendered) -> list[dict[str, Any]]:
    pods = []
    for name, template in rendered.pods().items():
        claims = [{"name": "data", "emptyDir": {}}] if name.endswith("postgresql") else []
        claims += [{"name": "spool", "emptyDir": {}}]
        has = {volume["name"] for volume in template["spec"]["volumes"]}
        spec = template["spec"]
        spec["volumes"] += [claim for claim in claims if claim["name"] not in has]
        # Whether a service account exists is not what is asked here.
        spec.pop("serviceAccountName", None)
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    return pods


def test_pods_satisfy_the_restricted_standard(
    helm: Helm, api_server: ApiServer, namespace: str
) -> None:
    with api_server.connect() as connection:
        core = client.CoreV1Api(connection)
        label = {"pod-security.kubernetes.io/enforce": "restricted"}
        core.patch_namespace(namespace, {"metadata": {"labels": label}})
        for pod in pods_of(helm.render()):
            core.create_namespaced_pod(namespace, pod, dry_run="All")


def test_a_release_is_installed_upgraded_rolled_back_and_removed(
    cluster_helm: Helm, kubectl: Kubectl, namespace: str
) -> None:
    where = ("--namespace", namespace)
    notes = cluster_helm.run("install", RELEASE, CHART, *where, *SHARED)
    assert "keys create --tenant default" in notes

    def replicas() -> int:
        found = kubectl.get("deployments", namespace)[f"{RELEASE}-gateway"]
        return int(found["spec"]["replicas"])

    def password() -> str:
        found = kubectl.get("secrets", namespace)[f"{RELEASE}-postgresql"]
        return base64.b64decode(found["data"]["password"]).decode()

    first = password()
    assert len(first) == 32
    book = {
        "apiVersion": "trierarch.dev/v1alpha1",
        "kind": "PriceBook",
        "metadata": {"name": f"kept-{namespace}"},
        "spec": yaml.safe_load(PRICES),
    }
    kubectl.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    done = kubectl.run("apply", "--filename", "-", given=json.dumps(book))
    assert done.returncode == 0, done.stderr

    cluster_helm.run(
        *("upgrade", RELEASE, CHART, *where, "--reset-then-reuse-values"),
        *("--set", "gateway.replicas=2"),
    )
    assert (replicas(), password()) == (2, first)
    assert f"{RELEASE}-gateway" in kubectl.get("poddisruptionbudgets", namespace)
    with pytest.raises(Refused, match="No ledger"):
        cluster_helm.run(
            *("upgrade", RELEASE, CHART, *where, "--reset-then-reuse-values"),
            *("--set", "postgresql.enabled=false"),
        )
    cluster_helm.run("rollback", RELEASE, "1", *where)
    assert (replicas(), password()) == (1, first)

    cluster_helm.run("uninstall", RELEASE, *where)
    assert kubectl.get("deployments", namespace) == {}
    assert set(kubectl.get("secrets", namespace)) == {f"{RELEASE}-postgresql"}
    assert "modeldeployments.trierarch.dev" in kubectl.get("customresourcedefinitions")
    assert f"kept-{namespace}" in kubectl.get("pricebooks")
    leftovers = [
        name
        for kind in ("clusterroles", "clusterrolebindings")
        for name in kubectl.get(kind)
        if name.startswith(namespace)
    ]
    assert leftovers == []

    cluster_helm.run("install", RELEASE, CHART, *where, *SHARED)
    assert password() == first, "the data of before can still be opened"
    cluster_helm.run("uninstall", RELEASE, *where)
    kubectl.run("delete", "pricebook", f"kept-{namespace}")


def test_the_examples_are_accepted(kubectl: Kubectl, namespace: str) -> None:
    for file in (CHART / "files" / "crds").glob("*.yaml"):
        options = ("--server-side", "--force-conflicts", "--filename", str(file))
        assert kubectl.run("apply", *options).returncode == 0
    kubectl.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    options = ("--dry-run=server", "--validate=strict", "--recursive", "--filename", str(EXAMPLES))
    done = kubectl.run("apply", "--namespace", namespace, *options)
    assert done.returncode == 0, done.stderr
    kinds = {line.split(".")[0] for line in done.stdout.splitlines()}
    assert kinds == {"acceleratorclass", "pricebook", "tenant", "modeldeployment"}


PRICES = """
entries:
  - accelerator: H200
    capacityType: OnDemand
    pricePerHour: "3.50"
    effectiveFrom: "2026-01-01T00:00:00Z"
"""


def test_two_releases_share_a_cluster_and_its_definitions(
    cluster_helm: Helm, kubectl: Kubectl, two_namespaces: list[str]
) -> None:
    first, second = two_namespaces
    cluster_helm.run("install", RELEASE, CHART, "--namespace", first, *SHARED)
    cluster_helm.run(
        *("install", RELEASE, CHART, "--namespace", second, "--set", "crds.enabled=false")
    )
    roles = [name for name in kubectl.get("clusterroles") if name.endswith("trierarch-operator")]
    assert {f"{first}-trierarch-operator", f"{second}-trierarch-operator"} <= set(roles)
    for place in two_namespaces:
        cluster_helm.run("uninstall", RELEASE, "--namespace", place)
