"""A recorded trace, replayed: its own arrival times and lengths instead of drawn ones.

Reads the Azure LLM trace (CSV), the Mooncake trace (JSON lines), and a plain CSV
with ``seconds,input_tokens,output_tokens``; each also gzipped. Prompts get the
recorded length but new words: prefix sharing inside a trace is not replayed.
"""

import csv
import dataclasses
import datetime
import gzip
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from trierarch_loadtests.errors import UsageError
from trierarch_loadtests.shapes.stages import ShapeModel, Stage

WINDOWS = 24
"""Rows of the table that a trace is summed up in; arrivals inside a row stay exact."""


@dataclasses.dataclass(frozen=True, slots=True)
class TraceRequest:
    """One recorded request."""

    seconds: float
    input_tokens: int
    output_tokens: int


class TraceReplayShape(ShapeModel):
    """Which trace, how fast, and the longest request that the model under test can take."""

    kind: Literal["trace_replay"]
    path: str
    speed: PositiveFloat = 1.0
    duration_seconds: PositiveFloat
    maximum_input_tokens: PositiveInt
    maximum_output_tokens: PositiveInt
    jitter_seconds: NonNegativeFloat = 0.0
    """Spread of recorded times, for a trace whose clock ticks coarsely (Mooncake: 3)."""

    def requests(
        self, trace: Sequence[TraceRequest], generator: random.Random
    ) -> list[TraceRequest]:
        """Return what to send and when, sorted, cut to the duration and to the longest lengths."""
        moved = [
            (request.seconds + generator.uniform(0.0, self.jitter_seconds), request)
            for request in trace
        ]
        moved.sort(key=lambda timed: timed[0])
        return [
            TraceRequest(
                seconds=seconds / self.speed,
                input_tokens=max(1, min(self.maximum_input_tokens, request.input_tokens)),
                output_tokens=max(1, min(self.maximum_output_tokens, request.output_tokens)),
            )
            for seconds, request in moved
            if seconds / self.speed < self.duration_seconds
        ]

    def stages(self, requests: Sequence[TraceRequest]) -> list[Stage]:
        """Return the table that sums the replayed requests up."""
        row_seconds = self.duration_seconds / WINDOWS
        counts = [0] * WINDOWS
        for request in requests:
            counts[min(WINDOWS - 1, int(request.seconds / row_seconds))] += 1
        return [
            Stage(f"window_{index:02d}", row_seconds, count / row_seconds)
            for index, count in enumerate(counts)
        ]

    def with_path(self, path: str) -> Self:
        """Return the shape for another trace."""
        return self.model_copy(update={"path": path})


def read_trace(path: Path) -> list[TraceRequest]:
    """Read a trace file, its first request at second zero.

    Raises:
        UsageError: If the file is missing, empty or of no known format.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = raw.decode().splitlines()
        requests = _parse_jsonl(lines) if ".jsonl" in path.suffixes else _parse_csv(lines)
    except OSError as error:
        raise UsageError(f"cannot read trace {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"trace {path} is not in a known format: {error}") from error
    if not requests:
        raise UsageError(f"trace {path} holds no requests")
    start = min(request.seconds for request in requests)
    return [dataclasses.replace(request, seconds=request.seconds - start) for request in requests]


def _parse_jsonl(lines: Iterable[str]) -> list[TraceRequest]:
    rows = [json.loads(line) for line in lines if line.strip()]
    return [
        TraceRequest(row["timestamp"] / 1000.0, int(row["input_length"]), int(row["output_length"]))
        for row in rows
    ]


def _parse_csv(lines: Iterable[str]) -> list[TraceRequest]:
    reader = csv.DictReader(lines)
    columns = set(reader.fieldnames or ())
    if {"TIMESTAMP", "ContextTokens", "GeneratedTokens"} <= columns:
        return [
            TraceRequest(
                _azure_seconds(row["TIMESTAMP"]),
                int(row["ContextTokens"]),
                int(row["GeneratedTokens"]),
            )
            for row in reader
        ]
    if {"seconds", "input_tokens", "output_tokens"} <= columns:
        return [
            TraceRequest(float(row["seconds"]), int(row["input_tokens"]), int(row["output_tokens"]))
            for row in reader
        ]
    raise ValueError(f"columns {', '.join(sorted(columns)) or 'none'} are not of a known trace")


def _azure_seconds(stamp: str) -> float:
    # Seven fractional digits: one more than the standard library reads on every version.
    whole, _, fraction = stamp.partition(".")
    instant = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.UTC)
    return instant.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)
