"""One request per JSON line: Mooncake and Qwen-Bailian, both with prefix blocks.

They share their keys and differ in units: Mooncake counts milliseconds and
hashes blocks of 512 tokens, Qwen-Bailian (told by its ``chat_id``) counts
seconds and hashes blocks of 16. Mooncake's conversation trace was recorded by a
clock of 3 s ticks; its requests are spread inside the tick they fell into.
"""

from __future__ import annotations

import dataclasses
import json
from array import array
from pathlib import Path

import numpy as np

from trierarch.core.errors import InvalidInput
from trierarch.simulation.traces.columns import (
    check_tokens,
    spread_coarse_clock,
)
from trierarch.simulation.traces.files import open_text, stem
from trierarch.simulation.traces.trace import Trace, build_trace


@dataclasses.dataclass(frozen=True, slots=True)
class Dialect:
    """Names and units of one source."""

    source_format: str
    time: str
    input_tokens: str
    output_tokens: str
    seconds_per_unit: float
    block_tokens: int


DIALECTS = (
    (
        {"chat_id", "timestamp", "input_length", "output_length"},
        Dialect("qwen-bailian", "timestamp", "input_length", "output_length", 1.0, 16),
    ),
    (
        {"timestamp", "input_length", "output_length"},
        Dialect("mooncake", "timestamp", "input_length", "output_length", 1e-3, 512),
    ),
    (
        {"arrival_seconds", "input_tokens", "output_tokens"},
        Dialect("jsonl", "arrival_seconds", "input_tokens", "output_tokens", 1.0, 512),
    ),
)


def read(path: Path, keys: frozenset[str], *, seed: int) -> Trace:
    """Return the requests of a JSON-lines file whose first row has ``keys``.

    Raises:
        InvalidInput: At the first line that cannot be trusted.
    """
    dialect = next((dialect for wanted, dialect in DIALECTS if wanted <= keys), None)
    if dialect is None:
        raise InvalidInput(
            f"{path}: keys {', '.join(sorted(keys))[:120]!r} are not those of a known trace: "
            "timestamp, input_length, output_length"
        )
    times, inputs, outputs = array("d"), array("d"), array("d")
    block_ids, offsets = array("q"), array("q", [0])
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                times.append(float(row[dialect.time]) * dialect.seconds_per_unit)
                inputs.append(float(row[dialect.input_tokens]))
                outputs.append(float(row[dialect.output_tokens]))
                block_ids.extend(row.get("hash_ids") or ())
            except KeyError as error:
                raise InvalidInput(f"{path} line {number}: no {error.args[0]!r}") from error
            except (ValueError, TypeError, AttributeError, OverflowError) as error:
                raise InvalidInput(f"{path} line {number}: not a request ({error})") from error
            offsets.append(len(block_ids))
    return _finish(path, dialect, times, inputs, outputs, block_ids, offsets, seed)


def _finish(
    path: Path,
    dialect: Dialect,
    times: array[float],
    inputs: array[float],
    outputs: array[float],
    block_ids: array[int],
    offsets: array[int],
    seed: int,
) -> Trace:
    arrival_seconds = np.array(times, np.float64)
    bad = np.flatnonzero(~np.isfinite(arrival_seconds))
    if len(bad):
        raise InvalidInput(f"{path} line {bad[0] + 1}: {dialect.time} is not a finite number")
    columns = []
    for field, values in ((dialect.input_tokens, inputs), (dialect.output_tokens, outputs)):
        numbers = np.array(values, np.float64)
        not_finite = np.flatnonzero(~np.isfinite(numbers))
        if len(not_finite):
            raise InvalidInput(f"{path} line {not_finite[0] + 1}: {field} is not a finite number")
        columns.append(check_tokens(path, field, numbers, 1))
    blocks = (np.array(block_ids, np.int64), np.array(offsets, np.int64), dialect.block_tokens)
    trace = build_trace(
        stem(path),
        dialect.source_format,
        arrival_seconds,
        np.maximum(columns[0], 1),
        columns[1],
        prefix_blocks=blocks if len(block_ids) else None,
    )
    if dialect.source_format == "mooncake":
        trace = spread_coarse_clock(trace, seed)
    kept = np.flatnonzero(trace.output_tokens > 0)
    if len(kept) == len(trace):
        return trace
    if not len(kept):
        raise InvalidInput(f"{path}: no request generated anything")
    note = f"{len(trace) - len(kept)} rows without output tokens dropped"
    start = float(trace.arrival_seconds[kept[0]])
    return trace.select(kept, name=trace.name, start_seconds=start, note=note)
