"""A cluster with all custom resources, and the operator as a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from kubernetes import client
from tests.cluster.api_server import ApiServer
from tests.cluster.build import module_folder
from tests.cluster.ports import free_ports

from trierarch.adapters.kubernetes import ClusterAccess

ROOT = Path(__file__).resolve().parents[3]
DEFINITIONS = ROOT / "deploy/helm/trierarch/files/crds"

WAIT_SECONDS = 60.0
"""Beside compilers a machine is slow; nothing here takes more than a second on an idle one."""


def wait_for(holds: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """Return what ``holds`` returns as soon as that is true."""
    deadline = time.monotonic() + seconds
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)


class ApiError(Exception):
    """The API server refused something.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, answer: httpx.Response) -> None:
        self.status = answer.status_code
        super().__init__(answer.json().get("message", answer.text))


@dataclasses.dataclass
class Cluster:
    """The API server as the tests ask it."""

    server: ApiServer
    http: httpx.Client

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send one request and return the answer's JSON; errors are raised."""
        headers = {"content-type": content_type} if body is not None else {}
        answer = self.http.request(method, path, json=body, params=query, headers=headers)
        if not answer.is_success:
            raise ApiError(answer)
        found: dict[str, Any] = answer.json()
        return found

    def apply(self, manifest: Mapping[str, Any], namespace: str = "") -> dict[str, Any]:
        """Apply a custom resource as ``kubectl apply --server-side`` does."""
        path = address(manifest, namespace)
        return self.ask(
            "PATCH",
            path,
            dict(manifest),
            content_type="application/apply-patch+yaml",
            query={"fieldManager": "kubectl", "force": "true", "fieldValidation": "Strict"},
        )

    def create(self, manifest: Mapping[str, Any], namespace: str = "") -> dict[str, Any]:
        """Create a custom resource as ``kubectl create`` does."""
        path = address(manifest, namespace).rpartition("/")[0]
        return self.ask("POST", path, dict(manifest), query={"fieldValidation": "Strict"})

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """Return an object; None if there is none."""
        try:
            return self.ask("GET", address({"kind": kind, "metadata": {"name": name}}, namespace))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, namespace: str) -> list[dict[str, Any]]:
        """Return all objects of a kind."""
        found = address({"kind": kind, "metadata": {"name": ""}}, namespace).rstrip("/")
        items: list[dict[str, Any]] = self.ask("GET", found)["items"]
        return items


ADDRESSES = {
    "ModelDeployment": ("/apis/trierarch.dev/v1alpha1", "modeldeployments"),
    "Tenant": ("/apis/trierarch.dev/v1alpha1", "tenants"),
    "AcceleratorClass": ("/apis/trierarch.dev/v1alpha1", "acceleratorclasses"),
    "PriceBook": ("/apis/trierarch.dev/v1alpha1", "pricebooks"),
    "RayService": ("/apis/ray.io/v1", "rayservices"),
    "RayCluster": ("/apis/ray.io/v1", "rayclusters"),
    "Event": ("/apis/events.k8s.io/v1", "events"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    "Namespace": ("/api/v1", "namespaces"),
    "Pod": ("/api/v1", "pods"),
}


def address(manifest: Mapping[str, Any], namespace: str) -> str:
    """Return the path of an object."""
    root, plural = ADDRESSES[manifest["kind"]]
    place = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{place}/{plural}/{manifest['metadata']['name']}"


@pytest.fixture(scope="session")
def cluster(api_server: ApiServer) -> Iterator[Cluster]:
    """Yield the cluster with our definitions and KubeRay's."""
    with api_server.connect() as connection:
        extensions = client.ApiextensionsV1Api(connection)
        folders = (DEFINITIONS, module_folder("kuberay") / "config/crd/bases")
        names = []
        for folder in folders:
            for path in sorted(folder.glob("*.yaml")):
                definition = yaml.safe_load(path.read_text())
                names.append(definition["metadata"]["name"])
                try:
                    extensions.create_custom_resource_definition(definition)
                except client.ApiException as error:
                    if error.status != 409:
                        raise

        def is_established(name: str) -> bool:
            found = extensions.read_custom_resource_definition(name)
            conditions = found.status.conditions or []
            return any(c.type == "Established" and c.status == "True" for c in conditions)

        wait_for(lambda: all(map(is_established, names)), "all kinds to be served")
    access = ClusterAccess.find(api_server.kubeconfig)
    with httpx.Client(
        base_url=access.server,
        verify=access.verify,
        timeout=30,
        headers={"authorization": f"Bearer {access.token()}"} if access.token() else {},
    ) as http:
        yield Cluster(api_server, http)


@dataclasses.dataclass
class RunningOperator:
    """One operator process."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def readiness(self) -> dict[str, Any]:
        """Return what ``/readyz`` says; empty while nothing listens."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            return dict(httpx.get(f"{self.url}/readyz", timeout=5).json())
        except httpx.HTTPError:
            return {}

    def wait_until_it_leads(self) -> None:
        wait_for(lambda: self.readiness().get("leads"), "the operator to lead")

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it as Kubernetes does."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)


def run_operator(
    cluster: Cluster,
    namespace: str,
    folder: Path,
    number: int = 0,
    kubeconfig: Path | None = None,
    **settings: str,
) -> RunningOperator:
    """Start an operator that looks after one namespace.

    Args:
        cluster: Where.
        namespace: Of its Lease and of what it looks after.
        folder: For its log.
        number: Tells it from others.
        kubeconfig: Whose rights it has; the administrator's by default.
        settings: Further settings, without their prefix.
    """
    (port,) = free_ports(1)
    log = folder / f"operator-{number}.log"
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("TRIERARCH_")},
        "KUBECONFIG": str(kubeconfig or cluster.server.kubeconfig),
        "TRIERARCH_OPERATOR_NAMESPACE": namespace,
        "TRIERARCH_OPERATOR_NAMESPACES": f'["{namespace}"]',
        "TRIERARCH_OPERATOR_IDENTITY": f"operator-{number}",
        "TRIERARCH_OPERATOR_PORT": str(port),
        "TRIERARCH_OPERATOR_LEASE_SECONDS": "5",
        **{f"TRIERARCH_OPERATOR_{name}": value for name, value in settings.items()},
    }
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "trierarch_operators"],
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    return RunningOperator(process, port, log)


StartOperator = Callable[..., RunningOperator]


@pytest.fixture
def start_operator(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[StartOperator]:
    """Yield what starts an operator for the test's namespace; all end with the test."""
    running: list[RunningOperator] = []

    def start(kubeconfig: Path | None = None, **settings: str) -> RunningOperator:
        running.append(
            run_operator(cluster, namespace, tmp_path, len(running), kubeconfig, **settings)
        )
        return running[-1]

    try:
        yield start
    finally:
        for operator in running:
            with contextlib.suppress(ProcessLookupError):
                operator.kill()
