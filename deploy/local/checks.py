"""Run every check and then the tests: what ``make test`` runs.

All of them run even if one fails, so that one run tells everything; the tests
come last, so that their summary closes the output. The tools of the test
cluster are built meanwhile, if they are not in the user's cache: a test that
needs one waits for it, and all others do not.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trierarch.embedded.children import build_launch_command
from trierarch_setup.installation import ROOT
from trierarch_setup.progress import describe_seconds

CHECKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("lint", ("ruff", "check", ".")),
    ("format", ("ruff", "format", "--check", ".")),
    ("types", ("mypy",)),
    ("layers", ("lint-imports",)),
)
"""Name and command of each check; the Makefile has a target for each."""

PYTEST_ARGUMENTS = ("-n", "2")
"""Two processes, until only what shares engines or nodes is left: one has that."""


def main(arguments: Sequence[str], programs: Path) -> int:
    """Run all checks and the tests and return 0 only if all hold.

    Args:
        arguments: Passed on to pytest.
        programs: Folder of the environment's commands.
    """
    with _building_tools(programs):
        failed = [name for name, command in CHECKS if not _holds(name, command, programs)]
        if failed:
            print(f"failed: {', '.join(failed)} (the tests run all the same)", flush=True)
        command = [str(programs / "pytest"), *PYTEST_ARGUMENTS, *arguments]
        tests = subprocess.run(command, check=False)  # noqa: S603
    if failed and tests.returncode == 0:
        print(f"the tests passed, but these checks failed: {', '.join(failed)}", flush=True)
        return 1
    return tests.returncode


@contextmanager
def _building_tools(programs: Path) -> Iterator[None]:
    """Build the test cluster's tools beside what else runs; tests that need none do not wait.

    A build that fails says so here, and again in each test that needs its tool.
    """
    command = (str(programs / "python"), "-m", "tests.cluster.build", "--no-paths")
    building = subprocess.Popen(  # noqa: S603
        build_launch_command(command, signal.SIGTERM),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        # All tests are done: what is still not built was not needed.
        building.terminate()
        building.wait()


def _holds(name: str, command: tuple[str, ...], programs: Path) -> bool:
    """Run one check; print what it says only if it fails."""
    began_seconds = time.monotonic()
    answer = subprocess.run(  # noqa: S603
        [programs / command[0], *command[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    took = describe_seconds(time.monotonic() - began_seconds)
    holds = answer.returncode == 0
    print(f"{name}: {'ok' if holds else 'FAILED'} ({took})", flush=True)
    if not holds:
        print(answer.stdout, flush=True)
    return holds


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:], Path(sys.executable).parent))
    except KeyboardInterrupt:
        sys.exit(130)
