"""The two clocks of a load test, read nowhere else.

Every duration comes from ``monotonic_seconds``. Wall time is read only to name
results and to let workers on several machines begin together.
"""

import time


def monotonic_seconds() -> float:
    """Return the finest clock that never goes back; only differences have a meaning."""
    return time.perf_counter()


def unix_seconds() -> float:
    """Return the wall time in seconds since 1970-01-01 UTC."""
    return time.time()  # noqa: TID251  # this package's one clock; it may not import trierarch's
