"""Text fields to numbers, and the checks every trace has to pass.

A field that is not a number, is not finite or is negative ends the reading with
the line it stands on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trierarch.core.errors import InvalidInput
from trierarch.simulation.traces.trace import Floats, Integers, Trace

MAXIMUM_TOKENS = 100_000_000
"""More than any context window: a larger count is a damaged file."""
COARSE_TICK_SECONDS = 0.5
"""A clock that ticks at least this coarsely bunches independent requests."""


def parse_numbers(path: Path, field: str, texts: Sequence[str], first_line: int) -> Floats:
    """Return one finite number per text.

    Raises:
        InvalidInput: Naming the first line whose field is not one.
    """
    try:
        numbers = np.array(texts, dtype=np.float64)
    except ValueError:
        for index, text in enumerate(texts):
            try:
                float(text)
            except ValueError as error:
                raise InvalidInput(
                    f"{path} line {first_line + index}: {field} is {text!r}, not a number"
                ) from error
        raise
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise InvalidInput(
            f"{path} line {first_line + bad[0]}: {field} is {texts[bad[0]]!r}, not a finite number"
        )
    return numbers


def check_tokens(path: Path, field: str, numbers: Floats, first_line: int) -> Integers:
    """Return whole, non-negative token counts.

    Raises:
        InvalidInput: Naming the first line whose count is negative, broken or absurd.
    """
    bad = np.flatnonzero(
        (numbers < 0) | (numbers != np.floor(numbers)) | (numbers > MAXIMUM_TOKENS)
    )
    if len(bad):
        value = numbers[bad[0]]
        raise InvalidInput(
            f"{path} line {first_line + bad[0]}: {field} is {value:g}; "
            f"token counts are whole numbers from 0 to {MAXIMUM_TOKENS}"
        )
    return numbers.astype(np.int64)


def parse_instants(path: Path, field: str, texts: Sequence[str], first_line: int) -> Floats:
    """Return ISO date-times as seconds since 1970; a UTC offset of zero may be written.

    Raises:
        InvalidInput: Naming the first line whose field is not a date-time.
    """
    plain = [text.strip().removesuffix("+00:00").removesuffix("Z") for text in texts]
    try:
        instants = np.array(plain, dtype="datetime64[ns]")
    except ValueError:
        for index, text in enumerate(plain):
            try:
                np.datetime64(text, "ns")
            except ValueError as error:
                raise InvalidInput(
                    f"{path} line {first_line + index}: "
                    f"{field} is {texts[index]!r}, not a date and time"
                ) from error
        raise
    bad = np.flatnonzero(np.isnat(instants))
    if len(bad):
        raise InvalidInput(f"{path} line {first_line + bad[0]}: {field} is empty")
    # Whole seconds and the rest apart: a double cannot hold nanoseconds since 1970.
    seconds = instants.astype("datetime64[s]")
    rest = (instants - seconds).astype(np.int64) / 1e9
    return np.asarray(seconds.astype(np.int64).astype(np.float64) + rest)


def check_order(path: Path, seconds: Floats, first_line: int) -> None:
    """Refuse times that go back.

    Raises:
        InvalidInput: Naming the first line that does.
    """
    back = np.flatnonzero(np.diff(seconds) < 0)
    if len(back):
        index = int(back[0])
        step = seconds[index] - seconds[index + 1]
        raise InvalidInput(
            f"{path} line {first_line + index + 1}: goes back in time by {step:g} s; "
            "sort the file by time"
        )


def spread_coarse_clock(trace: Trace, seed: int) -> Trace:
    """Return the trace with times spread evenly inside the ticks of a clock that ticks coarsely."""
    tick_seconds = clock_tick_seconds(trace.arrival_seconds)
    if tick_seconds < COARSE_TICK_SECONDS:
        return trace
    generator = np.random.default_rng([seed, 0x71C4])
    moved = trace.arrival_seconds + generator.uniform(0.0, tick_seconds, len(trace))
    note = f"times spread inside the clock's ticks of {tick_seconds:g} s"
    moved = np.sort(moved)
    return dataclasses.replace(trace, arrival_seconds=moved - moved[0], notes=(*trace.notes, note))


def clock_tick_seconds(arrival_seconds: Floats) -> float:
    """Return the step of the recording clock: the smallest gap between different times."""
    gaps = np.diff(np.unique(arrival_seconds))
    return float(gaps.min()) if len(gaps) else 0.0
