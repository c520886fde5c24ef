"""One row for each request of a run, so that the same load can be replayed elsewhere.

The first three columns are those of any trace of requests; the rest say what
became of it.
"""

import csv
import dataclasses
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


def write_recording(directory: Path, requests: Iterable[RecordedRequest]) -> Path:
    """Write the rows in order of their planned start; return the file.

    Raises:
        OSError: If it cannot be written.
    """
    path = directory / FILE_NAME
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        ordered = sorted(requests, key=lambda request: request.arrival_seconds)
        writer.writerows(to_message(request) for request in ordered)
    return path


def to_message(request: RecordedRequest) -> list[Any]:
    """Return plain values that survive a message between processes."""
    return list(dataclasses.astuple(request))
