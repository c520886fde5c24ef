"""Tools are built once, whole or not at all, by one process at a time, also where Go is missing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.cluster import build as building
from tests.cluster.api_tier import wait_until
from tests.cluster.build import BuildError, binary_path, build_module, main
from tests.cluster.go_command import find_go, go_environment
from tests.cluster.tool_modules import (
    MODULES,
    ToolModule,
    UnknownToolError,
    binaries_folder,
    find_module,
)

ROOT = Path(__file__).resolve().parents[2]

GREETING = """package main

import "os"

var version = "unset"

func main() { os.Stdout.WriteString("greeting " + version + "\\n") }
"""


@pytest.fixture
def greeting(tmp_path: Path) -> ToolModule:
    """Return a module without dependencies that gives two binaries."""
    folder = tmp_path / "tools" / "greeting"
    for package in ("hello", "goodbye"):
        (folder / package).mkdir(parents=True)
        (folder / package / "main.go").write_text(GREETING)
    (folder / "go.mod").write_text("module greeting\n\ngo 1.26\n\n// v1.0.0\n")
    (folder / "go.sum").write_text("")
    return ToolModule(
        "greeting",
        "//",  # a comment is the only line that needs no module to exist
        {"hello": "greeting/hello", "goodbye": "greeting/goodbye"},
        tools=tmp_path / "tools",
    )


def pin(module: ToolModule, version: str) -> ToolModule:
    """Return the module pinned to a version of itself."""
    (module.folder / "go.mod").write_text(f"module greeting\n\ngo 1.26\n\n// {version}\n")
    variables: Mapping[str, str] = {"main.version": "{version},{major},{minor}"}
    return ToolModule("greeting", "//", module.packages, variables, tools=module.tools)


@pytest.mark.parametrize("name", MODULES)
def test_every_tool_pins_its_version_and_every_source_file(name: str) -> None:
    module = MODULES[name]
    assert module.version.startswith("v")
    assert f"{module.pinned} {module.version}" in (module.folder / "go.sum").read_text()
    imports = (module.folder / "tools.go").read_text()
    assert [each for each in module.packages.values() if f'_ "{each}"' not in imports] == []


def test_kubernetes_parts_have_one_version() -> None:
    module = MODULES["kubernetes"]
    staging = f"v0.{module.version.removeprefix('v1.')}"
    replaced = [
        line.split()[-1]
        for line in (module.folder / "go.mod").read_text().splitlines()
        if " => " in line
    ]
    assert len(replaced) > 25
    assert set(replaced) == {staging}


def test_an_unknown_tool_is_answered_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UnknownToolError, match="unknown tool 'docker': choose from coredns, etcd,"):
        find_module("docker")
    with pytest.raises(UnknownToolError, match="kubernetes is a module; its binaries: kube-api"):
        binary_path("kubernetes")
    with pytest.raises(SystemExit):
        main(["docker"])
    assert "unknown tool 'docker'" in capsys.readouterr().err


def test_a_changed_sum_gives_another_folder(greeting: ToolModule, tmp_path: Path) -> None:
    before = binaries_folder(greeting, tmp_path)
    assert binaries_folder(greeting, tmp_path) == before
    (greeting.folder / "go.sum").write_text("example.org/other v1.0.0 h1:AAAA=\n")
    assert binaries_folder(greeting, tmp_path) != before


def test_a_full_disk_is_noticed_before_anything_is_written(
    greeting: ToolModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "OTHERS_NEED_BYTES", 2**62)
    cache = tmp_path / "cache"
    with pytest.raises(BuildError, match=r"is too full: greeting needs about .* GiB there and"):
        build_module(pin(greeting, "v1.2.3"), cache, io.StringIO())
    assert list((cache / "binaries").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_one_clear_error(
    greeting: ToolModule, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(BuildError, match=r"building greeting failed: .*File exists"):
        build_module(greeting, tmp_path / "cache", io.StringIO())


@pytest.mark.cluster
def test_all_binaries_of_a_module_appear_together_with_their_version(
    greeting: ToolModule, tmp_path: Path
) -> None:
    module, cache, told = pin(greeting, "v1.2.3"), tmp_path / "cache", io.StringIO()
    folder = build_module(module, cache, told)
    assert sorted(path.name for path in folder.iterdir()) == ["goodbye", "hello"]
    said = subprocess.run([folder / "hello"], capture_output=True, text=True, check=True)
    assert said.stdout == "greeting 1.2.3,1,2\n"
    assert "Building greeting v1.2.3: done" in told.getvalue()
    assert [path.name for path in (cache / "binaries").iterdir()] == [folder.name]
    again = io.StringIO()
    assert build_module(module, cache, again) == folder
    assert again.getvalue() == ""


@pytest.mark.cluster
def test_a_failed_build_says_why_and_leaves_nothing(greeting: ToolModule, tmp_path: Path) -> None:
    module, cache = pin(greeting, "v1.2.3"), tmp_path / "cache"
    (module.folder / "hello" / "main.go").write_text("package main\n\nfunc main() { nonsense() }\n")
    with pytest.raises(BuildError, match=r"(?s)the full log is .*undefined: nonsense"):
        build_module(module, cache, io.StringIO())
    assert list((cache / "binaries").iterdir()) == []


@pytest.mark.cluster
def test_what_a_killed_build_left_is_replaced(greeting: ToolModule, tmp_path: Path) -> None:
    module, cache = pin(greeting, "v1.2.3"), tmp_path / "cache"
    target = binaries_folder(module, cache)
    stale = target.with_name(f"{target.name}.part") / "made"
    stale.mkdir(parents=True)
    (stale / "hello").write_text("half")
    assert sorted(path.name for path in build_module(module, cache, io.StringIO()).iterdir()) == [
        "goodbye",
        "hello",
    ]
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.cluster
def test_a_second_process_waits_for_the_first(greeting: ToolModule, tmp_path: Path) -> None:
    module, cache = pin(greeting, "v1.2.3"), tmp_path / "cache"
    cache.mkdir()
    program = (
        "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX);"
        " print('held', flush=True); sys.stdin.read()"
    )
    told = io.StringIO()
    with subprocess.Popen(
        [sys.executable, "-c", program, str(cache / "greeting.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        waiting = subprocess.Popen(
            [sys.executable, "-c", _build_program(module, cache)],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        try:
            assert waiting.stderr is not None
            assert waiting.stderr.readline() == (
                "waiting for the build of greeting in another process\n"
            )
            assert not binaries_folder(module, cache).exists()
            other.stdin.close()
            assert waiting.wait() == 0
        finally:
            waiting.kill()
            waiting.communicate()
    assert build_module(module, cache, told).is_dir()
    assert told.getvalue() == ""


def _build_program(module: ToolModule, cache: Path) -> str:
    """Return a Python program that builds a module."""
    return (
        "from pathlib import Path, PosixPath\n"
        "from tests.cluster.build import build_module\n"
        "from tests.cluster.tool_modules import ToolModule\n"
        f"build_module({module!r}, {cache!r})"
    )


@pytest.mark.cluster
def test_a_killed_builder_takes_its_compiler_along(greeting: ToolModule, tmp_path: Path) -> None:
    """A stand-in for Go that sleeps: what counts is that nothing goes on in the dark."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    go = bin_folder / "go"
    go.write_text(
        '#!/bin/sh\nif [ "$1" = env ]; then echo go1.26.0; else echo $$ > "$GO_PID"; '
        "exec sleep 600; fi\n"
    )
    go.chmod(0o755)
    pid_file = tmp_path / "pid"
    module = pin(greeting, "v1.2.3")
    path = f"{bin_folder}:{os.environ['PATH']}"
    builder = subprocess.Popen(
        [sys.executable, "-c", _build_program(module, tmp_path / "cache")],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "GO_PID": str(pid_file)},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: pid_file.exists() and pid_file.read_text() != "", "the stand-in")
        compiler = Path("/proc") / pid_file.read_text().strip()
    finally:
        builder.kill()
        builder.wait()
    wait_until(lambda: _has_ended(compiler), "the stand-in to end")
    assert build_module(module, tmp_path / "cache", io.StringIO()).is_dir()


def _has_ended(process: Path) -> bool:
    """Tell whether a process is gone, or ended and not yet asked about."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_an_old_go_is_passed_over_and_the_next_step_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "bin" / "go"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho go1.22.1\n")
    old.chmod(0o755)
    # A checkout without an environment, so that nothing is fetched.
    monkeypatch.setattr("tests.cluster.go_command.ROOT", tmp_path / "checkout")
    with pytest.raises(BuildError, match=r"no Go 1\.26 found.*run `make setup`"):
        find_go(search=str(old.parent), cache=tmp_path / "cache")


def test_the_users_go_settings_do_not_reach_a_build() -> None:
    mine = go_environment({"GOFLAGS": "-tags=mine", "GOWORK": "x", "GOPROXY": "file:///mirror"})
    assert "mine" not in mine["GOFLAGS"]
    assert mine["GOWORK"] == "off"
    assert mine["GOPROXY"] == "file:///mirror"
