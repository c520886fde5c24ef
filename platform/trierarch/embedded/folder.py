"""The data folder as a run uses it: one run at a time, and where its files are."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trierarch.core.errors import InvalidInput
from trierarch.embedded.leftovers import remove_own_folder

RAY_TEMP_DIR_MAX_CHARACTERS = 36
"""Ray appends up to 68 characters for its sockets, and Unix allows 107."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths below a data folder.

    Attributes:
        data_dir: Absolute.
    """

    data_dir: Path

    @property
    def run_dir(self) -> Path:
        """Files of the run that is on."""
        return self.data_dir / "run"

    @property
    def logs_dir(self) -> Path:
        """One log file per process."""
        return self.data_dir / "logs"

    @property
    def lock_path(self) -> Path:
        """Locked by the supervisor while it lives; holds its process id."""
        return self.run_dir / "lock"

    @property
    def state_path(self) -> Path:
        """What runs, for ``trierarch down`` and people."""
        return self.run_dir / "state.json"

    @property
    def deployment_path(self) -> Path:
        """What the controller shall run."""
        return self.run_dir / "deployment.json"

    @property
    def token_path(self) -> Path:
        """Secret that the controller's callers show."""
        return self.run_dir / "controller-token"

    @property
    def client_env_path(self) -> Path:
        """Address and key of the default tenant."""
        return self.data_dir / "client.env"

    @property
    def ray_temp_dir(self) -> Path:
        """Ray's sessions: a short path, because it holds sockets."""
        digest = hashlib.sha256(str(self.data_dir).encode()).hexdigest()[:8]
        name = f"trierarch-{os.getuid()}-{digest}"
        preferred = Path(tempfile.gettempdir()) / name
        if len(str(preferred)) <= RAY_TEMP_DIR_MAX_CHARACTERS:
            return preferred
        return Path("/tmp") / name  # noqa: S108  # the user's own folder, its owner is checked

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            InvalidInput: If they cannot be made.
        """
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            for folder in (self.run_dir, self.logs_dir):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise InvalidInput(
                f"cannot use data folder {self.data_dir}: {error.strerror};"
                " choose another one with --data-dir DIR"
            ) from error

    def remove_ray_temp_dir(self) -> None:
        """Remove what Ray left, if it is ours."""
        remove_own_folder(self.ray_temp_dir)

    def make_ray_temp_dir(self) -> Path:
        """Make an empty folder for Ray that only this user can enter.

        Raises:
            InvalidInput: If somebody else has put something there.
        """
        self.remove_ray_temp_dir()
        try:
            self.ray_temp_dir.mkdir(mode=0o700)
        except OSError as error:
            raise InvalidInput(
                f"cannot make {self.ray_temp_dir} for Ray: {error.strerror}"
            ) from error
        return self.ray_temp_dir


@contextlib.contextmanager
def hold_lock(folder: RunFolder) -> Iterator[None]:
    """Be the only run on a data folder; the kernel frees the lock when its holder dies.

    Raises:
        InvalidInput: If another run holds it; the message names its process id.
    """
    descriptor = os.open(folder.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 32).decode().strip() or "unknown"
            raise InvalidInput(
                f"a run (process {pid}) uses {folder.data_dir} already;"
                f" end it with `trierarch down --data-dir {folder.data_dir}`,"
                " or choose another folder with --data-dir DIR"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def find_lock_holder(folder: RunFolder) -> int | None:
    """Return the process id of the run that is on, None if there is none."""
    try:
        descriptor = os.open(folder.lock_path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(descriptor, 32).decode().strip()
        return int(text) if text.isdecimal() else None
    finally:
        os.close(descriptor)
    return None


def write_private(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner only."""
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text)
    partial.replace(path)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document whole or not at all."""
    write_private(path, json.dumps(document, indent=2) + "\n")
