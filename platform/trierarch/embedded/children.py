"""A child process: started, watched, restarted with a delay, ended in good order."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path

from trierarch.core.clock import Clock
from trierarch.core.errors import Unavailable
from trierarch.embedded import launch, leftovers
from trierarch.embedded.folder import RunFolder
from trierarch.embedded.options import ChildSpec
from trierarch.settings.embedded import EmbeddedSettings

_LOG_TAIL_BYTES = 4096
_LOG_TAIL_LINES = 8
_KEPT_LOGS = 3


class Child:
    """Keeps one process running.

    Args:
        spec: The process.
        logs_dir: Where its log file is.
        clock: For delays.
        settings: For limits.
    """

    def __init__(
        self, spec: ChildSpec, logs_dir: Path, clock: Clock, settings: EmbeddedSettings
    ) -> None:
        self.spec = spec
        self.log_path = logs_dir / f"{spec.name}.log"
        self._clock = clock
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._crashes_seconds: deque[float] = deque()
        self._restart_at_seconds: float | None = None

    @property
    def pid(self) -> int | None:
        """Process id; None while it does not run."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it; call from the main thread, whose end the kernel takes for the parent's."""
        self._restart_at_seconds = None
        death_signal = signal.SIGTERM if self.spec.is_asked_first else signal.SIGKILL
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own command, no shell
                build_launch_command(self.spec.command, death_signal),
                env=dict(self.spec.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A terminal's Ctrl-C is for the supervisor, which ends its children in order.
                process_group=0,
            )

    def watch(self) -> str | None:
        """Notice a crash and restart when it is time; return a line for the log, if any.

        Raises:
            Unavailable: If it crashes again and again; the message ends with its last log lines.
        """
        now_seconds = self._clock.monotonic_seconds()
        if self._restart_at_seconds is not None:
            if now_seconds >= self._restart_at_seconds:
                self.start()
            return None
        if self._process is None or (code := self._process.poll()) is None:
            return None
        self._process = None
        self._crashes_seconds.append(now_seconds)
        while now_seconds - self._crashes_seconds[0] > self._settings.crash_window_seconds:
            self._crashes_seconds.popleft()
        crashes = len(self._crashes_seconds)
        ended = describe_end(code)
        if crashes >= self._settings.crash_limit:
            raise Unavailable(
                f"{self.spec.name} {ended}, {crashes} times in a minute;"
                f" see {self.log_path}, which ends with:\n{read_log_tail(self.log_path)}"
            )
        delay_seconds = self._settings.restart_delay_seconds * 2 ** (crashes - 1)
        self._restart_at_seconds = now_seconds + delay_seconds
        return f"{self.spec.name} {ended}; starting it again in {delay_seconds:g} s"

    def ask_to_end(self) -> None:
        """Ask it to end and do not start it again."""
        self._restart_at_seconds = None
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    def restart(self) -> None:
        """End it at once and start it again at the next look, not counted as a crash."""
        if self._process is not None:
            self.kill()
            self._restart_at_seconds = self._clock.monotonic_seconds()

    def kill(self) -> None:
        """End it at once."""
        self._restart_at_seconds = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def has_ended(self) -> bool:
        """Return whether it does not run."""
        return self._process is None or self._process.poll() is not None


def build_launch_command(command: tuple[str, ...], death_signal: signal.Signals) -> list[str]:
    """Return the command that runs another one which cannot outlive this process."""
    launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid())]
    return [*launcher, str(int(death_signal)), *command]


@dataclasses.dataclass(slots=True)
class Guard:
    """Ends what a run leaves if its supervisor dies suddenly.

    Attributes:
        process: Reads the pipe whose other end dies with the supervisor.
    """

    process: subprocess.Popen[bytes]

    @staticmethod
    def start(folder: RunFolder, run_id: str) -> Guard:
        """Start it, in a session of its own, so that no terminal ends it."""
        command = [sys.executable, "-I", "-S", leftovers.__file__]
        command += [str(folder.data_dir), run_id, str(folder.ray_temp_dir)]
        return Guard(
            subprocess.Popen(  # noqa: S603  # our own command, no shell
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def dismiss(self) -> None:
        """End it: everything is ended already."""
        stream = self.process.stdin
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.write(b"0")
                stream.close()
        self.process.wait()


def describe_end(code: int) -> str:
    """Return how a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def rotate_log(path: Path) -> None:
    """Put an earlier run's log aside; the last few are kept."""
    if not path.exists():
        return
    for number in range(_KEPT_LOGS - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    path.replace(path.with_name(f"{path.name}.1"))


def read_log_tail(path: Path) -> str:
    """Return the last lines of a log, indented."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"  (it cannot be read: {error.strerror})"
    return "\n".join(f"  {line}" for line in text.splitlines()[-_LOG_TAIL_LINES:])
