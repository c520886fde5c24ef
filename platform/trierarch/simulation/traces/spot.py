"""Spot-capacity traces: how much a cloud would give, and what it took back.

Two published kinds: add and remove events of single nodes (AWS), and the number
of nodes held over time by a group that always asks for its target (GCP). Both
become shares, so that a trace of 32 nodes can drive a fleet of any size.
"""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np

from trierarch.core.errors import InvalidInput
from trierarch.simulation.traces.columns import check_order, parse_instants, parse_numbers
from trierarch.simulation.traces.files import csv_chunks, open_text, stem
from trierarch.simulation.traces.trace import Floats


@dataclasses.dataclass(frozen=True, slots=True)
class SpotTrace:
    """Spot capacity as shares of the most that was ever held.

    Attributes:
        name: For people.
        time_seconds: Instants of change, from 0.
        available_ratio: Share of the full capacity that is held from then on.
        lost_ratio: Share of what was held that was taken back at that instant.
        duration_seconds: Where the recording ends and repeats.
    """

    name: str
    time_seconds: Floats
    available_ratio: Floats
    lost_ratio: Floats
    duration_seconds: float


def read_spot_trace(path: Path) -> SpotTrace:
    """Return the spot trace in ``path``.

    Raises:
        InvalidInput: If it is in neither known format or cannot be trusted.
    """
    with open_text(path) as lines:
        first = lines.readline()
        fields = [field.strip() for field in next(csv.reader([first]), [])]
        if len(fields) != 3:
            raise InvalidInput(
                f"{path}: not a spot trace: expected time_ms,add|remove,node or date,time,count"
            )
        lines.seek(0)
        chunks = list(csv_chunks(path, lines, [0, 1, 2], 3))
    texts = [[text for chunk in chunks for text in chunk[1][column]] for column in range(3)]
    if {kind.strip() for kind in texts[1]} <= {"add", "remove"}:
        return _from_events(path, texts)
    return _from_counts(path, texts)


def _from_events(path: Path, texts: list[list[str]]) -> SpotTrace:
    times = parse_numbers(path, "time_ms", texts[0], 1) / 1e3
    check_order(path, times, 1)
    steps = np.array([1 if kind.strip() == "add" else -1 for kind in texts[1]])
    instants, first_rows = np.unique(times, return_index=True)
    added = np.add.reduceat(np.where(steps > 0, 1, 0), first_rows)
    removed = np.add.reduceat(np.where(steps < 0, 1, 0), first_rows)
    held = np.cumsum(added - removed)
    if (held < 0).any():
        raise InvalidInput(f"{path}: more nodes removed than added")
    before = np.concatenate(([0], held[:-1])) + added
    return _shares(path, instants, held, removed / np.maximum(before, 1))


def _from_counts(path: Path, texts: list[list[str]]) -> SpotTrace:
    stamps = [
        f"{date.strip()} {time.strip()}" for date, time in zip(texts[0], texts[1], strict=True)
    ]
    times = parse_instants(path, "date and time", stamps, 1)
    check_order(path, times, 1)
    held = parse_numbers(path, "count", [text.strip() for text in texts[2]], 1)
    if (held < 0).any():
        raise InvalidInput(f"{path}: a count of nodes cannot be negative")
    before = np.concatenate((held[:1], held[:-1]))
    return _shares(
        path, times - times[0], held, np.maximum(before - held, 0) / np.maximum(before, 1)
    )


def _shares(path: Path, times: Floats, held: Floats, lost_ratio: Floats) -> SpotTrace:
    most = held.max()
    if most <= 0:
        raise InvalidInput(f"{path}: no node was ever held")
    return SpotTrace(stem(path), times, held / most, lost_ratio, float(times[-1]))
