"""One run's own folder and processes, and the removal of what killed runs left.

A process of a run is started so that the kernel ends it with its parent, however that went.
The folder then stays; whoever starts next finds that nobody holds its lock, ends any process
that still carries the folder's name in its environment, and deletes it.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.tool_modules import cluster_cache

from trierarch.embedded.children import build_launch_command, describe_end, read_log_tail
from trierarch.embedded.leftovers import (
    RUN_DATA_DIR_VARIABLE,
    RUN_ID_VARIABLE,
    end_processes,
    find_processes,
)
from trierarch_setup import disk

_LOCK_NAME = "lock"

GOODBYE_SECONDS = 10.0
"""How long a process may take to end when it is asked; nothing it holds is worth more."""


class ClusterError(RuntimeError):
    """The test cluster cannot do what was asked; the message says why, and what to do."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    Attributes:
        path: Everything the run writes is below it.
    """

    path: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the run's processes: the marker, and nothing of the user's.

        A user's proxy or KUBECONFIG would send them elsewhere.
        """
        return {
            "PATH": os.defpath,
            "HOME": str(self.path),
            "TMPDIR": str(self.path),
            RUN_DATA_DIR_VARIABLE: str(self.path),
            RUN_ID_VARIABLE: self.path.name,
        }

    def start(
        self, name: str, command: Sequence[str], more: Mapping[str, str] | None = None
    ) -> RunProcess:
        """Start a process that ends no later than this one; call from the main thread.

        Args:
            name: Of its log file.
            command: An absolute path and its arguments.
            more: Variables beside the run's own.
        """
        log_file = self.path / f"{name}.log"
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                build_launch_command(tuple(command), signal.SIGKILL),
                env={**self.environment, **(more or {})},
                cwd=self.path,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A terminal's Ctrl-C is for the harness, which ends its processes in order.
                process_group=0,
            )
        return RunProcess(name, process, log_file)


@dataclasses.dataclass(frozen=True)
class RunProcess:
    """A process of a run.

    Attributes:
        name: What it is, for messages.
        process: The process.
        log_file: What it says.
    """

    name: str
    process: subprocess.Popen[bytes]
    log_file: Path

    def require_alive(self) -> None:
        """Do nothing while it lives.

        Raises:
            ClusterError: If it has ended; the message ends with its last log lines.
        """
        code = self.process.poll()
        if code is not None:
            raise ClusterError(
                f"{self.name} {describe_end(code)}; its log ended with:\n"
                f"{read_log_tail(self.log_file)}"
            )

    def stop(self) -> None:
        """End it: ask first, then insist. Nothing happens if it has ended."""
        self.process.terminate()
        try:
            self.process.wait(GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


@contextmanager
def run_folder(
    kind: str, parent: Path | None = None, *, needed_bytes: int = 0
) -> Iterator[RunFolder]:
    """Make a run's folder and take it away at the end; first remove what killed runs left.

    Args:
        kind: The beginning of its name.
        parent: Where runs have their folders; in the user's cache when left out.
        needed_bytes: Free space without which not to begin.

    Raises:
        ClusterError: If the folder cannot be made, or its disk is too full.
    """
    parent = parent or cluster_cache() / "runs"
    path = parent / f"{kind}-{secrets.token_hex(4)}"
    try:
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Alone, so that no one takes a folder whose lock is not yet held for a dead run's.
        with _hold(parent / ".lock"):
            remove_leftovers(parent)
            free_bytes = disk.room(parent).free_bytes
            if free_bytes < needed_bytes:
                raise ClusterError(
                    f"the disk of {parent} is too full: {needed_bytes >> 20} MiB are needed there"
                    f" and {free_bytes >> 20} MiB are free"
                )
            path.mkdir(mode=0o700)
            descriptor = _try_to_hold(path / _LOCK_NAME)
    except OSError as error:
        raise ClusterError(f"{parent} cannot hold a run's files: {error}") from error
    if descriptor is None:
        raise ClusterError(f"{path} was taken by another process")
    try:
        yield RunFolder(path)
    finally:
        _remove(path)
        os.close(descriptor)


@contextmanager
def _hold(lock_file: Path) -> Iterator[None]:
    """Hold a lock; wait for whoever has it."""
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _try_to_hold(lock_file: Path) -> int | None:
    """Return the descriptor of a lock that is now held, or None if another process holds it."""
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def remove_leftovers(parent: Path) -> list[str]:
    """End the processes of dead runs and delete their folders; return the folders' names."""
    removed = []
    for path in sorted(parent.iterdir()):
        if not path.is_dir():
            continue
        try:
            descriptor = _try_to_hold(path / _LOCK_NAME)
        except FileNotFoundError:
            continue  # Its own run has just deleted it.
        if descriptor is None:
            continue
        try:
            _remove(path)
        finally:
            os.close(descriptor)
        removed.append(path.name)
    return removed


def _remove(path: Path) -> None:
    """End what runs in a folder and delete it."""
    survivors = end_processes(lambda: find_processes(str(path)), grace_seconds=0)
    if survivors:
        raise ClusterError(f"{survivors} processes of {path} cannot be ended")
    shutil.rmtree(path, ignore_errors=True)
