"""The steps of one run: create, change, restart, delete, each with its times and its requests."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
from benchmarks.operator.server_counts import OPERATORS_REQUESTS, count_requests
from benchmarks.operator.watcher import Moment, Watcher

NAMESPACE = "default"
DEPLOYMENTS = f"/apis/trierarch.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments"
SERVICES = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayservices"
CLUSTERS = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayclusters"
SETTLE_SECONDS = 600.0
QUIET_SECONDS = 5.0
CHANGED_TOKENS = 16_384

Send = Callable[[str], Any]


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
def running(
    command: Sequence[str], log: Path, variables: Mapping[str, str]
) -> Iterator[psutil.Process]:
    """Run a program until the block ends; yield its process.

    Raises:
        RuntimeError: If it has ended by itself; says its last words.
    """
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        yield psutil.Process(process.pid)
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} ended: {log.read_text()[-2000:]}")
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
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


def owner_of(found: Mapping[str, Any]) -> str:
    """Return the model deployment of a RayService."""
    return str(found["metadata"]["labels"]["trierarch.dev/model-deployment"])


class Steps:
    """Changes model deployments and measures what follows.

    Args:
        client: Of the API server.
        names: Of the model deployments.
        per_second: Requests.
        others: Processes that share the machine, by what they are.

    Attributes:
        figures: What was measured, by name.
    """

    def __init__(
        self,
        client: httpx.Client,
        names: Sequence[str],
        per_second: float,
        others: Mapping[str, psutil.Process],
    ) -> None:
        self.figures: dict[str, float] = {}
        self._client = client
        self._names = names
        self._per_second = per_second
        self._others = others

    def create(self, operator: psutil.Process) -> None:
        """From a new model deployment to its RayService."""

        def moment(kind: str, found: Mapping[str, Any]) -> str | None:
            return owner_of(found) if kind == "ADDED" else None

        def send(name: str) -> Any:
            return self._client.post(DEPLOYMENTS, json=deployment(name))

        self._step("create", operator, SERVICES, moment, send)

    def change(self, operator: psutil.Process) -> None:
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

        self._step("change", operator, SERVICES, moment, send)

    def delete(self, operator: psutil.Process) -> None:
        """From a deletion to the end of the object and its RayService."""

        def moment(kind: str, found: Mapping[str, Any]) -> str | None:
            return str(found["metadata"]["name"]) if kind == "DELETED" else None

        def send(name: str) -> Any:
            return self._client.delete(f"{DEPLOYMENTS}/{name}")

        self._step("delete", operator, DEPLOYMENTS, moment, send)

    @contextlib.contextmanager
    def counting_writes(self, what: str) -> Iterator[None]:
        """Count the operator's writes from the block's beginning until there are no more."""
        before = self._writes()
        yield
        self.figures[f"{what}_writes"] = float((self._settle() - before).total())

    def _settle(self) -> Any:
        """Return the operator's writes once it has made none for some seconds."""
        deadline = time.perf_counter() + SETTLE_SECONDS
        writes = self._writes()
        while True:
            time.sleep(QUIET_SECONDS)
            now = self._writes()
            if now == writes:
                return now
            writes = now
            if time.perf_counter() > deadline:
                raise TimeoutError(f"the operator still writes after {SETTLE_SECONDS:g} s")

    def _writes(self) -> Any:
        counted = count_requests(self._client)
        return type(counted)({kind: counted[kind] for kind in OPERATORS_REQUESTS})

    def _step(
        self, what: str, operator: psutil.Process, path: str, moment: Moment, send: Send
    ) -> None:
        count = len(self._names)
        print(f"{what} {count} at {self._per_second:g} per second ...", flush=True)
        processes = {"operator": operator, "benchmark": psutil.Process(), **self._others}
        before = self._writes()
        cpu_before = {name: _cpu_seconds(process) for name, process in processes.items()}
        began_seconds = time.perf_counter()
        with Watcher(self._client, path, moment) as watcher:
            taken = at_rate(self._names, self._per_second, send)
            took_seconds = time.perf_counter() - began_seconds
            watcher.wait_for(set(self._names), SETTLE_SECONDS)
        for name, process in processes.items():
            share = (_cpu_seconds(process) - cpu_before[name]) / (
                time.perf_counter() - began_seconds
            )
            self.figures[f"{what}_cores_{name}"] = share
        # What follows a write, such as its status and its Event, is counted too.
        writes = self._settle()
        self.figures |= quantiles(what, delays(taken, watcher.times))
        self.figures[f"{what}_sent_per_second"] = count / took_seconds
        for kind, number in (writes - before).items():
            self.figures[f"{what}_per_object {kind}"] = number / count
        self.figures[f"{what}_rss_mib"] = operator.memory_info().rss / 2**20


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
