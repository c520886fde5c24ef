"""KubeRay and engines, played: a deployment's clusters, pods, and what replicas say."""

from __future__ import annotations

import dataclasses
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from trierarch_operators.labels import TOKEN_AUDIENCE

from .conftest import Cluster, RunningOperator, wait_for


class Engine:
    """An engine's ``/metrics`` after some requests."""

    def __init__(self) -> None:
        self.ready_unix_seconds = time.time()
        self.finished = 100
        self.failed = 0
        self.in_flight = 0
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
                "in_flight": self.engines[name].in_flight,
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
