"""The machine and the code that a run was made with."""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

GIT_SECONDS = 5.0


def read_environment() -> dict[str, str]:
    """Return what the load generator runs on."""
    return {
        "platform": platform.platform(),
        "cpus": str(os.cpu_count()),
        "python": platform.python_version(),
        "locust": version("locust"),
    }


def read_commit(directory: Path) -> str:
    """Return the commit of the checkout that holds ``directory``, or why there is none."""
    git = shutil.which("git")
    if git is None:
        return "unknown (no git)"
    try:
        head = _git(git, directory, "rev-parse", "HEAD")
        changed = _git(git, directory, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return "unknown (not a git checkout)"
    return f"{head} (with uncommitted changes)" if changed else head


def describe_engine(told: str | None, fingerprints: Mapping[str, int]) -> str:
    """Return the server's version: what it told, else the fingerprints of its answers."""
    if told is not None:
        return told
    if fingerprints:
        return f"{', '.join(sorted(fingerprints))} (system_fingerprint)"
    return "not reported by the endpoint"


def _git(git: str, directory: Path, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603  # fixed arguments, no shell
        [git, "-C", str(directory), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=GIT_SECONDS,
    )
    return done.stdout.strip()
