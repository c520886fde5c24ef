"""vLLM on its own, with the options that a replica would give it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

from trierarch.serving.layout import build_engine_environment, build_vllm_arguments
from trierarch.serving.specification import EngineSpec
from trierarch.testing.running_stack import find_free_port
from trierarch.testing.waiting import wait_until

START_TIMEOUT_SECONDS = 900.0


@contextlib.contextmanager
def bare_vllm(spec: EngineSpec, folder: Path) -> Iterator[str]:
    """Run ``vllm serve`` with the options of a replica; yield its base address."""
    port = find_free_port()
    command = [str(Path(sys.executable).parent / "vllm"), "serve", spec.model_path]
    command += build_vllm_arguments(spec)[2:]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    variables = {**os.environ, **build_engine_environment(spec)}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    with (folder / "vllm.log").open("wb") as log:
        process = subprocess.Popen(  # our own command, no shell
            command, env=variables, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: is_up(port), timeout_seconds=START_TIMEOUT_SECONDS)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def is_up(port: int) -> bool:
    """Return whether an engine answers its health check."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5.0).status_code == 200
    except httpx.HTTPError:
        return False
