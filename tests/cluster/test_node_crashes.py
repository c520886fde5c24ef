"""However an engine's life ends, nothing of it stays on the machine, and two do not meet."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.node.archives import Image, pack_files, write_archive
from tests.cluster.node.control_groups import find_control_groups
from tests.cluster.node.engine import (
    Engine,
    find_engine,
    find_engine_processes,
    interface_name,
    start_engine,
    stop_engine,
)
from tests.cluster.node.fixtures import wait_for
from tests.cluster.node.limits import SETTING_NAME
from tests.cluster.node.packages import make_engine_root
from tests.cluster.node.place import CHECKOUT, Place, find_place
from tests.cluster.node.settings import find_changes, read_settings
from tests.cluster.node.situation import find_situation
from tests.cluster.node.work import Work

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        find_situation().kind != "own-engine",
        reason="only root on Linux without Docker starts an engine of its own",
    ),
]

PROGRAM = """
import sys, time
from tests.cluster.node.engine import start_engine
from tests.cluster.node.limits import SETTING_NAME
from tests.cluster.node.packages import make_engine_root
from tests.cluster.node.place import find_place
from tests.cluster.node.work import Work

work = Work(find_place(sys.argv[1]), sys.stderr)
start_engine(work, make_engine_root(work), ends_with_this_process=sys.argv[2] == "together")
print("started", flush=True)
time.sleep(3600)
"""


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    place = find_place(f"test-{os.getpid()}-{request.node.name}")
    yield place
    stop_engine(place)


@contextlib.contextmanager
def starter(purpose: str, how: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program that starts an engine and waits."""
    paths = f"{CHECKOUT}:{CHECKOUT / 'deploy' / 'local'}"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, purpose, how],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def traces_of(place: Place) -> list[str]:
    """Return everything on the machine that bears the engine's name."""
    found = [f"process {pid}" for pid in processes_of(place)]
    found += [f"control group {path}" for path in find_control_groups(place.name)]
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    found += re.findall(rf"^{interface_name(place.name)}\b", links, re.MULTILINE)
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if place.name in line]
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found += [device.read_text()] if place.name in device.read_text() else []
    found += [str(place.state)] if place.state.exists() else []
    return found


def processes_of(place: Place) -> list[int]:
    """Return every process with the engine's name or its mark, inside its namespaces too."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if place.name.encode() in words + environment:
                found.append(int(pid))
    return found


def run_container(engine: Engine, folder: Path) -> None:
    """Start a container, so that there are control groups and mounts to leave behind."""
    tini = "usr/bin/tini-static"
    [root] = [p for p in engine.place.cache.glob("engine-*") if (p / tini).exists()][:1]
    layer = pack_files({"tini": root / tini}, folder / "layer.tar")
    entry = {"Entrypoint": ["/tini", "-s", "--", "/tini", "-h"]}
    write_archive([Image("example/tini:1", [layer], entry)], folder / "image.tar")
    engine.docker("load", "--input", str(folder / "image.tar"))
    engine.docker("run", "--detach", "--restart", "always", "example/tini:1")


def test_a_stopped_engine_leaves_nothing_and_changes_no_setting(
    place: Place, tmp_path: Path
) -> None:
    before = read_settings()
    work = Work(place)
    engine = start_engine(work, make_engine_root(work), ends_with_this_process=True)
    run_container(engine, tmp_path)
    assert traces_of(place)
    stop_engine(place)
    assert traces_of(place) == []
    changed = find_changes(before, read_settings())
    # Another engine on this machine may still need the limit that is raised while any runs.
    assert set(changed) <= ({SETTING_NAME} if find_engine_processes(None) else set())


def test_a_kill_of_everything_is_followed_by_a_clean_start(place: Place, tmp_path: Path) -> None:
    work = Work(place)
    root = make_engine_root(work)
    run_container(start_engine(work, root, ends_with_this_process=True), tmp_path)
    for pid in find_engine_processes(place.name):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not processes_of(place), 30, every_seconds=0.1)
    stop_engine(place)
    assert traces_of(place) == []
    assert start_engine(work, root, ends_with_this_process=True).docker("ps", "-q") == ""


def test_an_engine_of_tests_ends_with_the_tests(request: pytest.FixtureRequest) -> None:
    purpose = f"test-together-{os.getpid()}"
    place = find_place(purpose)
    request.addfinalizer(lambda: stop_engine(place))
    with starter(purpose, "together") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        assert find_engine(place) is not None
        process.kill()
        wait_for(lambda: not processes_of(place), 30, every_seconds=0.1)


def test_a_start_that_is_killed_midway_is_cleaned_up_by_the_next(
    request: pytest.FixtureRequest,
) -> None:
    purpose = f"test-midway-{os.getpid()}"
    place = find_place(purpose)
    request.addfinalizer(lambda: stop_engine(place))
    with starter(purpose, "apart") as process:
        wait_for(lambda: bool(find_engine_processes(place.name)), 60, every_seconds=0.01)
        process.kill()
    assert find_engine_processes(place.name), "an engine of `make kind` outlives its starter"
    stop_engine(place)
    assert traces_of(place) == []


def test_two_engines_run_at_once_with_networks_of_their_own(
    place: Place, request: pytest.FixtureRequest
) -> None:
    other = find_place(f"test-other-{os.getpid()}")
    request.addfinalizer(lambda: stop_engine(other))
    work = Work(place)
    root = make_engine_root(work)
    first = start_engine(work, root, ends_with_this_process=True)
    second = start_engine(Work(other), root, ends_with_this_process=True)
    assert not first.network.whole.overlaps(second.network.whole)
    stop_engine(other)
    assert "Server" in first.docker("version")
    assert traces_of(other) == []
