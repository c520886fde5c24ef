"""Start a program that cannot outlive its parent; run by path, standard library only.

A program of its own, because code between fork and exec must not run in a process
with threads: ``launch.py PARENT_PID SIGNAL_NUMBER PROGRAM [ARGUMENT...]``.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Ask the kernel for the signal at the parent's death, then become the program."""
    parent_pid, signal_number, program = int(arguments[0]), int(arguments[1]), arguments[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        sys.exit(1)  # It died before the request was made.
    os.execv(program[0], program)  # noqa: S606  # the supervisor's own command, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
