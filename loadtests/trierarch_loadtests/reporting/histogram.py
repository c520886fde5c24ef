"""Mergeable histograms with a bounded relative error.

Percentiles of several workers can only be had from merged counts, never from
their percentiles. Buckets grow by a constant ratio, so any quantile is within
``RELATIVE_ERROR`` of a sample, for microseconds and for minutes alike.
"""

import math
from typing import Any

GROWTH = 1.02
"""Ratio of neighbouring bucket bounds."""
RELATIVE_ERROR = 0.01
"""Half a bucket: how far a reported percentile may be from a sample."""
SMALLEST = 1e-6
"""Values up to this one share a bucket: a microsecond is below what a client can time."""

_LOG_GROWTH = math.log(GROWTH)


class Histogram:
    """Counts of non-negative numbers."""

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self.count = 0
        self.total = 0.0
        self.minimum = math.inf
        self.maximum = -math.inf

    def record(self, value: float) -> None:
        """Count one value.

        Raises:
            ValueError: If it is negative, infinite or not a number.
        """
        if not 0.0 <= value < math.inf:
            raise ValueError(f"a histogram cannot count {value}")
        bucket = 0
        if value > SMALLEST:
            bucket = 1 + math.floor(math.log(value / SMALLEST) / _LOG_GROWTH)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.count += 1
        self.total += value
        self.minimum = min(self.minimum, value)
        self.maximum = max(self.maximum, value)

    def merge(self, other: "Histogram") -> None:
        """Add another histogram's counts to this one."""
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count
        self.count += other.count
        self.total += other.total
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    def percentile(self, percent: float) -> float | None:
        """Return the smallest value that at least ``percent`` of the values do not exceed.

        ``None`` for an empty histogram: no sample is not zero.
        """
        if self.count == 0:
            return None
        rank = max(1, math.ceil(self.count * percent / 100.0))
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return min(self.maximum, max(self.minimum, self._middle(bucket)))
        raise AssertionError("the buckets hold fewer values than were counted")

    @property
    def mean(self) -> float | None:
        """The exact mean, or ``None`` for an empty histogram."""
        return self.total / self.count if self.count else None

    def summary(self) -> dict[str, float | int | None]:
        """Return the figures that a report shows."""
        return {
            "count": self.count,
            "mean": self.mean,
            "p50": self.percentile(50),
            "p90": self.percentile(90),
            "p95": self.percentile(95),
            "p99": self.percentile(99),
            "max": self.maximum if self.count else None,
        }

    def to_message(self) -> dict[str, Any]:
        """Return plain values that survive a message between processes."""
        return {
            "buckets": sorted(self._buckets.items()),
            "total": self.total,
            "minimum": self.minimum,
            "maximum": self.maximum,
        }

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "Histogram":
        """Return the histogram that ``to_message`` described."""
        histogram = cls()
        histogram._buckets = {int(bucket): int(count) for bucket, count in message["buckets"]}
        histogram.count = sum(histogram._buckets.values())
        histogram.total = float(message["total"])
        histogram.minimum = float(message["minimum"])
        histogram.maximum = float(message["maximum"])
        return histogram

    @staticmethod
    def _middle(bucket: int) -> float:
        return SMALLEST * GROWTH ** (bucket - 0.5) if bucket else SMALLEST
