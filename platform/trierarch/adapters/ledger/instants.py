"""Instants as the ledger stores them: whole microseconds since 1970-01-01 UTC."""

MICROSECONDS_PER_SECOND = 1_000_000
"""A float second of this century is exact to less than a microsecond, not beyond."""


def to_microseconds(unix_seconds: float) -> int:
    """Return the nearest microsecond."""
    return round(unix_seconds * MICROSECONDS_PER_SECOND)


def to_seconds(unix_microseconds: int) -> float:
    """Return the same instant in seconds."""
    return unix_microseconds / MICROSECONDS_PER_SECOND
