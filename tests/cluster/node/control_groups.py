"""Control groups that an engine leaves when it is killed: empty folders in each hierarchy."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

GONE_SECONDS = 10.0
"""How long killed processes may take to leave their groups."""


def remove_control_groups(name: str) -> None:
    """Remove the empty control groups that a killed engine leaves; wait for the dying."""
    for top in find_control_groups(name):
        for folder in sorted((p for p in top.rglob("*") if p.is_dir()), reverse=True):
            _remove_folder(folder)
        _remove_folder(top)


def find_control_groups(name: str) -> list[Path]:
    """Return a cluster's topmost control groups in each hierarchy."""
    answer = subprocess.run(
        ["find", "/sys/fs/cgroup", "-type", "d", "-name", f"{name}*", "-prune"],
        capture_output=True,
        text=True,
        check=False,  # groups of other programs come and go meanwhile
    )
    return [Path(line) for line in answer.stdout.splitlines()]


def _remove_folder(folder: Path) -> None:
    deadline_seconds = time.monotonic() + GONE_SECONDS
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            # Its processes are killed but not yet gone.
            if time.monotonic() > deadline_seconds:
                raise
            time.sleep(0.05)
        else:
            return
