"""Caches lose what older versions left, and nothing that somebody may still want."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.cluster.old_versions import RECENT_SECONDS, delete_old_versions, mark_used


def make(cache: Path, name: str, age_seconds: float) -> Path:
    path = cache / name
    if name.endswith(".tar"):
        path.write_bytes(b"layers")
    else:
        (path / "inner").mkdir(parents=True)
    when = time.time() - age_seconds
    os.utime(path, (when, when))
    return path


def name(kind: str, number: int, ending: str = "") -> str:
    return f"{kind}-{number:016x}{ending}"


def test_only_old_ones_beyond_the_two_newest_of_a_kind_go(tmp_path: Path) -> None:
    day = 86_400.0
    for number in range(4):
        make(tmp_path, name("node-image", number, ".tar"), (number + 1) * day)
        make(tmp_path, name("images", number), (number + 1) * day)
    make(tmp_path, name("engine", 1, ".tar"), 9 * day)
    assert sorted(delete_old_versions(tmp_path)) == sorted(
        [*(name("node-image", n, ".tar") for n in (2, 3)), *(name("images", n) for n in (2, 3))]
    )
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        *(name("node-image", n, ".tar") for n in (0, 1)),
        *(name("images", n) for n in (0, 1)),
        name("engine", 1, ".tar"),
    }


def test_what_is_recent_or_used_or_of_another_name_stays(tmp_path: Path) -> None:
    for number in range(3):
        make(tmp_path, name("own", number), RECENT_SECONDS / 2 + number)
    old = [make(tmp_path, name("system-base", number), 1e6 + number) for number in range(4)]
    others = [make(tmp_path, other, 1e7) for other in ("models", "addresses.tar")]
    mark_used(old[3])
    mark_used(tmp_path / "gone")
    assert delete_old_versions(tmp_path, spared=[old[2].name]) == [old[1].name]
    assert all(path.exists() for path in (old[0], old[2], old[3], *others))
    assert not (tmp_path / "gone").exists()
