"""Room on the disk: asked before gigabytes are fetched, not found out in the middle."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from trierarch_setup.failures import SetupFailure

GIB = 1024**3

FULL_BYTES = 7 * GIB
"""The environment with the ordinary torch and its NVIDIA libraries: 5.7 GiB measured, and room."""

CPU_BYTES = 4 * GIB
"""The environment with the CPU build of torch: 2.6 GB measured, and room."""

LINKS_BYTES = GIB // 2
"""Everything is in the package cache of the same disk: files are linked, folders are not."""


@dataclasses.dataclass(frozen=True)
class Room:
    """Free space where something is going to be written.

    Attributes:
        folder: The folder asked for; need not exist yet.
        device: Tells file systems apart.
        free_bytes: What this user may still write there.
    """

    folder: Path
    device: int
    free_bytes: int


def room(folder: Path) -> Room:
    """Measure the file system that holds a folder or its nearest existing parent."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    status = os.statvfs(existing)
    return Room(folder, existing.stat().st_dev, status.f_bavail * status.f_frsize)


def needed_bytes(environment: Room, cache: Room, *, total_bytes: int, cached: bool) -> list[int]:
    """Return what the environment's and the cache's file systems each have to hold.

    Args:
        environment: Where the environment is made.
        cache: Where uv keeps unpacked packages.
        total_bytes: Size of a whole environment.
        cached: Every package is in the cache already.
    """
    if environment.device == cache.device:
        return [LINKS_BYTES if cached else total_bytes, 0]
    return [total_bytes, 0 if cached else total_bytes]


def require(rooms: Iterable[Room], needs_bytes: Iterable[int]) -> None:
    """Refuse to begin where the disk cannot hold the result.

    Raises:
        SetupFailure: With how much is missing, and where.
    """
    for place, need in zip(rooms, needs_bytes, strict=True):
        missing = need - place.free_bytes
        if missing > 0:
            raise SetupFailure(
                f"the disk of {place.folder} is too full: the environment needs about "
                f"{need / GIB:.1f} GiB there and {place.free_bytes / GIB:.1f} GiB are free; "
                f"free at least {missing / GIB:.1f} GiB more and run the command again."
            )
