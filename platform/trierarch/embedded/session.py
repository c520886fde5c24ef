"""What holds for every run, whatever it starts: one per data folder, and nothing stays of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from trierarch.core.clock import Clock
from trierarch.core.errors import Unavailable
from trierarch.embedded.folder import RunFolder, hold_lock
from trierarch.embedded.leftovers import end_processes, find_processes
from trierarch.embedded.supervisor import Interrupted, Signals, Supervisor
from trierarch.settings.embedded import EmbeddedSettings

INTERRUPTED_EXIT_CODE = 130
"""Of a run that was interrupted before it was ready, as shells have it."""


def supervise(
    folder: RunFolder,
    clock: Clock,
    settings: EmbeddedSettings,
    report: Callable[[str], None],
    body: Callable[[Supervisor], None],
) -> int:
    """Call ``body`` with a supervisor; end all processes however it ends.

    Returns:
        0 if a signal ended a run that was ready, else 130.

    Raises:
        InvalidInput: If another run holds the data folder.
        Unavailable: If a part of the run does not work.
    """
    supervisor: Supervisor | None = None
    with Signals().installed() as signals:
        try:
            folder.prepare()
            with hold_lock(folder):
                end_leftovers(folder, report)
                run_id = secrets.token_hex(6)
                try:
                    with Supervisor(folder, run_id, clock, settings, signals, report) as supervisor:
                        body(supervisor)
                finally:
                    folder.state_path.unlink(missing_ok=True)
                    folder.remove_ray_temp_dir()
        except Interrupted:
            report("Ended; nothing is left running.")
    return 0 if supervisor is not None and supervisor.is_ready else INTERRUPTED_EXIT_CODE


def end_leftovers(folder: RunFolder, report: Callable[[str], None]) -> int:
    """End what an earlier run left that was killed; return how many processes that were.

    Raises:
        Unavailable: If some cannot be ended.
    """

    def find() -> set[int]:
        return find_processes(str(folder.data_dir))

    found = len(find())
    if found:
        report(f"Ending {found} processes that an earlier run left.")
        if living := end_processes(find):
            raise Unavailable(f"{living} processes of an earlier run cannot be ended")
    return found
