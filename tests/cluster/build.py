"""Build the test cluster's tools from pinned Go modules, because no binary is downloaded.

    python -m tests.cluster.build            all tools, in the order tests need them
    python -m tests.cluster.build helm kwok  only these

A module's binaries appear in the cache together and only when they are whole; whoever wants
them meanwhile waits. A build that is killed leaves a folder that the next one removes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from tests.cluster.go_command import BuildError, find_go, go_environment, module_folder
from tests.cluster.lock_file import locked
from tests.cluster.old_versions import mark_used
from tests.cluster.tool_modules import (
    MODULES,
    ToolModule,
    UnknownToolError,
    binaries_folder,
    binary_path,
    cluster_cache,
    find_module,
)

from trierarch_setup import commands, disk
from trierarch_setup.failures import SetupFailure
from trierarch_setup.progress import Step

__all__ = [
    "BuildError",
    "binary_path",
    "build",
    "build_module",
    "find_go",
    "is_built",
    "module_folder",
]

NEEDED_BYTES = {"kubernetes": 7 * disk.GIB}
"""Free space for a cold build: Go's caches (5 GiB for Kubernetes) and the binaries."""

OTHERS_NEED_BYTES = 2 * disk.GIB

_NICENESS = ("nice", "-n", "10")
"""A build runs beside tests and yields to them."""

_LAST_LINES = 12


def is_built(name: str, cache: Path | None = None) -> bool:
    """Return whether all binaries of a tool are in the cache."""
    return binaries_folder(find_module(name), cache).is_dir()


def build(name: str, cache: Path | None = None, stream: TextIO = sys.stderr) -> Path:
    """Build a tool unless it is in the cache, and return the path of its binary.

    Args:
        name: A binary, or a module; a module's path is that of the folder with its binaries.
        cache: The cache folder; the user's when left out.
        stream: Where progress goes.

    Raises:
        BuildError: If it cannot be built.
        UnknownToolError: If there is no such tool.
    """
    module = find_module(name)
    folder = build_module(module, cache, stream)
    return folder / name if name in module.packages else folder


def build_module(
    module: ToolModule, cache: Path | None = None, stream: TextIO = sys.stderr
) -> Path:
    """Build all binaries of a module unless they are in the cache; return their folder.

    Args:
        module: What to build.
        cache: The cache folder; the user's when left out.
        stream: Where progress goes.

    Raises:
        BuildError: If it cannot be built.
    """
    root = cache or cluster_cache()
    target = binaries_folder(module, root)
    if target.is_dir():
        mark_used(target)
        return target
    try:
        lock_file, what = root / f"{module.name}.lock", f"the build of {module.name}"
        with locked(lock_file, stream, what) as descriptor:
            if not target.is_dir():
                _build(module, target, stream, descriptor)
    except OSError as error:
        raise BuildError(f"building {module.name} failed: {error}") from error
    return target


def _build(module: ToolModule, target: Path, stream: TextIO, lock_descriptor: int) -> None:
    """Build all binaries of a module aside and put them into place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # The lock is held: what lies here was left by a build that was killed.
    for stale in target.parent.glob(f"{module.name}-*.part"):
        shutil.rmtree(stale)
    try:
        place = disk.room(target)
        disk.require([place], [NEEDED_BYTES.get(module.name, OTHERS_NEED_BYTES)])
    except SetupFailure as failure:
        raise BuildError(str(failure).replace("the environment", module.name)) from failure
    go = find_go()
    scratch = target.with_name(f"{target.name}.part")
    made, temporary = scratch / "made", scratch / "temporary"
    made.mkdir(parents=True)
    temporary.mkdir()
    log_file = target.parent.parent / "logs" / f"{module.name}.log"
    log_file.parent.mkdir(exist_ok=True)
    log_file.unlink(missing_ok=True)
    step = Step(f"Building {module.name} {module.version}", stream, live=stream.isatty())
    status, output = commands.attempt(
        [*_NICENESS, *_build_command(go, module, made)],
        step=step,
        log_file=log_file,
        environment={
            **go_environment(),
            "GOTMPDIR": str(temporary),
            "PWD": str(module.folder),
        },
        keep_open=(lock_descriptor,),
    )
    if status != 0:
        step.abandon()
        last_lines = "\n".join(output.strip().splitlines()[-_LAST_LINES:])
        shutil.rmtree(scratch, ignore_errors=True)
        raise BuildError(
            f"building {module.name} failed; the full log is {log_file}, which ends with:\n"
            f"{last_lines}"
        )
    made.replace(target)
    shutil.rmtree(scratch)
    step.done()


def _build_command(go: str, module: ToolModule, folder: Path) -> list[str]:
    """Return the command that builds a module's binaries into a folder."""
    command = [go, "-C", str(module.folder), "build", "-v", "-ldflags", module.linker_flags]
    if module.tags:
        command += ["-tags", ",".join(module.tags)]
    command.append("-o")
    if len(module.packages) == 1:
        ((name, package),) = module.packages.items()
        return [*command, str(folder / name), package]
    # With several packages Go names each binary after its package.
    return [*command, f"{folder}{os.sep}", *module.packages.values()]


def build_all(names: Iterable[str], stream: TextIO = sys.stderr) -> dict[str, BuildError]:
    """Build several tools, each even if another one fails; return the failures by name."""
    failures = {}
    for name in names:
        try:
            build(name, stream=stream)
        except BuildError as failure:
            failures[name] = failure
    return failures


def main(arguments: list[str] | None = None) -> int:
    """Build the named tools, or all, and print the path of each binary."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster.build",
        description="Build the test cluster's tools from pinned Go modules into the user's cache.",
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MODULES)}; all when left out")
    parser.add_argument(
        "--no-paths", action="store_true", help="print nothing but progress and errors"
    )
    options = parser.parse_args(arguments)
    names = options.names or list(MODULES)
    try:
        modules = {find_module(name).name: find_module(name) for name in names}
    except UnknownToolError as failure:
        parser.error(str(failure))
    failures = build_all(modules)
    for module in modules.values():
        if module.name not in failures and not options.no_paths:
            for binary in module.packages:
                print(f"{binary} {binary_path(binary)}", flush=True)
    for explanation in failures.values():
        print(f"\n{explanation}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
