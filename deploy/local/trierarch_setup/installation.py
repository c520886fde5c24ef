"""Make the environment, or find that it is there already.

The order is always the same: ask whether there is anything to do, ask for room,
make a whole environment beside the one in use, swap. Nothing before the swap
touches what works.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TextIO

from trierarch_setup import disk, layout, torch_build, vllm_metadata
from trierarch_setup.failures import SetupFailure
from trierarch_setup.layout import Layout, Stamp
from trierarch_setup.progress import Step
from trierarch_setup.session import Session, ensure_uv, locked

ROOT = Path(__file__).resolve().parents[3]
"""The checkout this file belongs to."""

HEALTH_PROGRAM = "import trierarch, click, sys; sys.exit(0)"
"""Runs only if the interpreter, the link to the checkout and the packages are still there."""


def run(arguments: list[str]) -> int:
    """Set the environment up and return the command's exit code.

    Args:
        arguments: None are known; what ``make`` gets is for the targets.
    """
    if arguments:
        print(f"unknown argument: {arguments[0]}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        set_up(Layout(ROOT), os.environ, sys.stdout)
    except SetupFailure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\nthe environment cannot be set up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to go on.", file=sys.stderr)
        return 130
    return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Treat a request to end like Ctrl-C."""
    raise KeyboardInterrupt


def set_up(place: Layout, inherited: Mapping[str, str], stream: TextIO) -> None:
    """Bring the environment to what the locks and the project say.

    Raises:
        SetupFailure: With one sentence for the user.
    """
    if not is_current(place):
        _renew(place, inherited, stream)
    stream.write(f"Environment: {place.environment.name} is ready\n")


def _renew(place: Layout, inherited: Mapping[str, str], stream: TextIO) -> None:
    """Change or make the environment, alone in this checkout."""
    with locked(place, stream) as lock_descriptor:
        layout.recover(place)
        if is_current(place):
            return
        place.log_file.unlink(missing_ok=True)
        session = Session(place, inherited, stream, lock_descriptor)
        stamp = layout.read_stamp(place.environment)
        if stamp is not None and _packages_are_current(place, stamp):
            _install_project_again(session, stamp)
        else:
            _make_environment(session)


def is_current(place: Layout) -> bool:
    """Tell whether the environment is there, whole, made from these locks, and starts."""
    stamp = layout.read_stamp(place.environment)
    return (
        stamp is not None
        and _packages_are_current(place, stamp)
        and stamp.project == layout.project_fingerprint(place)
    )


def _packages_are_current(place: Layout, stamp: Stamp) -> bool:
    """Tell whether the packages are the locked ones and their interpreter still exists."""
    if stamp.packages != layout.packages_fingerprint(place):
        return False
    try:
        answer = subprocess.run(  # noqa: S603
            [place.environment / "bin" / "python", "-I", "-c", HEALTH_PROGRAM],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except OSError:
        return False
    return answer.returncode == 0


def _install_project_again(session: Session, stamp: Stamp) -> None:
    """Renew the project's metadata and commands in the environment in use."""
    place = session.layout
    ensure_uv(session)
    step = session.step("Installing the project")
    layout.forget_stamp(place.environment)
    _install_project(session, place.environment, step)
    layout.write_stamp(
        place.environment,
        Stamp(stamp.packages, layout.project_fingerprint(place), stamp.torch),
    )
    step.done()


def _make_environment(session: Session) -> None:
    """Make a whole environment and put it into use."""
    place = session.layout
    ensure_uv(session)
    step = session.step("Looking for a CPU build of torch")
    interpreter = _make_empty(session, step)
    torch = _choose_torch(session, interpreter, step)
    step.done("found" if torch.endswith("+cpu") else "none, taking the ordinary build")
    cached = _require_room(session, interpreter, torch)

    install = ["install", "--no-deps", "--no-build", "--python", str(interpreter)]
    origin = ["--offline"] if cached else []
    step = session.step("Installing the locked packages")
    session.uv_pip([*install, *origin, *_locked_arguments(place, torch)], step)
    if torch.endswith("+cpu"):
        # No hash: this build is not in the index the lock was made from.
        session.uv_pip([*install, *origin, f"torch=={torch}"], step)
    step.done()

    step = session.step("Installing the project")
    version = vllm_metadata.locked_version((place.requirements / "all.lock").read_text())
    wheel = vllm_metadata.build_wheel(place.work, version)
    session.uv_pip([*install, "--offline", str(wheel)], step)
    _install_project(session, place.next_environment, step)
    layout.write_stamp(
        place.next_environment,
        Stamp(layout.packages_fingerprint(place), layout.project_fingerprint(place), torch),
    )
    layout.activate(place)
    step.done()


def _make_empty(session: Session, step: Step) -> Path:
    """Make an empty environment that can be renamed and return its interpreter."""
    target = session.layout.next_environment
    session.run(
        [str(session.uv), "venv", "--relocatable", "--python", sys.executable, str(target)], step
    )
    return target / "bin" / "python"


def _choose_torch(session: Session, interpreter: Path, step: Step) -> str:
    """Ask the configured registries for the CPU build and return the version to install.

    Raises:
        SetupFailure: If no registry answers and none has answered before.
    """
    ordinary = torch_build.locked_version((session.layout.requirements / "torch.lock").read_text())
    if not torch_build.has_cpu_build():
        return ordinary
    wanted = torch_build.cpu_build(ordinary)
    arguments = ["install", "--dry-run", "--no-deps", "--no-build", "--python", str(interpreter)]
    # Without a network, what the registries last said is enough if all packages are in the cache.
    for origin in ([], ["--offline"]):
        status, output = session.attempt_uv_pip([*arguments, *origin, f"torch=={wanted}"], step)
        if status == 0:
            return wanted
        if torch_build.says_not_offered(output, wanted):
            return ordinary
    # Not an answer about torch: ask again in a way that reports what is wrong.
    session.uv_pip([*arguments, f"torch=={ordinary}"], step)
    return ordinary


def _locked_arguments(place: Layout, torch: str) -> list[str]:
    """Return the options that install the locks which go with a build of torch."""
    names = ["all.lock"] if torch.endswith("+cpu") else ["all.lock", "torch.lock"]
    files = [option for name in names for option in ("-r", str(place.requirements / name))]
    return ["--require-hashes", *files]


def _require_room(session: Session, interpreter: Path, torch: str) -> bool:
    """Refuse to go on where the disk is too full; return whether all packages are in the cache.

    Raises:
        SetupFailure: With how much is missing.
    """
    place = session.layout
    step = session.step("Checking the free space")
    arguments = ["install", "--dry-run", "--offline", "--no-deps", "--no-build"]
    arguments += ["--python", str(interpreter)]
    wanted = [_locked_arguments(place, torch)]
    if torch.endswith("+cpu"):
        wanted.append([f"torch=={torch}"])
    answers = [session.attempt_uv_pip([*arguments, *names], step) for names in wanted]
    cached = all(status == 0 and "Would download" not in output for status, output in answers)
    cache_folder = session.run([str(session.uv), "cache", "dir"], step).strip().splitlines()[-1]
    environment, cache = disk.room(place.next_environment), disk.room(Path(cache_folder))
    total_bytes = disk.CPU_BYTES if torch.endswith("+cpu") else disk.FULL_BYTES
    needs_bytes = disk.needed_bytes(environment, cache, total_bytes=total_bytes, cached=cached)
    try:
        disk.require((environment, cache), needs_bytes)
    except SetupFailure:
        step.abandon()
        raise
    step.done("enough")
    return cached


def _install_project(session: Session, environment: Path, step: Step) -> None:
    """Install the checkout as a link, with its commands and entry points."""
    options = ["--no-deps", "--no-build-isolation", "--offline", "--python"]
    interpreter = environment / "bin" / "python"
    session.uv_pip(
        ["install", *options, str(interpreter), "--editable", str(session.layout.root)], step
    )
