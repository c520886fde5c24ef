"""Which of three situations this machine is in, told from what is there and not from its name."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Literal

from tests.cluster.node.packages import find_missing_programs

Kind = Literal["docker", "podman", "own-engine", "api-tier-only"]

PROBE_SECONDS = 15.0
"""An engine that does not answer by then is of no use."""


@dataclasses.dataclass(frozen=True, slots=True)
class Situation:
    """What the node tier can use.

    Attributes:
        kind: The way to go.
        sentence: One line for the user.
        missing: What would make more possible; only where nothing is.
    """

    kind: Kind
    sentence: str
    missing: Sequence[str] = ()


def find_situation() -> Situation:
    """Return the situation of this machine."""
    for engine in ("docker", "podman"):
        if _answers([engine, "info"]) and _has_registry(engine):
            return judge(engine, root=False, missing_programs=())
    is_root = sys.platform == "linux" and os.geteuid() == 0
    missing = find_missing_programs() if sys.platform == "linux" else ["Linux"]
    return judge(None, root=is_root, missing_programs=missing)


def judge(engine: str | None, *, root: bool, missing_programs: Sequence[str]) -> Situation:
    """Return the situation that follows from what was found.

    Args:
        engine: One that answers and can pull images, ``docker`` or ``podman``.
        root: Whether this is root on Linux.
        missing_programs: What an engine of our own cannot do without.
    """
    if engine == "docker":
        return Situation("docker", "Docker answers and has a registry: kind's own node image")
    if engine == "podman":
        return Situation("podman", "Podman answers and has a registry: kind's own node image")
    if root and not missing_programs:
        return Situation(
            "own-engine",
            "no container engine with a registry, but root on Linux: an engine in private "
            "namespaces from Debian's packages (nothing is installed), images made here",
        )
    missing = ["Docker or Podman with a registry"]
    missing.append("root on Linux" if not root else f"the programs {', '.join(missing_programs)}")
    return Situation(
        "api-tier-only",
        f"API tier only (make test): for nodes there must be {' or '.join(missing)}",
        missing,
    )


def _answers(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=PROBE_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _has_registry(engine: str) -> bool:
    """Whether images can be had: the node image is here already, or a small one can be pulled."""
    listing = subprocess.run(
        [engine, "images", "--quiet", "kindest/node"], capture_output=True, text=True, check=False
    )
    return bool(listing.stdout.strip()) or _answers([engine, "pull", "--quiet", "hello-world"])
