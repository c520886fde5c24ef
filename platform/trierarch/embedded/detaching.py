"""Run in the background: the caller sees the start, then gets the terminal back."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

READY = b"R"


def detach(run: Callable[[Callable[[], None]], int], log_path: Callable[[], Path]) -> int:
    """Run in a background process and return when it is ready or has ended.

    Call before any thread exists.

    Args:
        run: Runs until its end and returns its exit code; is given what to call when ready.
        log_path: Returns where its output goes once it is ready.

    Returns:
        0 when it is ready, else the exit code of the run.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        code = 1
        try:
            os.setsid()
            code = run(lambda: _let_go(writing, log_path()))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)

    def forward(number: int, _frame: FrameType | None) -> None:
        os.kill(pid, number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if os.read(reading, 1) == READY:
            return 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(reading)
        for number, handler in before.items():
            signal.signal(number, handler)


def _let_go(writing: int, log_path: Path) -> None:
    """Give the terminal back and tell the caller."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(nothing)
    os.close(log)
    os.write(writing, READY)
    os.close(writing)
