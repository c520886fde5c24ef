"""How long to leave accelerators to others after a group could not be placed whole. Pure."""

from __future__ import annotations

import dataclasses

FIRST_PAUSE_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 600.0


@dataclasses.dataclass(frozen=True, slots=True)
class PlacementBackoff:
    """What is remembered of a variant's failed placements.

    Attributes:
        failures: In a row.
        limit: Groups that may have pods until the pause is over.
        until_unix_seconds: End of the pause.
        message: What was missing.
    """

    failures: int = 0
    limit: int = 0
    until_unix_seconds: float = 0.0
    message: str = ""

    def is_over(self, now_unix_seconds: float) -> bool:
        """Return whether more groups may be tried."""
        return now_unix_seconds >= self.until_unix_seconds

    def allowed(self, wanted: int, now_unix_seconds: float) -> int:
        """Return how many groups may have pods now."""
        return wanted if self.is_over(now_unix_seconds) else min(wanted, self.limit)

    def fail(
        self,
        placed_groups: int,
        now_unix_seconds: float,
        message: str,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> PlacementBackoff:
        """Return what to remember after a group was given back."""
        pause_seconds = min(first_pause_seconds * 2**self.failures, LONGEST_PAUSE_SECONDS)
        return PlacementBackoff(
            failures=min(self.failures + 1, 16),
            limit=placed_groups,
            until_unix_seconds=now_unix_seconds + pause_seconds,
            message=message,
        )
