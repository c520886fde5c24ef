"""What a cluster uses of the caches, and the end of what no cluster uses any more."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.node.place import Place
from tests.cluster.node.work import Work
from tests.cluster.old_versions import delete_old_versions
from tests.cluster.tool_modules import cluster_cache


def tidy_caches(work: Work) -> None:
    """Delete old versions of images and programs, but none that a cluster of this user has."""
    spared = find_used(work.place)
    deleted = delete_old_versions(work.place.cache, spared)
    deleted += delete_old_versions(cluster_cache() / "binaries", spared)
    if deleted:
        work.say(f"deleted from the cache, made by older versions: {', '.join(deleted)}")


def find_used(place: Place) -> set[str]:
    """Return the names of the cache entries that any cluster of this user was made from."""
    used = set()
    for state in place.state.parent.glob("trierarch-*"):
        note = state / "uses"
        if note.exists():
            used |= set(note.read_text().split())
        used |= {Path(link).readlink().parent.name for link in (state / "bin").glob("*")}
    return used
