"""Where the environment and what belongs to it lie, and how a new one takes the place of an old.

An environment is made beside the one in use and renamed when it is whole, so
``.venv`` is never half made, whatever ends the set-up and whenever. What an
interrupted set-up left is thrown away: packages come from the cache again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

FORMAT = 1
"""Raise it when the way an environment is made changes: every environment is then made anew."""

STAMP_NAME = "trierarch-setup.json"
"""File in an environment that says what it was made from; written when everything else is there."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Paths in one checkout.

    Attributes:
        root: The checkout.
    """

    root: Path

    @property
    def environment(self) -> Path:
        """The environment in use."""
        return self.root / ".venv"

    @property
    def work(self) -> Path:
        """Folder of the set-up itself."""
        return self.root / ".cache" / "setup"

    @property
    def next_environment(self) -> Path:
        """The environment being made."""
        return self.work / "next"

    @property
    def previous_environment(self) -> Path:
        """The environment that was replaced, until it is deleted."""
        return self.work / "previous"

    @property
    def bootstrap(self) -> Path:
        """Holds uv, which makes the environment."""
        return self.work / "bootstrap"

    @property
    def lock_file(self) -> Path:
        """Held while a set-up runs."""
        return self.work / "lock"

    @property
    def log_file(self) -> Path:
        """Everything that the last set-up's commands printed."""
        return self.work / "setup.log"

    @property
    def requirements(self) -> Path:
        """Folder of the locked requirements."""
        return self.root / "requirements"


@dataclasses.dataclass(frozen=True)
class Stamp:
    """What an environment was made from.

    Attributes:
        packages: Fingerprint of the locked packages; another one means a new environment.
        project: Fingerprint of the project's own metadata; another one means to install it again.
        torch: The version of torch that was chosen.
    """

    packages: str
    project: str
    torch: str


def packages_fingerprint(layout: Layout) -> str:
    """Fingerprint what decides the packages: the locks and the checkout's place.

    The place counts because the project is installed as a link to it.
    """
    names = ("all.lock", "torch.lock")
    contents = [(layout.requirements / name).read_bytes() for name in names]
    return _digest(str(FORMAT).encode(), os.fsencode(layout.root), *contents)


def project_fingerprint(layout: Layout) -> str:
    """Fingerprint the project's metadata, entry points included."""
    return _digest((layout.root / "pyproject.toml").read_bytes())


def _digest(*parts: bytes) -> str:
    """Return one digest of several byte strings; where one ends counts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def read_stamp(environment: Path) -> Stamp | None:
    """Return an environment's stamp, or None if it has none that can be read."""
    try:
        document = json.loads((environment / STAMP_NAME).read_text())
        return Stamp(**document)
    except (OSError, ValueError, TypeError):
        return None


def write_stamp(environment: Path, stamp: Stamp) -> None:
    """Write the stamp so that it is there whole or not at all."""
    partial = environment / f"{STAMP_NAME}.partial"
    with partial.open("w") as file:
        json.dump(dataclasses.asdict(stamp), file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(environment / STAMP_NAME)


def forget_stamp(environment: Path) -> None:
    """Take the stamp away before an environment is changed in place."""
    (environment / STAMP_NAME).unlink(missing_ok=True)


def recover(layout: Layout) -> None:
    """Bring the folders into order after a set-up that was killed.

    The one dangerous moment is between the two renames of ``activate``: then
    the new environment is whole and there is none in use. It is finished here.
    """
    if not os.path.lexists(layout.environment) and read_stamp(layout.next_environment) is not None:
        layout.next_environment.rename(layout.environment)
    remove(layout.next_environment)
    remove(layout.previous_environment)


def activate(layout: Layout) -> None:
    """Put the environment that was made in the place of the one in use."""
    remove(layout.previous_environment)
    if os.path.lexists(layout.environment):
        layout.environment.rename(layout.previous_environment)
    layout.next_environment.rename(layout.environment)
    remove(layout.previous_environment)


def remove(path: Path) -> None:
    """Delete a folder, a file or a link, if it is there."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
