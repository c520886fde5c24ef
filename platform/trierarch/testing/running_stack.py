"""A whole embedded run as its user starts it, for tests against real parts."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI

from trierarch.embedded.client_env import parse_client_env
from trierarch.embedded.leftovers import end_processes, find_processes
from trierarch.testing.waiting import wait_until

START_TIMEOUT_SECONDS = 500.0
"""On two cores without a compiled module in the cache, and other tests beside it."""


def find_free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclasses.dataclass(frozen=True, slots=True)
class RunningStack:
    """A run that has answered its first question.

    Attributes:
        data_dir: Its data folder.
        port: Of the API.
        admin_port: Of the gateway's admin side.
        process: The supervisor.
        output_path: What it printed.
    """

    data_dir: Path
    port: int
    admin_port: int
    process: subprocess.Popen[bytes]
    output_path: Path

    @property
    def output(self) -> str:
        """What the run printed so far."""
        return self.output_path.read_text(encoding="utf-8")

    @property
    def client_environment(self) -> dict[str, str]:
        """The lines of ``client.env``."""
        return dict(parse_client_env((self.data_dir / "client.env").read_text(encoding="utf-8")))

    @property
    def url(self) -> str:
        """Base address of the API."""
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, **options: Any) -> OpenAI:
        """Return the official client for the default tenant, without retries of its own."""
        found = self.client_environment
        fields: dict[str, Any] = {
            "base_url": found["OPENAI_BASE_URL"],
            "api_key": found["OPENAI_API_KEY"],
            "max_retries": 0,
            "timeout": 300.0,
        }
        return OpenAI(**{**fields, **options})

    def replicas(self) -> list[dict[str, Any]]:
        """Return the replicas as the gateway sees them."""
        url = f"http://127.0.0.1:{self.admin_port}/api/v1/replicas"
        return list(httpx.get(url, timeout=30.0).json()["replicas"])

    def ready(self) -> list[dict[str, Any]]:
        """Return the replicas that serve."""
        return [replica for replica in self.replicas() if replica["state"] == "ready"]

    def command(self, *arguments: str) -> str:
        """Return what a ``trierarch`` command prints about this run.

        Raises:
            CalledProcessError: If it fails.
        """
        program = str(Path(sys.executable).parent / "trierarch")
        answer = subprocess.run(  # noqa: S603  # our own command, no shell
            [program, *arguments, "--data-dir", str(self.data_dir)],
            capture_output=True,
            text=True,
            check=True,
        )
        return answer.stdout

    def log(self, name: str) -> str:
        """Return a child's log file."""
        return (self.data_dir / "logs" / f"{name}.log").read_text(encoding="utf-8")


@contextlib.contextmanager
def run_stack(
    folder: Path, environment: Mapping[str, str], *arguments: str
) -> Iterator[RunningStack]:
    """Start a run, wait for its first answer, and end it as Ctrl-C does.

    Args:
        folder: Empty; for the data folder and the output.
        environment: Whole environment of the run.
        arguments: More options of ``trierarch up``.

    Raises:
        AssertionError: If it does not start, does not end well, or leaves a process.
    """
    data_dir, output_path = folder / "data", folder / "output.txt"
    port, admin_port = find_free_port(), find_free_port()
    command = [str(Path(sys.executable).parent / "trierarch"), "up", "--data-dir", str(data_dir)]
    command += ["--port", str(port), "--admin-port", str(admin_port), *arguments]
    with output_path.open("w") as output:
        process = subprocess.Popen(  # noqa: S603  # our own command, no shell
            command, stdout=output, stderr=subprocess.STDOUT, env=dict(environment)
        )
    stack = RunningStack(data_dir, port, admin_port, process, output_path)
    try:
        wait_until(
            lambda: "Try it:" in stack.output or process.poll() is not None,
            timeout_seconds=START_TIMEOUT_SECONDS,
        )
        if "Try it:" not in stack.output:
            raise AssertionError(f"the run did not start:\n{stack.output}")
        yield stack
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
        if code != 0 or find_processes(str(data_dir)):
            raise AssertionError(f"the run ended with {code} or left a process:\n{stack.output}")
    finally:
        process.kill()
        process.wait()
        end_processes(lambda: find_processes(str(data_dir)), grace_seconds=0)
