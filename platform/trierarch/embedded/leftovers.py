"""Find and end every process of a run, also those whose parents are gone.

Every process of a run inherits two environment variables. They are found in
``/proc``, so a process counts as ours only if it carries our marker and belongs
to the same data folder. Run as a program this file is the guard: it waits until
the supervisor is gone, however it went, and then ends what the run left.
Standard library only: the guard is run by path, to be small and quick.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

RUN_ID_VARIABLE = "TRIERARCH_RUN_ID"
"""Tells runs apart."""

RUN_DATA_DIR_VARIABLE = "TRIERARCH_RUN_DATA_DIR"
"""Absolute path of the run's data folder."""

GRACE_SECONDS = 2.0
"""Between asking a process to end and ending it."""

_ROUND_SECONDS = 0.1
_KILL_ROUNDS = 100


def is_marked(environment: bytes, data_dir: str, run_id: str | None = None) -> bool:
    """Return whether a process environment belongs to a run.

    Args:
        environment: Content of ``/proc/PID/environ``.
        data_dir: The run's data folder.
        run_id: Only this run; None takes any run in the folder.
    """
    variables = environment.split(b"\0")
    if f"{RUN_DATA_DIR_VARIABLE}={data_dir}".encode() not in variables:
        return False
    if run_id is None:
        return any(variable.startswith(f"{RUN_ID_VARIABLE}=".encode()) for variable in variables)
    return f"{RUN_ID_VARIABLE}={run_id}".encode() in variables


def find_processes(
    data_dir: str, run_id: str | None = None, proc: Path = Path("/proc")
) -> set[int]:
    """Return the ids of a run's processes, without this one; zombies are none."""
    found = set()
    for folder in proc.iterdir():
        if not folder.name.isdecimal() or int(folder.name) == os.getpid():
            continue
        # Processes end while they are looked at, and those of others cannot be read.
        with contextlib.suppress(OSError):
            if is_marked((folder / "environ").read_bytes(), data_dir, run_id):
                found.add(int(folder.name))
    return found


def end_processes(
    find: Callable[[], set[int]],
    *,
    grace_seconds: float = GRACE_SECONDS,
    is_hurried: Callable[[], bool] = lambda: False,
) -> int:
    """End processes: ask first, then kill until none is left.

    Args:
        find: Returns those that live now; asked again and again, for they may have children.
        grace_seconds: How long they may take to end by themselves.
        is_hurried: Returns whether to kill at once.

    Returns:
        How many still live; 0 unless the kernel cannot end one.
    """
    living = find()
    for pid in living:
        _send(pid, signal.SIGTERM)
    for _ in range(round(grace_seconds / _ROUND_SECONDS)):
        if not living or is_hurried():
            break
        time.sleep(_ROUND_SECONDS)
        living = find()
    for _ in range(_KILL_ROUNDS):
        if not living:
            break
        for pid in living:
            _send(pid, signal.SIGKILL)
        time.sleep(_ROUND_SECONDS)
        living = find()
    return len(living)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def guard(data_dir: str, run_id: str, temp_dir: str) -> None:
    """Wait for the end of standard input, then end what the run left.

    The supervisor holds the other end and writes a byte when it has ended everything
    itself; the kernel closes it when the supervisor dies.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.read(0, 1):
        return
    end_processes(lambda: find_processes(data_dir, run_id))
    remove_own_folder(Path(temp_dir))


def remove_own_folder(folder: Path) -> None:
    """Remove a folder that this user owns; anything else in its place stays."""
    with contextlib.suppress(FileNotFoundError):
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    guard(*sys.argv[1:4])
