"""Progress for people: a moving line on a terminal, one line per step elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from trierarch.core.clock import Clock


class Step:
    """One long step that is shown while it lasts."""

    def __init__(self, console: Console, bars: Progress | None, text: str) -> None:
        self._console = console
        self._bars = bars
        self._text = text
        self._task = None if bars is None else bars.add_task(text, total=None)

    def show(self, text: str, share: float | None = None) -> None:
        """Show what is being done and the share done, 0..1, if known."""
        if self._bars is not None and self._task is not None:
            total = None if share is None else 1.0
            self._bars.update(self._task, description=text, total=total, completed=share or 0.0)
        elif text != self._text:
            self._console.print(f"  {text}", highlight=False, markup=False)
        self._text = text


class Reporter:
    """Writes to standard output.

    Args:
        clock: For durations.
    """

    def __init__(self, clock: Clock) -> None:
        self._console = Console(file=sys.stdout, soft_wrap=True)
        self._clock = clock

    @contextmanager
    def step(self, text: str) -> Iterator[Step]:
        """Show a step while it lasts, and how long it took."""
        began_seconds = self._clock.monotonic_seconds()
        if self._console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
            )
            with Progress(*columns, console=self._console, transient=True) as bars:
                yield Step(self._console, bars, text)
        else:
            self.say(f"{text} ...")
            yield Step(self._console, None, text)
        self.say(f"{text}: done in {self._clock.monotonic_seconds() - began_seconds:.1f} s")

    def say(self, line: str) -> None:
        """Write a line."""
        self._console.print(line, highlight=False, markup=False)
        self._console.file.flush()

    def write(self, piece: str) -> None:
        """Write a piece of a line."""
        self._console.file.write(piece)
        self._console.file.flush()
