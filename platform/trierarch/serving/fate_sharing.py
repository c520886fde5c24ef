"""No engine process outlives the process that started it.

vLLM's engine core notices a parent that ends in good order, not one that was
killed: it would serve on, hold its memory, and nobody would own it. The kernel
can end it instead (``prctl(PR_SET_PDEATHSIG)``). As a vLLM plugin this runs in
every process of an engine; it acts only where a replica asked for it.
"""

from __future__ import annotations

import ctypes
import os
import signal

from trierarch.settings.engine import is_fate_sharing_requested

_PR_SET_PDEATHSIG = 1


def die_with_parent(expected_parent: int | None = None) -> None:
    """Ask the kernel to kill this process when its parent dies.

    Args:
        expected_parent: Process id the parent had at fork; if it is gone already, exit now.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if expected_parent is not None and os.getppid() != expected_parent:
        os._exit(1)


def register() -> None:
    """Serve as a vLLM plugin: share the fate of the replica in its child processes."""
    if is_fate_sharing_requested():
        die_with_parent()
