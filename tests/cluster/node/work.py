"""Run the set-up's long commands: progress for the user, output for the log, no orphans."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from tests.cluster.lock_file import locked
from tests.cluster.node.place import Place
from tests.cluster.old_versions import mark_used

from trierarch_setup.commands import attempt
from trierarch_setup.progress import Step

TAIL_LINES = 12
"""How much of a failed command's output the error repeats."""


class ClusterFailure(Exception):
    """The cluster cannot be made or used; the message is for the person who has to act."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What every step of the set-up needs.

    Attributes:
        place: The cluster's names and folders.
        stream: Where progress is written.
    """

    place: Place
    stream: TextIO = dataclasses.field(default_factory=lambda: sys.stdout)

    def say(self, sentence: str) -> None:
        """Tell the user one thing."""
        print(sentence, file=self.stream, flush=True)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Announce a step, and close it with its duration."""
        step = Step(name, self.stream, live=self.stream.isatty())
        try:
            yield step
        except BaseException:
            step.abandon()
            raise
        step.done()

    def run(
        self,
        step: Step,
        command: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Run one command of a step, which ends no later than this process.

        Args:
            step: Kept alive meanwhile.
            command: Program and arguments.
            environment: Added to this process's own.

        Returns:
            What the command printed.

        Raises:
            ClusterFailure: If the command fails; with the end of its output.
        """
        words = [str(word) for word in command]
        status, output = attempt(
            words,
            step=step,
            log_file=self.place.log,
            environment={**os.environ, **(environment or {})},
        )
        if status != 0:
            tail = "\n".join(output.strip().splitlines()[-TAIL_LINES:])
            raise ClusterFailure(
                f"{step.name} failed: {words[0]} ended with {status}, see {self.place.log}\n{tail}"
            )
        return output

    @contextlib.contextmanager
    def making(self, target: Path) -> Iterator[Path | None]:
        """Make a cached file or folder once, whole or not at all.

        Yields:
            Where to make it, or None if it is already there. Leftovers of a killed attempt are
            deleted; a second process waits for the first.
        """
        self._note_use(target)
        if target.exists():
            yield None
            return
        what = f"the making of {target.name}"
        with locked(target.parent / f".{target.name}.lock", self.stream, what):
            if target.exists():
                yield None
                return
            for leftover in target.parent.glob(f".{target.name}.making-*"):
                shutil.rmtree(leftover)
            folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.making-", dir=target.parent))
            try:
                made = folder / target.name
                yield made
                made.replace(target)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _note_use(self, target: Path) -> None:
        """Keep a cached file from being deleted as one of an older version."""
        mark_used(target)
        if self.place.state.exists():
            with (self.place.state / "uses").open("a") as note:
                note.write(f"{target.name}\n")
