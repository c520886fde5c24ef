"""Where one checkout's kind cluster keeps what it needs, and what it is called.

What can be made again is shared by all checkouts under the user's cache folder, under names that
contain the hash of what it was made from. What belongs to one running cluster lies in a folder of
its own, which ``make cluster-down`` deletes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import platformdirs

CHECKOUT = Path(__file__).resolve().parents[3]


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Names and folders of one cluster.

    Attributes:
        name: Of the cluster; also names its control group and its interface.
        cache: Shared by all clusters of this user; safe to delete when none is being made.
        state: This cluster's own; gone when the cluster is.
    """

    name: str
    cache: Path
    state: Path

    @property
    def kubeconfig(self) -> Path:
        """Credentials of the cluster's administrator."""
        return self.state / "kubeconfig"

    @property
    def programs(self) -> Path:
        """Folder with kubectl, helm, kind and docker, for the user's PATH."""
        return self.state / "bin"

    @property
    def provider(self) -> str:
        """The machine's own engine that runs the nodes; empty where the engine is ours."""
        return self._provider_note.read_text() if self._provider_note.exists() else ""

    def note_provider(self, provider: str) -> None:
        """Note which of the machine's own engines runs the nodes."""
        self._provider_note.write_text(provider)

    @property
    def _provider_note(self) -> Path:
        return self.state / "provider"

    @property
    def lock(self) -> Path:
        """Held by whoever makes or deletes this cluster; outlives it."""
        return self.cache / f".{self.name}.lock"

    @property
    def log(self) -> Path:
        """What the set-up's commands printed."""
        return self.state / "setup.log"


def find_place(purpose: str = "", checkout: Path = CHECKOUT) -> Place:
    """Return the place of a checkout's cluster.

    Args:
        purpose: Tells further clusters of one checkout apart; empty for the user's own.
        checkout: Root of the repository.
    """
    digest = hashlib.sha256(f"{checkout}\n{purpose}".encode()).hexdigest()[:6]
    name = f"trierarch-{digest}"
    return Place(
        name=name,
        cache=Path(platformdirs.user_cache_dir("trierarch")) / "kind",
        state=Path(platformdirs.user_data_dir("trierarch")) / "kind" / name,
    )


def digest_of(*parts: object) -> str:
    """Return a short hash of values and of the content of files."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            digest.update(part.read_bytes())
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file so that it is there whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(document, indent=1))
    partial.replace(path)
