"""End a run from outside: a detached one, or what a killed one left."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

from trierarch.embedded.folder import RunFolder, find_lock_holder
from trierarch.embedded.session import end_leftovers

_ROUND_SECONDS = 0.1

END_ROUNDS = 300
"""Rounds a supervisor may take to end its run; it needs a few seconds."""


def end_run(folder: RunFolder, report: Callable[[str], None]) -> bool:
    """End the run of a data folder; return whether there was anything to end.

    Raises:
        Unavailable: If something cannot be ended.
    """
    pid = find_lock_holder(folder)
    if pid is not None:
        report(f"Ending the run of process {pid}.")
        _send(pid, signal.SIGTERM)
        for _ in range(END_ROUNDS):
            if find_lock_holder(folder) is None:
                break
            time.sleep(_ROUND_SECONDS)
        else:
            report(f"Process {pid} does not end by itself; killing it.")
            _send(pid, signal.SIGKILL)
    ended = end_leftovers(folder, report)
    folder.state_path.unlink(missing_ok=True)
    folder.remove_ray_temp_dir()
    return pid is not None or ended > 0


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
