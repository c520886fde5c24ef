"""``python -m benchmarks.operator``: measure, print a table, write the results."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from benchmarks.operator.tick import measure_tick
from benchmarks.operator.watcher import Moment, Watcher
from benchmarks.recording import ROOT, record
from tests.cluster.api_tier import running_api_tier
from tests.cluster.build import build, module_folder
from tests.cluster.ports import free_ports

from trierarch.adapters.kubernetes import ClusterAccess
from trierarch.testing.waiting import wait_until

NAMESPACE = "default"
DEPLOYMENTS = f"/apis/trierarch.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments"
SERVICES = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayservices"
CLUSTERS = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayclusters"
SETTLE_SECONDS = 600.0
QUIET_SECONDS = 3.0
KUBERAY_START_SECONDS = 10.0
CHANGED_TOKENS = 16_384

Send = Callable[[str], Any]


def connect(kubeconfig: Path) -> httpx.Client:
    """Return a client of the API server."""
    access = ClusterAccess.find(kubeconfig)
    return httpx.Client(base_url=access.server, verify=access.verify, timeout=30.0)


def install(client: httpx.Client) -> None:
    """Make all kinds and one accelerator class."""
    ours = ROOT / "deploy/helm/trierarch/files/crds"
    folders = (ours, module_folder("kuberay") / "config/crd/bases")
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            client.post(definitions, json=yaml.safe_load(path.read_text())).raise_for_status()
    accelerator = {
        "apiVersion": "trierarch.dev/v1alpha1",
        "kind": "AcceleratorClass",
        "metadata": {"name": "h200"},
        "spec": {"priceKey": "H200", "resourceName": "nvidia.com/gpu", "memory": "141Gi"},
    }
    classes = "/apis/trierarch.dev/v1alpha1/acceleratorclasses"
    for path in (SERVICES, DEPLOYMENTS, CLUSTERS, classes):
        wait_until(lambda path=path: client.get(path).is_success, timeout_seconds=60.0)
    client.post(classes, json=accelerator).raise_for_status()


def deployment(name: str, max_model_tokens: int = 8192) -> dict[str, Any]:
    """Return one model deployment."""
    return {
        "apiVersion": "trierarch.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"name": name, "source": "hf://org/model"},
            "variants": [
                {
                    "name": "h200",
                    "accelerator": "H200",
                    "parallelism": {"data": 8, "expert": True},
                    "minReplicas": 1,
                    "maxReplicas": 4,
                    "engineArgs": {"max-model-len": max_model_tokens},
                }
            ],
        },
    }


@contextlib.contextmanager
def running(command: Sequence[str], log: Path, variables: Mapping[str, str]) -> Iterator[int]:
    """Run a program until the block ends; yield its process id."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        yield process.pid
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} ended: {log.read_text()[-2000:]}")
    finally:
        process.kill()
        process.wait()


def at_rate(names: Sequence[str], per_second: float, send: Send) -> dict[str, float]:
    """Send one request for each name at a steady rate; return when each was taken."""
    taken = {}
    began_seconds = time.perf_counter()
    for number, name in enumerate(names):
        pause_seconds = began_seconds + number / per_second - time.perf_counter()
        if pause_seconds > 0:
            time.sleep(pause_seconds)
        send(name).raise_for_status()
        taken[name] = time.perf_counter()
    return taken


def quantiles(what: str, seconds: Sequence[float]) -> dict[str, float]:
    """Return median and 99th percentile under their names."""
    cuts = statistics.quantiles(seconds, n=100)
    return {f"{what}_p50_seconds": statistics.median(seconds), f"{what}_p99_seconds": cuts[98]}


def delays(taken: Mapping[str, float], seen: Mapping[str, float]) -> list[float]:
    """Return how long after each request its effect was seen; never less than zero."""
    return [max(0.0, seen[name] - at) for name, at in taken.items()]


def count_writes(client: httpx.Client) -> float:
    """Return how many writes of the operator the API server has counted.

    Only the operator applies, writes Events and deletes RayServices here.
    """
    ours = {("events", "POST"), ("rayservices", "DELETE")}
    total = 0.0
    for line in client.get("/metrics").text.splitlines():
        if line.startswith("apiserver_request_total{"):
            resource = line.partition('resource="')[2].partition('"')[0]
            verb = line.partition('verb="')[2].partition('"')[0]
            is_applied = verb == "APPLY" and resource in ("modeldeployments", "rayservices")
            if is_applied or (resource, verb) in ours:
                total += float(line.rpartition(" ")[2])
    return total


class Measurement:
    """Steps of one run, and their figures.

    Args:
        client: Of the API server.
        names: Of the model deployments.
        per_second: Requests.
        pid: The operator's.
    """

    def __init__(
        self, client: httpx.Client, names: Sequence[str], per_second: float, pid: int
    ) -> None:
        self.figures: dict[str, float] = {}
        self._client = client
        self._names = names
        self._per_second = per_second
        self._process = psutil.Process(pid)

    def create(self) -> None:
        """From a new model deployment to its RayService."""

        def moment(kind: str, found: Mapping[str, Any]) -> str | None:
            return owner_of(found) if kind == "ADDED" else None

        def send(name: str) -> Any:
            return self._client.post(DEPLOYMENTS, json=deployment(name))

        self._step("create", SERVICES, moment, send)

    def change(self) -> None:
        """From changed engine arguments to the changed RayService."""

        def moment(kind: str, found: Mapping[str, Any]) -> str | None:
            is_new = f'"max_model_tokens": {CHANGED_TOKENS}' in found["spec"]["serveConfigV2"]
            return owner_of(found) if kind == "MODIFIED" and is_new else None

        def send(name: str) -> Any:
            variants = deployment(name, CHANGED_TOKENS)["spec"]["variants"]
            return self._client.patch(
                f"{DEPLOYMENTS}/{name}",
                json={"spec": {"variants": variants}},
                headers={"content-type": "application/merge-patch+json"},
            )

        self._step("change", SERVICES, moment, send)

    def delete(self) -> None:
        """From a deletion to the end of the object and its RayService."""

        def moment(kind: str, found: Mapping[str, Any]) -> str | None:
            return str(found["metadata"]["name"]) if kind == "DELETED" else None

        def send(name: str) -> Any:
            return self._client.delete(f"{DEPLOYMENTS}/{name}")

        self._step("delete", DEPLOYMENTS, moment, send)

    def _step(self, what: str, path: str, moment: Moment, send: Send) -> None:
        count = len(self._names)
        print(f"{what} {count} at {self._per_second:g} per second ...", flush=True)
        before = count_writes(self._client)
        with Watcher(self._client, path, moment) as watcher:
            taken = at_rate(self._names, self._per_second, send)
            watcher.wait_for(set(self._names), SETTLE_SECONDS)
        # What follows a write, such as its status and its Event, is counted too.
        time.sleep(QUIET_SECONDS)
        writes = count_writes(self._client) - before
        self.figures |= quantiles(what, delays(taken, watcher.times))
        self.figures[f"{what}_writes_per_object"] = writes / count
        rss_mib = self._process.memory_info().rss / 2**20
        self.figures["rss_mib"] = max(self.figures.get("rss_mib", 0.0), rss_mib)


def measure_kuberay(
    client: httpx.Client, kubeconfig: Path, folder: Path, count: int, per_second: float
) -> dict[str, float]:
    """Return KubeRay's own times from a RayService to its RayCluster, at the same rate."""
    command = [
        str(build("kuberay-operator")),
        "-enable-leader-election=false",
        "-metrics-addr=127.0.0.1:0",
    ]
    command += ["-health-probe-bind-address=127.0.0.1:0", f"-kubeconfig={kubeconfig}"]
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
        time.sleep(KUBERAY_START_SECONDS)
        with Watcher(client, CLUSTERS, moment) as watcher:
            taken = at_rate(names, per_second, send)
            watcher.wait_for(set(names), SETTLE_SECONDS)
    return quantiles("create", delays(taken, watcher.times))


def owner_of(found: Mapping[str, Any]) -> str:
    """Return the model deployment of a RayService."""
    return str(found["metadata"]["labels"]["trierarch.dev/model-deployment"])


def measure(options: argparse.Namespace, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Return our figures and KubeRay's."""
    names = [f"md-{number}" for number in range(options.count)]
    (port,) = free_ports(1)
    with running_api_tier() as tier, connect(tier.admin_kubeconfig) as client:
        install(client)
        variables = {
            "KUBECONFIG": str(tier.admin_kubeconfig),
            "TRIERARCH_OPERATOR_PORT": str(port),
        }
        command = [sys.executable, "-m", "trierarch_operators"]
        with running(command, folder / "operator.log", variables) as pid:
            wait_until(lambda: leads(port), timeout_seconds=120.0)
            measurement = Measurement(client, names, options.rate, pid)
            measurement.create()
            measurement.change()
            print("one autoscaler tick over all of them ...", flush=True)
            measurement.figures |= asyncio.run(measure_tick(tier.admin_kubeconfig))
            measurement.delete()
        peer: dict[str, float] = {}
        if options.kuberay:
            print(f"KubeRay: create {options.kuberay} RayServices ...", flush=True)
            peer = measure_kuberay(
                client, tier.admin_kubeconfig, folder, options.kuberay, options.rate
            )
    return measurement.figures, peer


def leads(port: int) -> bool:
    """Return whether the operator is ready and leads."""
    try:
        return bool(httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5.0).json()["leads"])
    except httpx.HTTPError:
        return False


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operator", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="model deployments (1000)")
    parser.add_argument("--rate", type=float, default=20.0, help="changes per second (20)")
    parser.add_argument("--kuberay", type=int, default=100, help="RayServices for KubeRay (100)")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        figures, peer = measure(options, Path(folder))
    figures |= {"deployments": options.count, "changes_per_second": options.rate}
    figures["load_average_before"] = load
    width = max(map(len, figures))
    for name, value in sorted(figures.items()):
        beside = f"   KubeRay {peer[name]:.3f}" if name in peer else ""
        print(f"{name:{width}}  {value:10.3f}{beside}")
    command = f"make bench-operator ARGS='--count {options.count} --rate {options.rate:g}'"
    print(f"written to {record('operator', command, figures, {'kuberay': peer} if peer else {})}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
