"""One row for each request of a run, so that the same load can be replayed elsewhere.

The first three columns are those of any trace of requests; the rest say what
became of it. Rows go to the file as they come: a run of hours holds none of them
in memory, and one that is killed leaves those it had.
"""

import array
import csv
import dataclasses
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FILE_NAME = "requests.csv"
DROPPED = "dropped"
"""Outcome of a planned request that was never sent."""


@dataclasses.dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One planned request, and what came of it; ``None`` where there is no such time.

    Attributes:
        arrival_seconds: Planned start, from the start of the run.
        input_tokens: As the server counted them, else as planned.
        output_tokens: The same.
        tier: Lane that was asked for; empty for the endpoint's default.
        outcome: An ``Outcome``, or ``dropped`` if it was never sent.
    """

    arrival_seconds: float
    input_tokens: int
    output_tokens: int
    tier: str
    kind: str
    stage: str
    outcome: str
    start_lag_seconds: float | None = None
    ttft_seconds: float | None = None
    tpot_seconds: float | None = None
    latency_seconds: float | None = None
    variant: str | None = None


COLUMNS = tuple(field.name for field in dataclasses.fields(RecordedRequest))


class Recording:
    """The file of a run's requests, open until it is closed.

    Of every row only its planned start and its place in the file are remembered, which is
    what puts the file in order at the end: requests end in another order than they start.

    Args:
        directory: Of the run's results; made if it does not exist.

    Raises:
        OSError: If the file cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / FILE_NAME
        self._file = self.path.open("wb")
        self._header = _line(COLUMNS)
        self._file.write(self._header)
        self._starts_seconds = array.array("d")
        self._ends_bytes = array.array("Q")

    def add(self, requests: Iterable[RecordedRequest]) -> None:
        """Write rows.

        Raises:
            OSError: If they cannot be written.
        """
        end_bytes = self._ends_bytes[-1] if self._ends_bytes else len(self._header)
        for request in requests:
            line = _line(to_message(request))
            self._file.write(line)
            end_bytes += len(line)
            self._starts_seconds.append(request.arrival_seconds)
            self._ends_bytes.append(end_bytes)
        self._file.flush()

    def close(self) -> None:
        """Put the rows in order of their planned starts and close the file.

        Raises:
            OSError: If that cannot be written; the rows are then in order of their ends.
        """
        self._file.close()
        starts, ends = self._starts_seconds, self._ends_bytes
        order = sorted(range(len(starts)), key=starts.__getitem__)
        ordered = self.path.with_suffix(".ordered")
        with self.path.open("rb") as rows, ordered.open("wb") as file:
            file.write(self._header)
            for index in order:
                begin_bytes = ends[index - 1] if index else len(self._header)
                rows.seek(begin_bytes)
                file.write(rows.read(ends[index] - begin_bytes))
        ordered.replace(self.path)


def _line(values: Iterable[Any]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


def to_message(request: RecordedRequest) -> list[Any]:
    """Return plain values that survive a message between processes."""
    return list(dataclasses.astuple(request))
