"""KubeRay's own step from a RayService to its RayCluster, at the same rate."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from benchmarks.operator.steps import (
    CLUSTERS,
    SERVICES,
    SETTLE_SECONDS,
    at_rate,
    delays,
    quantiles,
    running,
)
from benchmarks.operator.watcher import Watcher
from tests.cluster.build import build

START_SECONDS = 10.0


def measure_kuberay(
    client: httpx.Client, kubeconfig: Path, folder: Path, count: int, per_second: float
) -> dict[str, float]:
    """Return the quantiles of the time from each RayService to its RayCluster."""
    command = [
        str(build("kuberay-operator")),
        "-enable-leader-election=false",
        "-metrics-addr=127.0.0.1:0",
        "-health-probe-bind-address=127.0.0.1:0",
        f"-kubeconfig={kubeconfig}",
    ]
    names = [f"peer-{number}" for number in range(count)]
    template = {"spec": {"containers": [{"name": "ray", "image": "ray"}]}}
    cluster = {"headGroupSpec": {"rayStartParams": {}, "template": template}}

    def moment(kind: str, found: Mapping[str, Any]) -> str | None:
        labels = found["metadata"].get("labels", {})
        return labels.get("ray.io/originated-from-cr-name") if kind == "ADDED" else None

    def send(name: str) -> Any:
        service = {
            "apiVersion": "ray.io/v1",
            "kind": "RayService",
            "metadata": {"name": name},
            "spec": {"rayClusterConfig": cluster},
        }
        return client.post(SERVICES, json=service)

    with running(command, folder / "kuberay.log", {"KUBECONFIG": str(kubeconfig)}):
        time.sleep(START_SECONDS)
        with Watcher(client, CLUSTERS, moment) as watcher:
            taken = at_rate(names, per_second, send)
            watcher.wait_for(set(names), SETTLE_SECONDS)
    return quantiles("create", delays(taken, watcher.times))
