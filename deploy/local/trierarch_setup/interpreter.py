"""Which Python the environment is made with.

Kept to syntax that Python 3.7 reads: this module is what tells its user that
the Python found is too old.
"""

from __future__ import annotations

import os
import subprocess

SUPPORTED = ((3, 11), (3, 12), (3, 13))
"""Versions that ``requires-python`` allows, in the order in which they are looked for."""

PROBE_SECONDS = 20.0
"""How long a candidate may take to start; a shim of a version manager needs about one second."""


def is_supported(version: tuple[int, ...]) -> bool:
    """Tell whether a ``(major, minor)`` version can run this project."""
    return tuple(version[:2]) in SUPPORTED


def unsupported_sentence(version: tuple[int, ...]) -> str:
    """Return what to tell a user whose machine has no supported Python."""
    *others, last = ["{}.{}".format(*supported) for supported in SUPPORTED]
    wanted = f"{', '.join(others)} or {last}"
    found = ".".join(str(part) for part in version[:2])
    return (
        f"trierarch needs Python {wanted}; python3 here is {found} and no other was found on "
        "the PATH: install one of them and run the command again."
    )


def find_supported(search_path: str) -> str | None:
    """Return the first supported interpreter on the search path that really starts.

    A name is not enough: a version manager's shim exists also for versions that
    are not chosen, and then only prints an error.

    Args:
        search_path: Folders as in the ``PATH`` variable.
    """
    for supported in SUPPORTED:
        name = "python{}.{}".format(*supported)
        for folder in search_path.split(os.pathsep):
            candidate = os.path.join(folder, name)
            if folder and os.access(candidate, os.X_OK) and _version_of(candidate) == supported:
                return candidate
    return None


def _version_of(interpreter: str) -> tuple[int, ...] | None:
    """Return the version that an interpreter says it has, or None if it does not start."""
    program = "import sys; print(sys.version_info[0], sys.version_info[1])"
    try:
        answer = subprocess.run(  # noqa: S603
            [interpreter, "-I", "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    parts = answer.stdout.split()
    if answer.returncode != 0 or len(parts) != 2:
        return None
    return tuple(int(part) for part in parts)
