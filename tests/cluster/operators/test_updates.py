"""An update is tried beside what serves, and taken back when its requests fail.

The API server is real; KubeRay and the engines are played, because what is looked at here is
what the operator makes of a second cluster, and no engine runs on simulated nodes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from trierarch_operators.labels import REVISION_ANNOTATION, TOKEN_AUDIENCE

from .conftest import Cluster, RunningOperator, StartOperator, wait_for

pytestmark = pytest.mark.cluster


class Engine:
    """An engine's ``/metrics`` after some requests."""

    def __init__(self) -> None:
        self.ready_unix_seconds = time.time()
        self.finished = 100
        self.failed = 0
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = (
                    f'vllm:request_success_total{{finished_reason="stop"}} {engine.finished}\n'
                    f'http_requests_total{{status="5xx"}} {engine.failed}\n'
                ).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])


@dataclasses.dataclass
class Play:
    """One deployment of one group, and what KubeRay and the engines would do about it."""

    cluster: Cluster
    namespace: str
    operator: RunningOperator
    accelerator: str
    engines: dict[str, Engine] = dataclasses.field(default_factory=dict)
    pods: dict[str, str] = dataclasses.field(default_factory=dict)

    def deploy(self, tokens: int) -> None:
        """Apply the model deployment with this engine argument."""
        variant = {
            "name": "v",
            "accelerator": self.accelerator,
            "minReplicas": 1,
            "engineArgs": {"max-model-len": tokens},
        }
        self.cluster.apply(
            {
                "apiVersion": "trierarch.dev/v1alpha1",
                "kind": "ModelDeployment",
                "metadata": {"name": "chat"},
                "spec": {
                    "model": {"name": "m", "source": "hf://org/m"},
                    "variants": [variant],
                    "scaling": {"behavior": {"intervalSeconds": 1}},
                },
            },
            self.namespace,
        )

    def service(self) -> dict[str, Any]:
        """Return the RayService."""
        return self.cluster.get("RayService", self.namespace, "chat-v") or {}

    def wait_for_tokens(self, tokens: int) -> None:
        """Wait until the RayService has this engine argument."""
        word = f'"max_model_tokens": {tokens}'
        wait_for(
            lambda: word in self.service().get("spec", {}).get("serveConfigV2", ""),
            f"{tokens} tokens in the RayService",
        )

    def make_cluster(self, name: str) -> None:
        """Make a RayCluster of the RayService as it is now, with the pod of its one group."""
        service = self.service()
        labels = service["metadata"]["labels"]
        spec = service["spec"]["rayClusterConfig"]
        self.cluster.apply(
            {
                "apiVersion": "ray.io/v1",
                "kind": "RayCluster",
                "metadata": {"name": name, "labels": labels},
                "spec": spec,
            },
            self.namespace,
        )
        template = spec["workerGroupSpecs"][0]["template"]
        self.cluster.ask(
            "POST",
            f"/api/v1/namespaces/{self.namespace}/pods",
            {
                "metadata": {
                    "name": f"{name}-0",
                    "labels": {**template["metadata"]["labels"], "ray.io/cluster": name},
                    "annotations": template["metadata"]["annotations"],
                },
                "spec": {"containers": [{"name": "ray", "image": "engine:1"}]},
            },
        )
        address = f"10.77.0.{len(self.pods) + 1}"
        self.cluster.ask(
            "PATCH",
            f"/api/v1/namespaces/{self.namespace}/pods/{name}-0/status",
            {"status": {"podIP": address, "podIPs": [{"ip": address}]}},
            content_type="application/strategic-merge-patch+json",
        )
        self.pods[name] = address
        self.engines[name] = Engine()

    def promote(self, active: str, pending: str = "") -> None:
        """Say which cluster KubeRay works with."""
        status = {
            "activeServiceStatus": {"rayClusterName": active},
            "pendingServiceStatus": {"rayClusterName": pending},
        }
        self.cluster.ask(
            "PATCH",
            f"/apis/ray.io/v1/namespaces/{self.namespace}/rayservices/chat-v/status",
            {"status": status},
            content_type="application/merge-patch+json",
        )

    def announce(self) -> None:
        """Have every replica say that it serves, as it does each second."""
        token = self.cluster.ask(
            "POST",
            f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default/token",
            {"spec": {"audiences": [TOKEN_AUDIENCE]}},
        )["status"]["token"]
        for name, address in self.pods.items():
            document = {
                "replica_id": name,
                "model": "m",
                "variant": "v",
                "state": "ready",
                "address": address,
                "host": "127.0.0.1",
                "port": self.engines[name].port,
                "started_unix_seconds": 1.0,
                "ready_unix_seconds": self.engines[name].ready_unix_seconds,
                "reason": "",
                "max_model_tokens": 8192,
                "in_flight": 0,
                "pid": 1,
                "message": "",
            }
            httpx.post(
                f"{self.operator.url}/announcements",
                json=document,
                headers={"authorization": f"Bearer {token}"},
            ).raise_for_status()

    def states(self) -> dict[str, str]:
        """Return what gateways are told of each cluster's replica."""
        self.announce()
        replicas = httpx.get(f"{self.operator.url}/replicas").json()["replicas"]
        return {
            replica["replica_id"].split(".")[1]: f"{replica['state']} {replica['reason']}".strip()
            for replica in replicas
        }

    def reason(self) -> str:
        """Return the reason of the condition Progressing."""
        found = self.cluster.get("ModelDeployment", self.namespace, "chat") or {}
        conditions = found.get("status", {}).get("conditions", ())
        return next((c["reason"] for c in conditions if c["type"] == "Progressing"), "")


@pytest.fixture
def play(
    cluster: Cluster,
    namespace: str,
    start_operator: StartOperator,
    request: pytest.FixtureRequest,
) -> Iterator[Play]:
    """Yield a deployment that serves with 8,000 tokens; its parameter is the time of a trial."""
    name = f"x{secrets.token_hex(3)}"
    cluster.apply(
        {
            "apiVersion": "trierarch.dev/v1alpha1",
            "kind": "AcceleratorClass",
            "metadata": {"name": name},
            "spec": {"priceKey": name, "resourceName": "nvidia.com/gpu", "memory": "141Gi"},
        }
    )
    operator = start_operator(
        UPDATE_OBSERVATION_SECONDS=request.param, ANNOUNCE_URL="http://operator/announcements"
    )
    operator.wait_until_it_leads()
    found = Play(cluster, namespace, operator, name)
    try:
        found.deploy(8000)
        found.wait_for_tokens(8000)
        found.make_cluster("old")
        found.promote("old")
        wait_for(lambda: found.states() == {"old": "ready"}, "the first group to serve")
        yield found
    finally:
        for engine in found.engines.values():
            engine.server.shutdown()
            engine.server.server_close()
        with contextlib.suppress(Exception):
            cluster.ask("DELETE", f"/apis/trierarch.dev/v1alpha1/acceleratorclasses/{name}")


def revision(found: dict[str, Any]) -> str:
    return str(found["metadata"]["annotations"][REVISION_ANNOTATION])


def update(play: Play, failed: int = 0) -> None:
    """Change the engine's arguments and have a second cluster serve beside the first."""
    before = revision(play.service())
    play.deploy(16000)
    play.wait_for_tokens(16000)
    assert revision(play.service()) != before
    play.make_cluster("new")
    play.engines["new"].failed = failed
    play.promote("new")


@pytest.mark.parametrize("play", ["5"], indirect=True)
def test_an_update_that_serves_replaces_what_was(play: Play) -> None:
    update(play)
    wait_for(
        lambda: play.states().get("old") == "draining Superseded", "the old group to be drained"
    )
    wait_for(
        lambda: play.cluster.get("RayCluster", play.namespace, "old") is None,
        "the old cluster to go",
    )
    assert play.cluster.get("RayCluster", play.namespace, "new") is not None


@pytest.mark.parametrize("play", ["600"], indirect=True)
def test_an_update_whose_requests_fail_is_taken_back(play: Play) -> None:
    before = revision(play.service())
    update(play, failed=50)
    wait_for(lambda: play.states() and play.reason() == "RolledBack", "the roll-back to be told")
    play.wait_for_tokens(8000)
    assert revision(play.service()) == before
    assert play.states() == {"old": "ready", "new": "draining RolledBack"}
    events = {e["reason"]: e["note"] for e in play.cluster.list("Event", play.namespace)}
    assert "50 of 150 requests to the update failed" in events["RolledBack"]
    # The twin that KubeRay makes takes over, then both others go.
    play.make_cluster("twin")
    play.promote("new", "twin")
    wait_for(lambda: play.states().get("twin") == "ready", "the twin to serve")
    play.promote("twin")

    def only_the_twin() -> bool:
        play.announce()
        return [
            one["metadata"]["name"] for one in play.cluster.list("RayCluster", play.namespace)
        ] == ["twin"]

    wait_for(only_the_twin, "the other clusters to go")
    assert play.reason() == "RolledBack"
