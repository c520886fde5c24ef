"""Run one long command: its output goes to the log, its progress to the user."""

from __future__ import annotations

import ctypes
import functools
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from trierarch_setup.progress import Step

POLL_SECONDS = 0.25
"""How often a live line is renewed."""

GOODBYE_SECONDS = 10.0
"""How long an interrupted command may take to end by itself."""

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)

_PR_SET_PDEATHSIG = 1
"""From ``linux/prctl.h``."""

TAIL_BYTES = 4096
"""Enough of the log's end to find its last line."""


def attempt(
    command: Sequence[str],
    *,
    step: Step,
    log_file: Path,
    environment: Mapping[str, str],
    keep_open: Sequence[int] = (),
) -> tuple[int, str]:
    """Run a command and return its exit status and what it printed, whatever it was.

    Args:
        command: Program and arguments.
        step: Kept alive while the command runs.
        log_file: Appended to.
        environment: All variables of the command.
        keep_open: File descriptors the command inherits, so that a lock outlives this process.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as log:
        log.write(f"\n$ {' '.join(command)}\n".encode())
        log.flush()
        begin = log.tell()
        # An interrupt while the child is being made would leave a child that nobody ends.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
        try:
            child = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                pass_fds=tuple(keep_open),
                preexec_fn=functools.partial(_begin_child, mask),
            )
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                status = _wait(child, step, log_file, begin)
            except BaseException:
                _end(child)
                raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    with log_file.open("rb") as log:
        log.seek(begin)
        return status, log.read().decode(errors="replace")


def _wait(child: subprocess.Popen[bytes], step: Step, log_file: Path, begin: int) -> int:
    """Wait for a child and keep its step alive."""
    while True:
        try:
            return child.wait(timeout=POLL_SECONDS)
        except subprocess.TimeoutExpired:
            step.tick(_last_line(log_file, begin))


def _last_line(log_file: Path, begin: int) -> str:
    """Return the last whole line written to the log since ``begin``."""
    with log_file.open("rb") as log:
        size = log.seek(0, 2)
        log.seek(max(begin, size - TAIL_BYTES))
        lines = log.read().decode(errors="replace").rpartition("\n")[0].splitlines()
    return lines[-1].strip() if lines else ""


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child that is no longer wanted, politely first."""
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(timeout=GOODBYE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _begin_child(mask: Iterable[int]) -> None:
    """Prepare a child process: the usual signals, and an end no later than its parent's.

    Without the latter a killed set-up would leave an installer that still writes.
    """
    for number in _INTERRUPTS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
