"""A rate limit as a token bucket whose state is two numbers.

A bucket refills continuously, so ``remaining`` and ``reset`` in the answer's
headers are what the next request will really meet. A charge may be settled
later: the estimate is taken at admission, the difference to what was used is
given back or taken when the request ends, and the level may then be negative
for a while.
"""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(slots=True)
class TokenBucket:
    """A limit per minute.

    Attributes:
        capacity: Largest burst, and the amount that refills in one minute.
        level: Amount left at ``updated_seconds``; negative after an underestimate.
        updated_seconds: Monotonic time of ``level``.
    """

    capacity: float
    level: float
    updated_seconds: float

    @classmethod
    def full(cls, capacity: float, *, now_seconds: float) -> TokenBucket:
        """Return a bucket that has not been used yet.

        Raises:
            ValueError: If the capacity is not positive and finite.
        """
        if not (math.isfinite(capacity) and capacity > 0):
            raise ValueError(f"a rate limit must be a positive number, got {capacity}")
        return cls(capacity, capacity, now_seconds)

    def refill(self, now_seconds: float) -> None:
        """Add what has flowed in since the last call; a clock that went back adds nothing."""
        elapsed_seconds = now_seconds - self.updated_seconds
        if elapsed_seconds > 0:
            self.level = min(self.capacity, self.level + elapsed_seconds * self.capacity / 60.0)
            self.updated_seconds = now_seconds

    def seconds_until(self, amount: float) -> float:
        """Return how long until ``amount`` can be taken (as of the last refill).

        An amount above the capacity is treated as the capacity: such a request
        goes through alone and leaves a debt instead of waiting for ever.
        """
        missing = min(amount, self.capacity) - self.level
        return max(0.0, missing * 60.0 / self.capacity)

    def take(self, amount: float) -> None:
        """Take an amount; negative gives back, never above the capacity."""
        self.level = min(self.capacity, self.level - amount)

    @property
    def remaining(self) -> int:
        """Whole units left, at least zero."""
        return max(0, math.floor(self.level))

    @property
    def seconds_until_full(self) -> float:
        """Return how long until the whole capacity is there again."""
        return max(0.0, (self.capacity - self.level) * 60.0 / self.capacity)


def format_reset(seconds: float) -> str:
    """Return a duration as OpenAI writes it in rate-limit headers: ``20ms``, ``1s``, ``6m0s``."""
    milliseconds = math.ceil(seconds * 1000.0 - 1e-9)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    whole_seconds = -(-milliseconds // 1000)
    hours, rest = divmod(whole_seconds, 3600)
    minutes, left_seconds = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{left_seconds}s"
    if minutes:
        return f"{minutes}m{left_seconds}s"
    return f"{left_seconds}s"
