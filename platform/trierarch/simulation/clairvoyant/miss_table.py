"""How many requests miss their objective in a slot if so many replicas are ready.

Learned from runs of the simulator: each gives, for every slot, one count and the
misses among the requests that arrived in it. More replicas never make more
misses in the table (they may in a run, by luck of the routing); between two
counts that were seen the table is a straight line, below the least of them
every request is taken to be lost in proportion, and above the most it is flat.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class MissTable:
    """Misses by slot and capacity."""

    def __init__(self, arrived: NDArray[np.float64], states: int) -> None:
        """Start from nothing but the number of requests per slot."""
        self._arrived = arrived
        self._seen = np.full((len(arrived), states), np.nan)

    def learn(self, capacity: NDArray[np.int64], misses: NDArray[np.float64]) -> None:
        """Enter a run; the newest sight of a slot at a count replaces an older one."""
        states = self._seen.shape[1]
        slots = np.arange(len(capacity))
        self._seen[slots, np.minimum(capacity, states - 1)] = misses

    def estimate(self) -> NDArray[np.float64]:
        """Return misses for every slot and count."""
        slots, states = self._seen.shape
        result = np.empty((slots, states))
        places = np.arange(states)
        for slot in range(slots):
            seen = np.flatnonzero(~np.isnan(self._seen[slot]))
            if not len(seen):
                result[slot] = 0.0
                continue
            values = np.minimum.accumulate(self._seen[slot, seen])
            lowest = int(seen[0])
            row = np.interp(places, seen, values)
            if lowest > 0:
                below = np.arange(lowest)
                lost = self._arrived[slot]
                row[:lowest] = np.maximum(lost + (values[0] - lost) * below / lowest, values[0])
            result[slot] = row
        return result
