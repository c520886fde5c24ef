"""One lock for whatever only one process of this user may do at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def locked(path: Path, stream: TextIO, what: str) -> Iterator[int]:
    """Hold a lock file; say so when another process has it.

    Args:
        path: The file; made if it is not there, and left there.
        stream: Where to say that this waits.
        what: What the other process is doing.

    Yields:
        The descriptor; the lock lasts until every process that has it is gone, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for {what} in another process", file=stream, flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
