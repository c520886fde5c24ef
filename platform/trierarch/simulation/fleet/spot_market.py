"""Spot capacity over time: how many replicas may exist, and which are taken back.

Decided before the run from the seed alone, so every policy meets the same
market: the same instants, the same limits, and for the k-th replica ever
started the same luck at each of them.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from trierarch.simulation.fleet.setup import SpotSupply


@dataclasses.dataclass(frozen=True, slots=True)
class SpotChange:
    """One instant of a market.

    Attributes:
        at_seconds: When.
        available_replicas: How many may exist from then on.
        lost_ratio: Chance of each existing replica to be taken back.
        ordinal: Which change this is, for the draws.
    """

    at_seconds: float
    available_replicas: int
    lost_ratio: float
    ordinal: int


def build_changes(supply: SpotSupply, end_seconds: float) -> list[SpotChange]:
    """Return the market's changes from 0 to ``end_seconds``; the recording repeats."""
    trace = supply.trace
    period = max(trace.duration_seconds, 1.0)
    changes: list[SpotChange] = []
    for repeat in range(math.ceil(end_seconds / period) or 1):
        for index, at_seconds in enumerate(trace.time_seconds):
            shifted = repeat * period + float(at_seconds)
            if shifted > end_seconds:
                return changes
            # The recording's first instants build its group up; nothing is lost when it repeats.
            lost = float(trace.lost_ratio[index])
            available = math.floor(float(trace.available_ratio[index]) * supply.pool_replicas + 0.5)
            changes.append(SpotChange(shifted, available, lost, len(changes)))
    return changes


def is_taken(seed: int, change: SpotChange, serial: int) -> bool:
    """Draw whether this replica is taken back at this change."""
    if change.lost_ratio <= 0.0:
        return False
    generator = np.random.default_rng([seed, 0x5B07, change.ordinal, serial])
    return bool(generator.random() < change.lost_ratio)
