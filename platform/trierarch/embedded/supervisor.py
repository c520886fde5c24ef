"""Keeps a set of processes running until it is told to end, and then ends all of them.

Knows nothing about what the processes are. However a run ends, nothing of it
stays: children are asked in reverse order, then killed, then whatever carries
the run's marker is; a guard does the last part if this process is killed.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from trierarch.core.clock import Clock
from trierarch.core.errors import Unavailable
from trierarch.embedded.children import Child, Guard, rotate_log
from trierarch.embedded.folder import RunFolder
from trierarch.embedded.leftovers import end_processes, find_processes
from trierarch.embedded.options import ChildSpec
from trierarch.settings.embedded import EmbeddedSettings


class Interrupted(BaseException):
    """Somebody asked the run to end.

    Like ``KeyboardInterrupt`` no ``Exception``, so that nothing on the way takes it for a failure.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """Turns the first signal into ``Interrupted`` and remembers whether a second one came."""

    def __init__(self) -> None:
        self._count = 0
        self._is_ending = False
        self.first: int | None = None

    @contextmanager
    def installed(self) -> Iterator[Signals]:
        """Take SIGINT, SIGTERM and SIGHUP; restores what was there before."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._receive) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def begin_ending(self) -> None:
        """From now on signals only hurry."""
        self._is_ending = True

    def is_hurried(self) -> bool:
        """Return whether somebody asked twice."""
        return self._count > 1

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self.first is None:
            self.first = number
        if not self._is_ending and self._count == 1:
            raise Interrupted(number)


class Supervisor:
    """Runs children.

    Args:
        folder: Of the run.
        run_id: Marks its processes.
        clock: For delays and limits.
        settings: For delays and limits.
        signals: Says when to hurry.
        report: Called with a line for people.

    Attributes:
        run_id: Marks its processes.
        children: By name.
        is_ready: Whether the run does what it was started for; set by its owner.
    """

    def __init__(
        self,
        folder: RunFolder,
        run_id: str,
        clock: Clock,
        settings: EmbeddedSettings,
        signals: Signals,
        report: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self.run_id = run_id
        self._clock = clock
        self._settings = settings
        self._signals = signals
        self._report = report
        self._guard: Guard | None = None
        self._pause = threading.Event()
        self.is_ready = False
        self.children: dict[str, Child] = {}

    def __enter__(self) -> Supervisor:
        """Start the guard."""
        self._guard = Guard.start(self._folder, self.run_id)
        return self

    def __exit__(self, *_: object) -> None:
        """End everything."""
        self._signals.begin_ending()
        self._end()
        if self._guard is not None:
            self._guard.dismiss()

    def start(self, specs: Sequence[ChildSpec]) -> None:
        """Start children in this order."""
        for spec in specs:
            child = Child(spec, self._folder.logs_dir, self._clock, self._settings)
            rotate_log(child.log_path)
            self.children[spec.name] = child
            child.start()

    def watch(self) -> None:
        """Look at every child once and wait a moment.

        Raises:
            Unavailable: If one crashes again and again.
        """
        for child in self.children.values():
            line = child.watch()
            if line is not None:
                self._report(line)
                for name in child.spec.restart_with:
                    if name in self.children:
                        self.children[name].restart()
        self._pause.wait(self._settings.poll_interval_seconds)

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_seconds: float) -> None:
        """Watch until something holds.

        Raises:
            Unavailable: If it takes too long or a child crashes again and again.
        """
        deadline_seconds = self._clock.monotonic_seconds() + timeout_seconds
        while not condition():
            if self._clock.monotonic_seconds() > deadline_seconds:
                raise Unavailable(
                    f"{what} was not ready within {timeout_seconds:.0f} s;"
                    f" see the logs in {self._folder.logs_dir}"
                )
            self.watch()

    def _end(self) -> None:
        for child in reversed(self.children.values()):
            child.ask_to_end()
            rounds = round(child.spec.drain_seconds / self._settings.poll_interval_seconds)
            for _ in range(rounds):
                if child.has_ended() or self._signals.is_hurried():
                    break
                self._pause.wait(self._settings.poll_interval_seconds)
            child.kill()
        living = end_processes(
            lambda: find_processes(str(self._folder.data_dir), self.run_id),
            is_hurried=self._signals.is_hurried,
        )
        if living:
            self._report(f"{living} processes could not be ended")
