"""The columns of a request trace and the ways to cut, scale and split them.

Times are seconds from the first request. A trace is never changed in place:
every operation returns another one and notes what it did, and the notes are
printed with the results.
"""

from __future__ import annotations

import dataclasses
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
TierColumn = NDArray[np.int8]

JITTER_SECONDS = 30.0
"""Copies of a request land this far around it at most: the load per minute keeps its shape
while its users stay independent of each other."""


class Tier(IntEnum):
    """Lanes of the gateway, in the order they are served."""

    PRIORITY = 0
    DEFAULT = 1
    FLEX = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival.

    Attributes:
        name: For people: the file's name without its endings.
        source_format: Which reader made it.
        arrival_seconds: Sorted, from the first request.
        input_tokens: Prompt length.
        output_tokens: Generated length, at least 1.
        tiers: One ``Tier`` per request.
        prefix_block_ids: All requests' prefix blocks, one after the other; empty if unknown.
        prefix_block_offsets: Where each request's blocks start; one longer than the trace.
        prefix_block_tokens: Length of a prefix block; 0 if unknown.
        notes: What was dropped, moved or drawn while reading.
    """

    name: str
    source_format: str
    arrival_seconds: Floats
    input_tokens: Integers
    output_tokens: Integers
    tiers: TierColumn
    prefix_block_ids: Integers
    prefix_block_offsets: Integers
    prefix_block_tokens: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.arrival_seconds)
        if not len(self.input_tokens) == len(self.output_tokens) == len(self.tiers) == count:
            raise ValueError("the columns of a trace must have one length")
        if len(self.prefix_block_offsets) != count + 1:
            raise ValueError("prefix block offsets must be one longer than the trace")

    def __len__(self) -> int:
        return len(self.arrival_seconds)

    @property
    def duration_seconds(self) -> float:
        """Time from the first to the last request."""
        return float(self.arrival_seconds[-1]) if len(self) else 0.0

    @property
    def total_tokens(self) -> int:
        """Input plus output tokens of all requests."""
        return int(self.input_tokens.sum() + self.output_tokens.sum())

    def select(self, rows: Integers, *, name: str, start_seconds: float, note: str = "") -> Trace:
        """Return the given rows (in order of arrival), with times from ``start_seconds``."""
        lengths = np.diff(self.prefix_block_offsets)[rows]
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        ids = self.prefix_block_ids
        if len(ids):
            starts = np.repeat(self.prefix_block_offsets[:-1][rows] - offsets[:-1], lengths)
            ids = ids[starts + np.arange(offsets[-1])]
        return dataclasses.replace(
            self,
            name=name,
            arrival_seconds=self.arrival_seconds[rows] - start_seconds,
            input_tokens=self.input_tokens[rows],
            output_tokens=self.output_tokens[rows],
            tiers=self.tiers[rows],
            prefix_block_ids=ids,
            prefix_block_offsets=offsets,
            notes=(*self.notes, note) if note else self.notes,
        )

    def in_order(self) -> Trace:
        """Return the trace sorted by time, with a note if it was not; equal times keep their place.

        Recordings are often written when a request ends, not when it arrives.
        """
        early = int((np.diff(self.arrival_seconds) < 0).sum())
        if not early:
            return self
        rows = np.argsort(self.arrival_seconds, kind="stable")
        note = f"the file goes back in time {early} times; its requests were sorted"
        start_seconds = float(self.arrival_seconds[rows[0]])
        return self.select(rows, name=self.name, start_seconds=start_seconds, note=note)

    def between(self, start_seconds: float, end_seconds: float, *, name: str) -> Trace:
        """Return the requests that arrive in ``[start, end)``, with times from ``start``."""
        low, high = np.searchsorted(self.arrival_seconds, [start_seconds, end_seconds])
        return self.select(np.arange(low, high), name=name, start_seconds=start_seconds)

    def hardest(self, longest_seconds: float, load: Floats, window_seconds: float) -> Trace:
        """Return the part of at most that length with the most load in it.

        Args:
            longest_seconds: A trace that is no longer stays as it is.
            load: Load per window of the whole trace.
            window_seconds: Length of such a window.
        """
        if self.duration_seconds <= longest_seconds:
            return self
        windows = max(1, int(longest_seconds / window_seconds))
        sums = np.concatenate(([0.0], np.cumsum(load)))
        first = int(np.argmax(sums[windows:] - sums[:-windows])) if len(load) >= windows else 0
        start = first * window_seconds
        part = self.between(start, start + longest_seconds, name=self.name)
        note = (
            f"the {longest_seconds / 3600:.3g} hardest hours of "
            f"{self.duration_seconds / 3600:.3g}, from hour {start / 3600:.1f} on"
        )
        # What comes first in a part comes at its beginning.
        moved = part.arrival_seconds - part.arrival_seconds[0]
        return dataclasses.replace(part, arrival_seconds=moved, notes=(*part.notes, note))

    def halves(self) -> tuple[Trace, Trace]:
        """Return the training half and the test half, cut at the middle of the time."""
        middle = self.duration_seconds / 2
        return (
            self.between(0.0, middle, name=f"{self.name} (training half)"),
            self.between(middle, np.inf, name=f"{self.name} (test half)"),
        )

    def scaled(self, rate_factor: float, *, seed: int) -> Trace:
        """Return a trace with ``rate_factor`` times the requests over the same time.

        Below 1 requests are thinned; above 1 each is copied, and the copies move by up to
        ``JITTER_SECONDS`` either way inside the trace. Compressing time instead would change
        how fast the load moves compared with a cold start, which is what is being measured.

        Raises:
            ValueError: If the factor is not positive and finite.
        """
        if not (np.isfinite(rate_factor) and rate_factor > 0):
            raise ValueError(f"a rate factor must be positive, got {rate_factor}")
        if rate_factor == 1.0 or not len(self):
            return self
        generator = np.random.default_rng([seed, 0x5CA1E])
        whole = int(rate_factor)
        extra = generator.random(len(self)) < rate_factor - whole
        copies = whole + extra.astype(np.int64)
        rows = np.repeat(np.arange(len(self)), copies)
        times = self.arrival_seconds[rows].copy()
        is_copy = (
            np.concatenate(([False], rows[1:] == rows[:-1])) if len(rows) else np.zeros(0, bool)
        )
        moved = times[is_copy] + generator.uniform(-JITTER_SECONDS, JITTER_SECONDS, is_copy.sum())
        # Reflection keeps every copy inside the trace without piling them up at its ends.
        end = self.duration_seconds
        moved = np.abs(moved)
        times[is_copy] = np.clip(np.where(moved > end, 2 * end - moved, moved), 0.0, end)
        order = np.argsort(times, kind="stable")
        note = f"rate scaled by {rate_factor:g}: {len(rows)} of {len(self)} requests"
        scaled = self.select(rows[order], name=self.name, start_seconds=0.0, note=note)
        return dataclasses.replace(
            scaled,
            arrival_seconds=times[order],
            prefix_block_ids=self._blocks_of_copies(rows, order, scaled),
        )

    def _blocks_of_copies(self, rows: Integers, order: Integers, scaled: Trace) -> Integers:
        """Return prefix blocks that the k-th copies share with each other but with no others."""
        if not len(self.prefix_block_ids):
            return scaled.prefix_block_ids
        first_of_row = np.searchsorted(rows, rows, side="left")
        copy_number = (np.arange(len(rows)) - first_of_row)[order]
        lengths = np.diff(scaled.prefix_block_offsets)
        distance = int(self.prefix_block_ids.max()) + 1
        return scaled.prefix_block_ids + np.repeat(copy_number * distance, lengths)

    def with_flex_share(self, flex_share_ratio: float, *, seed: int) -> Trace:
        """Return the trace with that share of its default-tier requests moved to the flex tier.

        Raises:
            ValueError: If the share is not in 0..1.
        """
        if not 0.0 <= flex_share_ratio <= 1.0:
            raise ValueError(f"a share lies between 0 and 1, got {flex_share_ratio}")
        generator = np.random.default_rng([seed, 0xF1E8])
        drawn = generator.random(len(self)) < flex_share_ratio
        tiers = np.where(drawn & (self.tiers == Tier.DEFAULT), np.int8(Tier.FLEX), self.tiers)
        note = f"{flex_share_ratio:.0%} of default requests moved to the flex tier"
        return dataclasses.replace(self, tiers=tiers.astype(np.int8), notes=(*self.notes, note))


def build_trace(
    name: str,
    source_format: str,
    arrival_seconds: Floats,
    input_tokens: Integers,
    output_tokens: Integers,
    *,
    tiers: TierColumn | None = None,
    prefix_blocks: tuple[Integers, Integers, int] | None = None,
    notes: tuple[str, ...] = (),
) -> Trace:
    """Return a trace in order, from 0; default tier and no prefix blocks if not given."""
    count = len(arrival_seconds)
    no_blocks = (np.zeros(0, np.int64), np.zeros(count + 1, np.int64), 0)
    ids, offsets, block_tokens = prefix_blocks or no_blocks
    start = arrival_seconds[0] if count else 0.0
    return Trace(
        name=name,
        source_format=source_format,
        arrival_seconds=np.ascontiguousarray(arrival_seconds - start, np.float64),
        input_tokens=np.ascontiguousarray(input_tokens, np.int64),
        output_tokens=np.ascontiguousarray(output_tokens, np.int64),
        tiers=np.full(count, Tier.DEFAULT, np.int8) if tiers is None else tiers,
        prefix_block_ids=ids,
        prefix_block_offsets=offsets,
        prefix_block_tokens=block_tokens,
        notes=notes,
    ).in_order()
