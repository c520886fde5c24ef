"""Which build of torch: the CPU build where a registry offers it, the ordinary one elsewhere.

vLLM for CPU asks for ``torch==X+cpu``, which only some registries have. The
ordinary build of the same version has the same interfaces and runs it as well;
it is 3 GB larger, because it is linked to NVIDIA's libraries.
"""

from __future__ import annotations

import re
import sys

from trierarch_setup.failures import SetupFailure


def locked_version(torch_lock: str) -> str:
    """Return the version of torch that a lock pins.

    Raises:
        SetupFailure: If the lock pins none.
    """
    found = re.search(r"^torch==([^\s;\\]+)", torch_lock, flags=re.MULTILINE)
    if found is None:
        raise SetupFailure("requirements/torch.lock pins no torch: regenerate it with `make lock`.")
    return found[1]


def cpu_build(version: str) -> str:
    """Return the version under which the CPU build of a release is published."""
    return f"{version.partition('+')[0]}+cpu"


def has_cpu_build(platform: str = sys.platform) -> bool:
    """Tell whether a platform has two builds; elsewhere the ordinary one has no NVIDIA parts."""
    return platform == "linux"


def says_not_offered(output: str, version: str) -> bool:
    """Tell a registry that lacks a version from one that could not be asked.

    Args:
        output: What a failed dry run printed.
        version: The version asked for.
    """
    text = " ".join(output.split())
    lacks = f"no version of torch=={version}" in text
    unusable = f"torch=={version} has no wheels with a matching" in text
    return "No solution found" in text and (lacks or unusable)
