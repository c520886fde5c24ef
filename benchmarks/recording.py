"""Writes what a benchmark found, in the one form that all of them share."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS_DIR = ROOT / "benchmarks" / "results"


def record(
    name: str,
    command: str,
    figures: Mapping[str, float],
    peers: Mapping[str, Mapping[str, float]],
    *,
    path: Path | None = None,
) -> Path:
    """Write one benchmark's result and return where it is.

    Args:
        name: Of the benchmark; also the file's, unless ``path`` is given.
        command: What makes these figures again.
        figures: Ours.
        peers: The others' in the same run.
        path: Another file.
    """
    target = path or RESULTS_DIR / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "name": name,
        "commit": read_commit(),
        "machine": describe_machine(),
        "command": command,
        "figures": dict(figures),
        "peers": {peer: dict(found) for peer, found in peers.items()},
    }
    target.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return target


def describe_machine() -> str:
    """Return what the numbers depend on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return (
        f"{next(names, 'unknown processor')}, {len(os.sched_getaffinity(0))} cores,"
        f" {platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def read_commit() -> str:
    """Return the commit that was measured; "unknown" outside a checkout."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
