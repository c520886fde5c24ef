"""Regenerate the locks in ``requirements/`` from ``pyproject.toml``.

A lock names every package with its version and the hashes of its files, and no
index, so that it means the same behind any mirror. torch and the libraries that
only its ordinary build needs are in a lock of their own.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from trierarch_setup.failures import SetupFailure
from trierarch_setup.installation import ROOT
from trierarch_setup.layout import Layout
from trierarch_setup.session import Session, ensure_uv, locked

HEADER = "# Made by `make lock` from pyproject.toml; do not edit.\n"

OLDEST_PYTHON = "3.11"
"""Lower end of ``requires-python``: a lock made for it holds for the later ones too."""

LEFT_OUT_EXTRAS = ("serving",)
"""The GPU build of vLLM: it excludes ``serving-cpu`` and is installed by images, not here."""

_NEVER = re.compile(r"sys_platform == 'never'")
"""Marker by which requirements/overrides.txt takes a declared dependency away."""

_OF_TORCH = re.compile(r"^(torch|cuda-[a-z-]+|nvidia-[a-z0-9-]+)==")
"""torch and what only its ordinary build is linked to."""


def run(arguments: list[str]) -> int:
    """Write the locks and return the command's exit code.

    Args:
        arguments: Passed on to ``uv pip compile``, for example ``--upgrade``.
    """
    try:
        lock(Layout(ROOT), arguments)
    except (SetupFailure, OSError) as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: the locks are as they were.", file=sys.stderr)
        return 130
    return 0


def lock(place: Layout, arguments: list[str]) -> None:
    """Resolve and write all three locks.

    Raises:
        SetupFailure: If nothing can be resolved.
    """
    requirements, project = place.requirements, place.root / "pyproject.toml"
    everything, torch = requirements / "all.lock", requirements / "torch.lock"
    with locked(place, sys.stdout) as descriptor:
        session = Session(place, os.environ, sys.stdout, descriptor)
        ensure_uv(session)
        resolved = place.work / "all.lock"
        # What is locked now is where the resolver starts, so that nothing moves without need.
        resolved.write_text("".join(p.read_text() for p in (everything, torch) if p.exists()))
        extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
        options = [str(project), "--group", f"{project}:dev"]
        for extra in sorted(set(extras) - set(LEFT_OUT_EXTRAS)):
            options += ["--extra", extra]
        options += ["--override", str(requirements / "overrides.txt")]
        _compile(session, options, resolved, arguments)
        common, of_torch = split(resolved.read_text())
        bootstrap = place.work / "bootstrap.lock"
        _compile(session, [str(requirements / "bootstrap.in")], bootstrap, arguments)
        _replace(everything, HEADER + common)
        _replace(torch, HEADER + of_torch)
        _replace(requirements / "bootstrap.lock", HEADER + bootstrap.read_text())


def _compile(session: Session, options: list[str], output: Path, arguments: list[str]) -> None:
    """Resolve requirements into a file with hashes and without index addresses."""
    step = session.step(f"Resolving {output.name}")
    form = "--quiet --universal --generate-hashes --no-annotate --no-header"
    form += f" --no-emit-index-url --no-emit-find-links --python-version {OLDEST_PYTHON}"
    session.uv_pip(["compile", *options, *form.split(), *arguments, "-o", str(output)], step)
    step.done()


def split(resolved: str) -> tuple[str, str]:
    """Return the common lock and torch's, without what an override takes away.

    Args:
        resolved: A lock: each requirement begins a line, its hashes follow indented.
    """
    common: list[str] = []
    torch: list[str] = []
    for block in blocks(resolved):
        if not _NEVER.search(block.partition("\n")[0]):
            (torch if _OF_TORCH.match(block) else common).append(block)
    return "".join(common), "".join(torch)


def blocks(text: str) -> Iterable[str]:
    """Yield each requirement of a lock with its hashes; comments are left out."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    block: list[str] = []
    for line in lines:
        if block and not line.startswith(" "):
            yield "\n".join(block) + "\n"
            block = []
        block.append(line)
    if block:
        yield "\n".join(block) + "\n"


def _replace(path: Path, content: str) -> None:
    """Write a file so that it is there whole or as it was."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(content)
    partial.replace(path)
