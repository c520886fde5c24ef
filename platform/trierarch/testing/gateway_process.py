"""``python -m trierarch.gateway`` as a process that tests start, ask and end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

from trierarch.testing.running_stack import find_free_port


def build_environment(folder: Path, **fields: object) -> dict[str, str]:
    """Return the environment of a gateway on free ports with its state in a folder.

    Args:
        folder: Holds the ledger, if no other is named, and the spool.
        fields: Settings by the name of their variable without its prefix.
    """
    kept = {
        name: value
        for name, value in os.environ.items()  # noqa: TID251  # the child gets it
        if not name.startswith(("TRIERARCH_", "OTEL_"))
    }
    values = {
        "PORT": find_free_port(),
        "ADMIN_PORT": find_free_port(),
        "LEDGER_URL": f"sqlite:///{folder}/ledger.db",
        "SPOOL_DIR": folder / "spool",
        **fields,
    }
    return kept | {f"TRIERARCH_GATEWAY_{name}": str(value) for name, value in values.items()}


class GatewayProcess:
    """A gateway that was started.

    Attributes:
        process: The process; its log is its standard error.
        url: Of the data port, for an OpenAI client.
        admin: Of the admin port.
    """

    def __init__(self, process: subprocess.Popen[str], env: dict[str, str]) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{env['TRIERARCH_GATEWAY_PORT']}/v1"
        self.admin = f"http://127.0.0.1:{env['TRIERARCH_GATEWAY_ADMIN_PORT']}"

    def is_ready(self) -> bool:
        """Return whether it says so.

        Raises:
            AssertionError: If it has ended.
        """
        if self.process.poll() is not None:
            raise AssertionError(self.process.communicate())
        try:
            return httpx.get(self.admin + "/readyz").status_code == 200
        except httpx.ConnectError:
            return False

    def end(self, number: int = signal.SIGTERM) -> tuple[int, list[dict[str, object]]]:
        """Send a signal, wait for the end, and return the exit code and the log."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, [json.loads(line) for line in errors.splitlines()]


@contextlib.contextmanager
def run_gateway(env: dict[str, str]) -> Iterator[GatewayProcess]:
    """Run a gateway; it is killed at the end if it still runs."""
    process = subprocess.Popen(  # a fixed command
        [sys.executable, "-m", "trierarch.gateway"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield GatewayProcess(process, env)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)
