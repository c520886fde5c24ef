"""The fixture ``kind_cluster``: real nodes, started when the first selected test asks for them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.node import engine as engines
from tests.cluster.node.access import find_kubectl, run_provider
from tests.cluster.node.cluster import bring_up, is_ready, take_down
from tests.cluster.node.faults import Faults
from tests.cluster.node.place import find_place
from tests.cluster.node.settings import find_changes, read_settings
from tests.cluster.node.situation import find_situation
from tests.cluster.node.work import Work

EXISTING = "KUBECONFIG_FOR_TESTS"
"""Environment variable: run the tests on this cluster instead of one of their own."""


@dataclasses.dataclass(frozen=True)
class KindCluster:
    """A running cluster.

    Attributes:
        kubeconfig: Its administrator's credentials.
        engine: Runs the nodes, if it is an engine of our own.
        provider: The machine's own engine that runs the nodes, if it does.
        settings_before: Of the machine, before this session started the cluster.
    """

    kubeconfig: Path
    engine: engines.Engine | None
    provider: str = ""
    settings_before: Mapping[str, str] | None = None

    def find_changed_settings(self) -> dict[str, tuple[str, str]]:
        """Return the machine's settings that differ from before the start."""
        assert self.settings_before is not None
        return find_changes(self.settings_before, read_settings())

    @property
    def is_ours(self) -> bool:
        """Whether its nodes are ours to break."""
        return self.engine is not None or bool(self.provider)

    @property
    def faults(self) -> Faults:
        """Fault commands; a test that needs them is skipped on a cluster that is not ours."""
        if self.engine is not None:
            return Faults(self.engine.docker)
        if not self.provider:
            pytest.skip(f"nodes of the cluster in {EXISTING} are not ours to break")
        return Faults(functools.partial(run_provider, self.provider))

    @property
    def environment(self) -> dict[str, str]:
        """For programs that reach the cluster."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl and return what it printed."""
        done = subprocess.run(
            [find_kubectl(), *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"kubectl {arguments}: {done.stderr}"
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """Return what ``kubectl get`` finds, as JSON."""
        return json.loads(self.kubectl("get", *arguments, "--output", "json"))

    def nodes(self) -> dict[str, bool]:
        """Return the nodes by name and whether each is ready."""
        return {
            node["metadata"]["name"]: any(
                condition["type"] == "Ready" and condition["status"] == "True"
                for condition in node["status"]["conditions"]
            )
            for node in self.get("nodes")["items"]
        }

    @contextlib.contextmanager
    def port_forward(self, target: str, port: int, namespace: str = "default") -> Iterator[int]:
        """Forward a free local port to a service or pod.

        Yields:
            The local port on 127.0.0.1.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            local = int(free.getsockname()[1])
        command = [find_kubectl(), "--namespace", namespace, "port-forward", target]
        with subprocess.Popen(
            [*command, f"{local}:{port}"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as forward:
            try:
                assert forward.stdout is not None
                line = forward.stdout.readline()
                assert "Forwarding" in line, line
                yield local
            finally:
                forward.kill()


def wait_for(
    condition: Callable[[], bool],
    seconds: float,
    every_seconds: float = 1.0,
    describe: Callable[[], str] = str,
) -> float:
    """Wait until a condition holds and return how long that took.

    Args:
        condition: Asked again and again.
        seconds: The longest to wait.
        every_seconds: Between two questions.
        describe: Says what there is instead, if it does not hold in time.
    """
    began_seconds = time.monotonic()
    while not condition():
        waited_seconds = time.monotonic() - began_seconds
        assert waited_seconds < seconds, f"not within {seconds:.0f} s\n{describe()}"
        time.sleep(every_seconds)
    return time.monotonic() - began_seconds


@pytest.fixture(scope="session")
def kind_cluster(request: pytest.FixtureRequest) -> Iterator[KindCluster]:
    """Three real nodes with KubeRay, shared by all tests of a session.

    The cluster of ``make kind`` is used if it is up, and left up. Otherwise one is brought up that
    ends with the tests, also when they are killed.
    """
    existing = os.environ.get(EXISTING)
    if existing:
        yield KindCluster(Path(existing), None)
        return
    place = find_place()
    if is_ready(place):
        yield KindCluster(place.kubeconfig, engines.find_engine(place), place.provider)
        return
    situation = find_situation()
    if situation.kind == "api-tier-only":
        pytest.skip(situation.sentence)
    place = find_place("tests")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    before = read_settings()
    work = Work(place)
    with capture.global_and_fixture_disabled():
        bring_up(work, ends_with_this_process=True)
    try:
        yield KindCluster(place.kubeconfig, engines.find_engine(place), place.provider, before)
    finally:
        take_down(work)


@pytest.fixture
def cluster_namespace(kind_cluster: KindCluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own, deleted afterwards."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40]
    name = f"{words}-{os.urandom(3).hex()}"
    kind_cluster.kubectl("create", "namespace", name)
    # Pods are refused until the controller manager has made the account that they run as.
    account = ("--namespace", name, "get", "serviceaccount/default", "--output=name")
    wait_for(lambda: bool(kind_cluster.kubectl(*account, check=False)), 60)
    yield name
    kind_cluster.kubectl("delete", "namespace", name, "--wait=false")
