"""``python -m benchmarks.operator``: measure, print a table, write the results."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import psutil
import yaml
from benchmarks.operator.gateway import running_gateway
from benchmarks.operator.kuberay import measure_kuberay
from benchmarks.operator.steps import (
    CLUSTERS,
    DEPLOYMENTS,
    SERVICES,
    Steps,
    running,
)
from benchmarks.operator.tick import measure_tick
from benchmarks.recording import ROOT, record
from tests.cluster.api_tier import running_api_tier
from tests.cluster.build import module_folder
from tests.cluster.ports import free_ports

from trierarch.adapters.kubernetes import ClusterAccess
from trierarch.testing.waiting import wait_until


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
        for file in sorted(folder.glob("*.yaml")):
            client.post(definitions, json=yaml.safe_load(file.read_text())).raise_for_status()
    accelerator = {
        "apiVersion": "trierarch.dev/v1alpha1",
        "kind": "AcceleratorClass",
        "metadata": {"name": "h200"},
        "spec": {"priceKey": "H200", "resourceName": "nvidia.com/gpu", "memory": "141Gi"},
    }
    classes = "/apis/trierarch.dev/v1alpha1/acceleratorclasses"
    for path in (SERVICES, DEPLOYMENTS, CLUSTERS, classes):
        wait_until(lambda: client.get(path).is_success, timeout_seconds=60.0)  # noqa: B023
    client.post(classes, json=accelerator).raise_for_status()


@contextlib.contextmanager
def running_operator(kubeconfig: Path, gateway_url: str, folder: Path) -> Iterator[psutil.Process]:
    """Run the operator, as a process of its own, until the block ends; yield once it leads."""
    (port,) = free_ports(1)
    variables = {
        "KUBECONFIG": str(kubeconfig),
        "TRIERARCH_OPERATOR_PORT": str(port),
        "TRIERARCH_OPERATOR_GATEWAY_ADMIN_URL": gateway_url,
    }
    command = [sys.executable, "-m", "trierarch_operators"]
    with running(command, folder / "operator.log", variables) as process:
        wait_until(lambda: leads(port), timeout_seconds=120.0)
        yield process


def leads(port: int) -> bool:
    """Return whether the operator is ready and leads."""
    try:
        return bool(httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5.0).json()["leads"])
    except httpx.HTTPError:
        return False


def measure(options: argparse.Namespace, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Return our figures and KubeRay's."""
    names = [f"md-{number}" for number in range(options.count)]
    with (
        running_api_tier() as tier,
        connect(tier.admin_kubeconfig) as client,
        running_gateway(names) as gateway_url,
    ):
        install(client)
        others = {
            name: psutil.Process(tier.processes[name].process.pid)
            for name in ("kube-apiserver", "etcd", "kube-controller-manager")
        }
        steps = Steps(client, names, options.rate, others)
        started = (tier.admin_kubeconfig, gateway_url, folder)
        with running_operator(*started) as process:
            steps.create(process)
            steps.change(process)
        print("one autoscaler tick over all of them ...", flush=True)
        steps.figures |= asyncio.run(measure_tick(tier.admin_kubeconfig, gateway_url))
        print("restart ...", flush=True)
        with contextlib.ExitStack() as stack:
            with steps.counting_writes("restart"):
                process = stack.enter_context(running_operator(*started))
            steps.figures["restart_rss_mib"] = process.memory_info().rss / 2**20
            steps.delete(process)
        peer: dict[str, float] = {}
        if options.kuberay:
            print(f"KubeRay: create {options.kuberay} RayServices ...", flush=True)
            peer = measure_kuberay(
                client, tier.admin_kubeconfig, folder, options.kuberay, options.rate
            )
    return steps.figures, peer


def print_table(figures: Mapping[str, float], peer: Mapping[str, float]) -> None:
    """Print one figure a line, KubeRay's beside ours."""
    width = max(map(len, figures))
    for name, value in sorted(figures.items()):
        beside = f"   KubeRay {peer[name]:.3f}" if name in peer else ""
        print(f"{name:{width}}  {value:10.3f}{beside}")


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
    print_table(figures, peer)
    command = f"make bench-operator ARGS='--count {options.count} --rate {options.rate:g}'"
    print(f"written to {record('operator', command, figures, {'kuberay': peer} if peer else {})}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
