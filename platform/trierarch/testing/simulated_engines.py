"""Simulated engines in processes of their own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """A running engine.

    Attributes:
        process: To signal it.
        port: Where it listens.
    """

    process: subprocess.Popen[str]
    port: int


@contextlib.contextmanager
def simulated_engine(model: str = "simulated", **options: float) -> Iterator[EngineProcess]:
    """Run a simulated engine; options are those of its command line, with underscores."""
    command = [sys.executable, "-m", "trierarch.serving.simulated_engine", "--model", model]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    process = subprocess.Popen(  # noqa: S603  # our own module with numbers as arguments
        command, stdout=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise RuntimeError(f"the simulated engine ended with {process.wait(5)}")
        yield EngineProcess(process, int(line.rsplit(":", 1)[1]))
    finally:
        process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()
