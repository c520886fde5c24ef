"""Ray nodes on this machine, each with an address of its own, for tests of placement."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

from trierarch.embedded.leftovers import (
    RUN_DATA_DIR_VARIABLE,
    RUN_ID_VARIABLE,
    end_processes,
    find_processes,
)
from trierarch.testing.running_stack import find_free_port
from trierarch.testing.waiting import wait_until

NODE_ADDRESSES = ("127.0.0.2", "127.0.0.3")
"""All of 127.0.0.0/8 is this machine; Ray replaces only 127.0.0.1 by an outside address."""


@contextlib.contextmanager
def run_ray_nodes(
    folder: Path, environment: Mapping[str, str], cpus_per_node: int
) -> Iterator[str]:
    """Run two nodes; yield the address of their dashboard.

    Args:
        folder: For logs; also what marks the processes.
        environment: Whole environment of the nodes.
        cpus_per_node: Logical processors that each offers.

    Raises:
        AssertionError: If the nodes do not come up.
    """
    first, second = NODE_ADDRESSES
    port, dashboard_port = find_free_port(), find_free_port()
    # Short: sockets below it must fit into 108 characters.
    folder.mkdir(parents=True, exist_ok=True)
    variables = {
        # Without compiled modules every process of an engine takes three times as long to start.
        **{k: v for k, v in environment.items() if k != "PYTHONDONTWRITEBYTECODE"},
        RUN_ID_VARIABLE: "ray-nodes",
        RUN_DATA_DIR_VARIABLE: str(folder),
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
        # As in embedded mode: a replica is the service, not work to be done some time.
        "RAY_worker_niceness": "0",
        "SPT_NOENV": "1",
    }
    common = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    common += ["--disable-usage-stats", "--object-store-memory", "100000000"]
    common += ["--num-cpus", str(cpus_per_node)]
    head = [*common, "--head", "--node-ip-address", first, "--port", str(port)]
    head += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard_port)]
    head += ["--dashboard-agent-listen-port", str(find_free_port())]
    head += ["--ray-client-server-port", str(find_free_port())]
    other = [*common, "--address", f"{first}:{port}", "--node-ip-address", second]
    other += ["--dashboard-agent-listen-port", str(find_free_port())]
    url = f"http://127.0.0.1:{dashboard_port}"
    processes: list[subprocess.Popen[bytes]] = []

    def start(name: str, command: list[str]) -> None:
        with (folder / f"{name}.log").open("wb") as log:
            processes.append(
                subprocess.Popen(  # noqa: S603  # our own command, no shell
                    command, env=variables, stdout=log, stderr=subprocess.STDOUT
                )
            )

    try:
        start("head", head)
        wait_until(lambda: _answers(f"{url}/api/serve/applications/"), timeout_seconds=120)
        start("other", other)
        wait_until(lambda: _count_alive(url) == len(NODE_ADDRESSES), timeout_seconds=120)
        yield url
    finally:
        end_processes(lambda: find_processes(str(folder)), grace_seconds=0)
        for process in processes:
            process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10.0).status_code == 200
    except httpx.HTTPError:
        return False


def _count_alive(url: str) -> int:
    nodes = httpx.get(f"{url}/nodes?view=summary", timeout=10.0).json()["data"]["summary"]
    return sum(node["raylet"].get("state") == "ALIVE" for node in nodes)
