"""One run of the set-up: where it writes, how it reports, with what uv it works."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from trierarch_setup import commands, pip_settings
from trierarch_setup.failures import SetupFailure, explain
from trierarch_setup.layout import Layout, remove
from trierarch_setup.progress import Step

_MISLEADING = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH")
"""Variables of another environment that may be active in the user's shell."""


@dataclasses.dataclass
class Session:
    """What every part of a run needs.

    Attributes:
        layout: Paths of the checkout.
        inherited: The user's environment variables.
        stream: Where progress goes.
        lock_descriptor: Held until the process and its children have ended.
    """

    layout: Layout
    inherited: Mapping[str, str]
    stream: TextIO
    lock_descriptor: int

    def __post_init__(self) -> None:
        self._uv_settings: pip_settings.UvSettings | None = None
        self._pip_listing: str | None = None
        self.variables = {
            name: value for name, value in self.inherited.items() if name not in _MISLEADING
        }

    def step(self, name: str) -> Step:
        """Begin a named step."""
        return Step(name, self.stream, live=self.stream.isatty())

    def run(self, command: Sequence[str], step: Step) -> str:
        """Run a command to its end and return what it printed.

        Raises:
            SetupFailure: If it fails.
        """
        return self._succeed(step, *self.attempt(command, step))

    def attempt(
        self, command: Sequence[str], step: Step, more: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Run a command and return its exit status and what it printed, whatever it was.

        Args:
            command: Program and arguments.
            step: Kept alive meanwhile.
            more: Variables beside the inherited ones.
        """
        return commands.attempt(
            command,
            step=step,
            log_file=self.layout.log_file,
            environment={**self.variables, **(more or {})},
            keep_open=(self.lock_descriptor,),
        )

    def uv_pip(self, arguments: Sequence[str], step: Step) -> str:
        """Run ``uv pip`` with the meaning of pip's configuration.

        Raises:
            SetupFailure: If it fails.
        """
        return self._succeed(step, *self.attempt_uv_pip(arguments, step))

    def attempt_uv_pip(self, arguments: Sequence[str], step: Step) -> tuple[int, str]:
        """Run ``uv pip`` and return its exit status and what it printed."""
        settings = self._settings()
        verb, *rest = arguments
        command = [str(self.uv), "pip", verb, *settings.options, *rest]
        return self.attempt(command, step, settings.environment)

    def _succeed(self, step: Step, status: int, output: str) -> str:
        """Return a command's output, or explain why it failed."""
        if status != 0:
            step.abandon()
            raise SetupFailure(explain(step.name, output, status, self.layout.log_file))
        return output

    @property
    def uv(self) -> Path:
        """The pinned uv."""
        return self.layout.bootstrap / "bin" / "uv"

    def _settings(self) -> pip_settings.UvSettings:
        """Read pip's configuration, once."""
        if self._uv_settings is None:
            self._uv_settings = pip_settings.translate(
                pip_settings.parse(self.pip_listing() or ""),
                self.inherited,
                is_folder=lambda path: Path(path).expanduser().is_dir(),
                has_system_certificates=_has_system_certificates(),
            )
        return self._uv_settings

    def pip_listing(self) -> str | None:
        """Return ``pip config list``, or None where no Python at hand has a pip.

        The Python that runs this may be a virtual environment's without pip, such as the one
        that this set-up makes: then the one it was made from is asked.
        """
        base = getattr(sys, "_base_executable", sys.executable)
        for interpreter in (sys.executable, base, str(self.layout.bootstrap / "bin" / "python")):
            if self._pip_listing is None:
                self._pip_listing = self._pip_listing_of(interpreter)
        return self._pip_listing

    def has_pip(self) -> bool:
        """Tell whether the Python that runs this has pip."""
        return self._pip_listing_of(sys.executable) is not None

    def _pip_listing_of(self, interpreter: str) -> str | None:
        try:
            answer = subprocess.run(  # noqa: S603
                [interpreter, "-m", "pip", "config", "list"],
                capture_output=True,
                text=True,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except OSError:
            return None
        return answer.stdout if answer.returncode == 0 else None


def _has_system_certificates() -> bool:
    """Tell whether this machine has a store of certificates, as its administrators keep it."""
    paths = ssl.get_default_verify_paths()
    file: str | None = paths.cafile
    folder: str | None = paths.capath
    if file is not None:
        return True
    return folder is not None and any(Path(folder).iterdir())


@contextmanager
def locked(layout: Layout, stream: TextIO) -> Iterator[int]:
    """Hold the checkout's lock; wait for another set-up that holds it.

    Yields:
        The lock's file descriptor.
    """
    layout.work.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(layout.lock_file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _try_lock(descriptor):
            step = Step("waiting for another set-up of this checkout", stream, stream.isatty())
            while not _try_lock(descriptor):
                time.sleep(commands.POLL_SECONDS)
                step.tick()
            step.done("it has ended")
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Take the lock if it is free."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def ensure_uv(session: Session) -> None:
    """Install the pinned uv unless it is there and works.

    Raises:
        SetupFailure: If it cannot be installed.
    """
    lock = session.layout.requirements / "bootstrap.lock"
    version = pinned_uv(lock.read_text())
    # Without any pip at hand nobody could say what its configuration is: fetch one along.
    if _uv_version(session.uv) == version and session.pip_listing() is not None:
        return
    bootstrap = session.layout.bootstrap
    remove(bootstrap)
    step = session.step(f"Fetching the installer (uv {version})")
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", str(lock)]
    # Debian ships pip and venv apart: a Python may have either.
    if session.has_pip():
        session.run([sys.executable, *install, "--target", str(bootstrap)], step)
    elif session.attempt([sys.executable, "-m", "venv", str(bootstrap)], step)[0] == 0:
        session.run([str(bootstrap / "bin" / "python"), *install], step)
    else:
        step.abandon()
        raise SetupFailure(
            f"{sys.executable} has neither `pip` nor a working `venv` module: install one "
            "(on Debian and Ubuntu the package python3-venv) and run the command again."
        )
    if _uv_version(session.uv) != version:
        raise SetupFailure(
            f"uv {version} was installed but does not run on this machine. "
            f"Full log: {session.layout.log_file}"
        )
    step.done()


def pinned_uv(bootstrap_lock: str) -> str:
    """Return the version of uv that the bootstrap lock pins.

    Raises:
        SetupFailure: If it pins none.
    """
    for line in bootstrap_lock.splitlines():
        name, separator, rest = line.partition("==")
        if name == "uv" and separator:
            return rest.split()[0]
    raise SetupFailure("requirements/bootstrap.lock pins no uv: restore it from the repository.")


def _uv_version(uv: Path) -> str | None:
    """Return the version that a uv says it has, or None if it does not run."""
    try:
        answer = subprocess.run(  # noqa: S603
            [uv, "--version"], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    words = answer.stdout.split()
    return words[1] if answer.returncode == 0 and len(words) > 1 else None
