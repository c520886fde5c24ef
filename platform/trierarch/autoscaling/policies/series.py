"""Sliding windows over readings, as the laws of the peers average and compare them.

A window is a tuple of samples in order of time, so that a policy's state stays a
plain value. A reading that is not newer than the last adds nothing: a metric
that was not scraped again is no second observation.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TypeAlias


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One reading and when it was true."""

    at_seconds: float
    value: float


Series: TypeAlias = tuple[Sample, ...]


def extend(series: Series, sample: Sample, *, keep_seconds: float) -> Series:
    """Return the series with a newer sample and without those older than ``keep_seconds``."""
    if series and sample.at_seconds <= series[-1].at_seconds:
        return series
    oldest = sample.at_seconds - keep_seconds
    return (*(kept for kept in series if kept.at_seconds >= oldest), sample)


def since(series: Series, window_seconds: float, now_seconds: float) -> Series:
    """Return the samples of the last ``window_seconds``; the newest always counts."""
    recent = tuple(s for s in series if s.at_seconds > now_seconds - window_seconds)
    return recent or series[-1:]


def mean(series: Series) -> float:
    """Return the mean of the values.

    Raises:
        ValueError: If there is none.
    """
    if not series:
        raise ValueError("a window without samples has no mean")
    return math.fsum(sample.value for sample in series) / len(series)


def time_weighted_mean(series: Series, window_seconds: float) -> float:
    """Return the mean of the step function that holds each value until the next sample.

    The window ends at the newest sample; a lone sample is its own mean.

    Raises:
        ValueError: If there is no sample.
    """
    if not series:
        raise ValueError("a window without samples has no mean")
    end = series[-1].at_seconds
    begin = max(end - window_seconds, series[0].at_seconds)
    if end <= begin:
        return series[-1].value
    area = 0.0
    for left, right in itertools.pairwise(series):
        area += left.value * max(0.0, right.at_seconds - max(left.at_seconds, begin))
    return area / (end - begin)
