"""One request per CSV row: Azure, BurstGPT, load tests, and any file with the three columns.

BurstGPT keeps failed calls as rows with no response tokens; they asked for
nothing that can be replayed, so they are dropped and counted in the notes. The
same holds for rows of other files that generated nothing.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trierarch.core.errors import InvalidInput
from trierarch.simulation.traces.columns import (
    check_tokens,
    parse_instants,
    parse_numbers,
    spread_coarse_clock,
)
from trierarch.simulation.traces.files import csv_chunks, stem
from trierarch.simulation.traces.trace import Floats, Integers, Tier, TierColumn, Trace, build_trace

BURSTGPT = "burstgpt"
LOCUST = "locust"
LOCUST_COLUMNS = {"arrival_seconds", "outcome", "start_lag_seconds", "ttft_seconds"}
"""Told by these, beside the three columns: what the load tests record of every request."""
FORMATS = {
    "azure": ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    BURSTGPT: ("Timestamp", "Request tokens", "Response tokens"),
}
TIME_NAMES = ("arrival_seconds", "seconds", "timestamp_seconds", "arrival", "time", "timestamp")
INPUT_NAMES = ("input_tokens", "prompt_tokens", "input_length", "context_tokens")
OUTPUT_NAMES = ("output_tokens", "completion_tokens", "output_length", "generated_tokens")
TIER_NAMES = ("tier", "service_tier")


@dataclasses.dataclass(frozen=True, slots=True)
class Columns:
    """Which column holds what."""

    source_format: str
    time: int
    input_tokens: int
    output_tokens: int
    tier: int | None = None


def find_columns(header: Sequence[str]) -> Columns | None:
    """Return where the columns of a known format stand, or None."""
    for source_format, names in FORMATS.items():
        if all(name in header for name in names):
            return Columns(source_format, *(header.index(name) for name in names))
    lowered = [name.lower() for name in header]

    def first(names: Sequence[str]) -> int | None:
        return next((lowered.index(name) for name in names if name in lowered), None)

    time, input_tokens, output_tokens = first(TIME_NAMES), first(INPUT_NAMES), first(OUTPUT_NAMES)
    if time is None or input_tokens is None or output_tokens is None:
        return None
    source_format = LOCUST if set(header) >= LOCUST_COLUMNS else "csv"
    return Columns(source_format, time, input_tokens, output_tokens, first(TIER_NAMES))


def read(
    path: Path, lines: io.TextIOBase, header: Sequence[str], columns: Columns, *, seed: int
) -> Trace:
    """Return the rows that follow the header as a trace.

    Raises:
        InvalidInput: At the first row that cannot be trusted, or if no request is left.
    """
    wanted = [columns.time, columns.input_tokens, columns.output_tokens]
    if columns.tier is not None:
        wanted.append(columns.tier)
    parts: list[tuple[Floats, Integers, Integers, TierColumn]] = []
    for first_line, texts in csv_chunks(path, lines, wanted, len(header)):
        names = [header[index] for index in wanted]
        tiers = np.full(len(texts[0]), Tier.DEFAULT, np.int8)
        if columns.tier is not None:
            tiers = _parse_tiers(path, texts[3], first_line)
        parts.append(
            (
                _parse_times(path, names[0], texts[0], first_line),
                _parse_tokens(path, names[1], texts[1], first_line),
                _parse_tokens(path, names[2], texts[2], first_line),
                tiers,
            )
        )
    if not parts:
        raise InvalidInput(f"{path}: a header and no requests")
    times, inputs, outputs, tiers = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _finish(path, columns.source_format, times, inputs, outputs, tiers, seed)


def _finish(
    path: Path,
    source_format: str,
    times: Floats,
    inputs: Integers,
    outputs: Integers,
    tiers: TierColumn,
    seed: int,
) -> Trace:
    notes: list[str] = []
    kept = outputs > 0
    if not kept.all():
        notes.append(f"{int((~kept).sum())} rows without output tokens dropped")
    if not kept.any():
        raise InvalidInput(f"{path}: no request generated anything")
    trace = build_trace(
        stem(path),
        source_format,
        times[kept],
        np.maximum(inputs[kept], 1),
        outputs[kept],
        tiers=tiers[kept],
        notes=tuple(notes),
    )
    return spread_coarse_clock(trace, seed) if source_format == BURSTGPT else trace


def _parse_times(path: Path, field: str, texts: Sequence[str], first_line: int) -> Floats:
    if "-" in texts[0][1:] and ":" in texts[0]:
        return parse_instants(path, field, texts, first_line)
    return parse_numbers(path, field, texts, first_line)


def _parse_tokens(path: Path, field: str, texts: Sequence[str], first_line: int) -> Integers:
    return check_tokens(path, field, parse_numbers(path, field, texts, first_line), first_line)


def _parse_tiers(path: Path, texts: Sequence[str], first_line: int) -> TierColumn:
    values = {tier.name.lower(): int(tier) for tier in Tier} | {"": int(Tier.DEFAULT)}
    try:
        return np.array([values[text.strip().lower()] for text in texts], np.int8)
    except KeyError as error:
        index = next(i for i, text in enumerate(texts) if text.strip().lower() not in values)
        raise InvalidInput(
            f"{path} line {first_line + index}: tier is {error.args[0]!r}, "
            "not priority, default or flex"
        ) from error
