"""However a run of the harness ends, the next one finds nothing of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.cluster.api_tier import running_api_tier, wait_until
from tests.cluster.run_folder import ClusterError, remove_leftovers, run_folder

from trierarch.embedded.leftovers import find_processes

ROOT = Path(__file__).resolve().parents[2]

API_TIER_PROGRAM = """
import sys, time
from pathlib import Path
from tests.cluster.api_tier import running_api_tier

with running_api_tier(Path(sys.argv[1])) as tier:
    print(tier.folder.path, flush=True)
    time.sleep(3600)
"""

FOLDER_PROGRAM = """
import sys, time
from pathlib import Path
from tests.cluster.run_folder import run_folder

with run_folder("killed", Path(sys.argv[1])) as folder:
    folder.start("child", ["/bin/sh", "-c", "setsid sleep 3600 & sleep 3600"])
    print(folder.path, flush=True)
    time.sleep(3600)
"""


@pytest.fixture
def harness(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[int, Path]]:
    """Run a program of the harness; yield its process id and its run's folder."""
    with subprocess.Popen(
        [sys.executable, "-c", request.param, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'deploy' / 'local'}"},
    ) as process:
        try:
            assert process.stdout is not None
            folder = Path(process.stdout.readline().strip())
            assert folder.parent == tmp_path
            yield process.pid, folder
        finally:
            process.kill()


def processes_of(folder: Path) -> set[int]:
    return find_processes(str(folder))


@pytest.mark.cluster
@pytest.mark.parametrize("harness", [API_TIER_PROGRAM], indirect=True, ids=["api-tier"])
def test_a_killed_harness_leaves_no_process_and_the_next_one_starts(
    harness: tuple[int, Path], tmp_path: Path
) -> None:
    pid, folder = harness
    assert len(processes_of(folder)) == 4
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not processes_of(folder), "the kernel to end the processes")
    with running_api_tier(tmp_path) as tier:
        assert not folder.exists()
        assert len(processes_of(tier.folder.path)) == 4
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("harness", [FOLDER_PROGRAM], indirect=True, ids=["grandchild"])
def test_a_grandchild_that_outlived_a_killed_run_is_ended_by_the_next(
    harness: tuple[int, Path], tmp_path: Path
) -> None:
    pid, folder = harness
    wait_until(lambda: len(processes_of(folder)) == 3, "the child's children")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(processes_of(folder)) == 2, "the kernel to end the child alone")
    survivors = processes_of(folder)
    with run_folder("next", tmp_path):
        assert not folder.exists()
    assert [each for each in survivors if _lives(each)] == []


def _lives(pid: int) -> bool:
    """Tell a process from one that has ended and that nobody has asked about."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("harness", [FOLDER_PROGRAM], indirect=True, ids=["alive"])
def test_a_run_that_lives_is_left_alone(harness: tuple[int, Path], tmp_path: Path) -> None:
    _, folder = harness
    wait_until(lambda: len(processes_of(folder)) == 3, "the child's children")
    assert remove_leftovers(tmp_path) == []
    with run_folder("other", tmp_path) as other:
        assert other.path != folder
    assert len(processes_of(folder)) == 3


def test_a_run_that_would_fill_the_disk_does_not_begin(tmp_path: Path) -> None:
    with (
        pytest.raises(ClusterError, match=r"is too full: \d+ MiB are needed there and \d+ MiB"),
        run_folder("big", tmp_path, needed_bytes=2**62),
    ):
        pass
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_place_that_cannot_hold_a_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ClusterError, match=r"file cannot hold a run's files: .*File exists"),
        run_folder("any", tmp_path / "file"),
    ):
        pass


def test_a_folder_without_a_lock_is_removed(tmp_path: Path) -> None:
    (tmp_path / "api-half" / "etcd").mkdir(parents=True)
    assert remove_leftovers(tmp_path) == ["api-half"]
    assert list(tmp_path.iterdir()) == []
