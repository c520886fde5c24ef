"""A decision becomes status, Event, metric and record, and a person can approve growth."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from trierarch.adapters.ledger import Ledger
from trierarch.core.clock import SystemClock

from .conftest import Cluster, StartOperator, wait_for

pytestmark = pytest.mark.cluster


class Signals(http.server.BaseHTTPRequestHandler):
    """Answers as the gateway's admin port does."""

    waiting: ClassVar[float] = 40

    def do_GET(self) -> None:  # the library's name
        entry = {
            "arrivals_total": 10,
            "completed_total": 0,
            "ended_total": {},
            "tokens_total": {"input": 0, "output": 0},
            "waiting": {"priority": 0, "default": self.waiting, "flex": 0},
            "waiting_tokens": {"priority": 0, "default": 4000, "flex": 0},
            "in_flight": 0,
            "queue_wait_seconds": None,
            "ttft_seconds": None,
            "tpot_seconds": None,
        }
        body = json.dumps({"at": time.time(), "models": {"m": entry}}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def gateway() -> Iterator[str]:
    """Yield the address of a gateway at which forty requests wait."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Signals)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def accelerator(cluster: Cluster) -> Iterator[str]:
    """Yield an accelerator class of this test, with a price of two dollars."""
    name = f"x{secrets.token_hex(3)}"
    spec = {"priceKey": name, "resourceName": "nvidia.com/gpu", "memory": "141Gi"}
    entry = {
        "accelerator": name,
        "pricePerHour": "2.00",
        "effectiveFrom": "2026-01-01T00:00:00Z",
    }
    for kind, fields in (("AcceleratorClass", spec), ("PriceBook", {"entries": [entry]})):
        cluster.apply(
            {
                "apiVersion": "trierarch.dev/v1alpha1",
                "kind": kind,
                "metadata": {"name": name},
                "spec": fields,
            }
        )
    yield name
    for plural in ("acceleratorclasses", "pricebooks"):
        cluster.ask("DELETE", f"/apis/trierarch.dev/v1alpha1/{plural}/{name}")


def deployment(accelerator: str, **scaling: Any) -> dict[str, Any]:
    variant = {
        "name": "v",
        "accelerator": accelerator,
        "parallelism": {"data": 8, "expert": True},
        "maxReplicas": 2,
    }
    return {
        "apiVersion": "trierarch.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "chat"},
        "spec": {
            "model": {"name": "m", "source": "hf://org/m"},
            "variants": [variant],
            "scaling": {"behavior": {"intervalSeconds": 1}, **scaling},
        },
    }


def status_of(cluster: Cluster, namespace: str) -> dict[str, Any]:
    found = cluster.get("ModelDeployment", namespace, "chat") or {}
    return dict(found.get("status", {}))


def decided(cluster: Cluster, namespace: str) -> str:
    return str(status_of(cluster, namespace).get("lastDecision", {}).get("reason", ""))


def replica_list(url: str) -> dict[str, Any]:
    answer = httpx.get(f"{url}/replicas").raise_for_status()
    return dict(answer.json())


def test_waiting_requests_bring_a_group_and_the_reason_is_everywhere(
    cluster: Cluster,
    namespace: str,
    accelerator: str,
    gateway: str,
    start_operator: StartOperator,
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    operator = start_operator(GATEWAY_ADMIN_URL=gateway, LEDGER_URL=url)
    operator.wait_until_it_leads()
    cluster.apply(deployment(accelerator), namespace)
    wait_for(lambda: decided(cluster, namespace) == "Activation", "the decision")
    status = status_of(cluster, namespace)
    assert status["variants"][0]["desiredReplicas"] == 1
    service = wait_for(lambda: cluster.get("RayService", namespace, "chat-v"), "the RayService")
    assert service is not None

    def is_scaled() -> bool:
        found = cluster.get("RayService", namespace, "chat-v") or {}
        groups = found["spec"]["rayClusterConfig"]["workerGroupSpecs"]
        return bool(groups[0]["replicas"] == 1)

    wait_for(is_scaled, "the decision to be carried out")
    wait_for(
        lambda: "Activation" in {e["reason"] for e in cluster.list("Event", namespace)},
        "the Event",
    )
    # Forty requests wait, so flex is told to wait, in the list that gateways read.
    said = wait_for(lambda: replica_list(operator.url)["admissions"].get("m"), "a word on lanes")
    assert (said["flex_open"], said["shed_tiers"]) == (False, [])
    assert 0 < said["valid_seconds"] <= 45
    metrics = httpx.get(f"{operator.url}/metrics").text
    assert 'trierarch_autoscaler_decisions_total{model="m",reason="Activation"}' in metrics
    with contextlib.closing(Ledger.open(url, SystemClock())) as ledger:
        records = ledger.decisions(deployment=f"{namespace}/chat")
    assert status["lastDecision"]["id"] in {record["id"] for record in records}


def test_growth_above_the_limit_waits_for_a_person(
    cluster: Cluster,
    namespace: str,
    accelerator: str,
    gateway: str,
    start_operator: StartOperator,
) -> None:
    start_operator(GATEWAY_ADMIN_URL=gateway).wait_until_it_leads()
    # Eight accelerators of two dollars are sixteen dollars an hour.
    cluster.apply(deployment(accelerator, approval={"aboveHourlyCost": "15"}), namespace)
    wait_for(lambda: decided(cluster, namespace) == "ApprovalRequired", "the decision to wait")
    limited = {c["type"]: c["reason"] for c in status_of(cluster, namespace)["conditions"]}
    assert limited["ScalingLimited"] == "ApprovalRequired"
    assert status_of(cluster, namespace)["variants"][0]["desiredReplicas"] == 0
    command = [str(Path(sys.executable).with_name("trierarch")), "approve", f"{namespace}/chat"]
    said = subprocess.run(
        [*command, "--hourly-cost", "16"],
        env={**os.environ, "KUBECONFIG": str(cluster.server.kubeconfig)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"{namespace}/chat: approved up to 16 dollars per hour\n"
    wait_for(lambda: decided(cluster, namespace) == "Activation", "the approved growth")


def test_lost_metrics_remove_nothing_and_fixed_replicas_need_none(
    cluster: Cluster, namespace: str, accelerator: str, start_operator: StartOperator
) -> None:
    start_operator().wait_until_it_leads()
    wanted = deployment(accelerator)
    cluster.apply(wanted, namespace)

    def freshness() -> str:
        conditions = status_of(cluster, namespace).get("conditions", ())
        return next((c["reason"] for c in conditions if c["type"] == "MetricsFresh"), "")

    wait_for(lambda: freshness() == "MetricsMissing", "the missing metrics to be said")
    wanted["spec"]["replicas"] = 2
    cluster.apply(wanted, namespace)
    wait_for(
        lambda: status_of(cluster, namespace).get("desiredReplicas") == 2,
        "the fixed number to be taken",
    )
