"""Delete what older versions left in a cache, and nothing that anybody still needs.

An entry is a file or folder ``KIND-HASH`` or ``KIND-HASH.tar``; its time of change says when it was
used last. Several checkouts share a cache, each with a version of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

KEPT_OF_A_KIND = 2
"""However old: whoever comes back after weeks, or has two checkouts, need not build again."""

RECENT_SECONDS = 3 * 3600.0
"""What somebody has just found may be read for as long as a cold start takes."""

_ENTRY = re.compile(r"(?P<kind>[a-z][a-z0-9-]*)-[0-9a-f]{16}(?P<ending>\.tar)?")


def mark_used(path: Path) -> None:
    """Note that an entry is wanted now; if it has gone meanwhile, nothing happens."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(path)


def delete_old_versions(cache: Path, spared: Collection[str] = ()) -> list[str]:
    """Delete the entries that are neither recent nor among the newest of their kind.

    Args:
        cache: Folder of the entries; others in it are left alone.
        spared: Names of entries that something running uses.

    Returns:
        The names of what was deleted.
    """
    kinds: defaultdict[tuple[str, str | None], list[tuple[float, Path]]] = defaultdict(list)
    for path in cache.iterdir():
        entry = _ENTRY.fullmatch(path.name)
        if entry is not None:
            kinds[entry["kind"], entry["ending"]].append((path.stat().st_mtime, path))
    old_before_seconds = time.time() - RECENT_SECONDS
    deleted = []
    for entries in kinds.values():
        for used_seconds, path in sorted(entries, reverse=True)[KEPT_OF_A_KIND:]:
            if used_seconds >= old_before_seconds or path.name in spared:
                continue
            # By another name first, so that nobody finds half of it.
            doomed = path.with_name(f".{path.name}.doomed")
            path.rename(doomed)
            shutil.rmtree(doomed) if doomed.is_dir() else doomed.unlink()
            deleted.append(path.name)
    return deleted
