"""What the autoscaler reads of a model: counters since the start, times of the last minute.

A window without a sample has no quantile, which is null and not zero: no
traffic and instant answers are different facts.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from trierarch.core.objectives import LatencyPromise
from trierarch.core.quantities import TokenCounts
from trierarch.core.usage import Outcome, ServiceTier

WINDOW_SECONDS = 60.0
"""How far the quantiles look back."""

MAX_SAMPLES = 20_000
"""At more than 333 requests per second the window is shorter than a minute, not larger."""

QUANTILES = (0.5, 0.9, 0.95, 0.99)

LEARNING_RATE = 0.05
"""Weight of one request in the learned output length: the last twenty or so count."""

FIRST_GUESS_OUTPUT_TOKENS = 256.0
"""Before anything was learned."""


class RollingWindow:
    """Samples of the last minute."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=MAX_SAMPLES)

    def add(self, now_seconds: float, value: float) -> None:
        """Add a sample."""
        self._samples.append((now_seconds, value))

    def values(self, now_seconds: float) -> list[float]:
        """Return the samples that are young enough, sorted; forget the others."""
        samples = self._samples
        while samples and samples[0][0] < now_seconds - WINDOW_SECONDS:
            samples.popleft()
        return sorted(value for _, value in samples)


def quantile(values: Sequence[float], q: float) -> float | None:
    """Return the nearest-rank quantile of sorted values; None if there are none."""
    if not values:
        return None
    return values[max(0, math.ceil(q * len(values)) - 1)]


def summarize(values: Sequence[float]) -> dict[str, float | int | None]:
    """Return count, mean and quantiles of sorted values."""
    mean = math.fsum(values) / len(values) if values else None
    summary: dict[str, float | int | None] = {"count": len(values), "mean": mean}
    for q in QUANTILES:
        summary[f"p{q * 100:g}"] = quantile(values, q)
    return summary


class InteractiveCounts:
    """Requests of the lanes with an objective, and how many of them met it.

    Judged are the streams that were completed, and every request that failed or was refused;
    a client that left or does not stream saw no first token to judge by. Without an objective
    nothing is judged.
    """

    __slots__ = ("completed", "in_time", "judged", "met", "promise")

    def __init__(self) -> None:
        self.promise: LatencyPromise | None = None
        self.completed = self.judged = self.in_time = self.met = 0

    def note_end(
        self,
        outcome: Outcome,
        first_token_seconds: float | None,
        per_token_seconds: float | None,
    ) -> None:
        """Count a request that has ended.

        Args:
            outcome: How.
            first_token_seconds: From arrival; None without a stream.
            per_token_seconds: After the first token; None if there was only one.
        """
        is_completed = outcome.is_whole
        self.completed += is_completed
        promise = self.promise
        if promise is None:
            return
        if outcome in (Outcome.FAILED, Outcome.SHED):
            self.judged += 1
        elif is_completed and first_token_seconds is not None:
            self.judged += 1
            in_time = promise.ttft_seconds is None or first_token_seconds <= promise.ttft_seconds
            is_fast = (
                promise.tpot_seconds is None
                or per_token_seconds is None
                or per_token_seconds <= promise.tpot_seconds
            )
            self.in_time += in_time
            self.met += in_time and is_fast

    def as_member(self) -> dict[str, int]:
        """Return the counters; without an objective only those that need none."""
        counts = {"completed": self.completed}
        if self.promise is not None:
            counts |= {"judged": self.judged, "in_time": self.in_time, "met": self.met}
        return counts


class ModelSignals:
    """Counters and windows of one model.

    Attributes:
        interactive: Requests of the lanes with an objective.
        arrivals: Admitted requests by tier, refused ones included: all demand.
        expected_output_tokens: Learned mean output of completed requests.
    """

    __slots__ = (
        "_outcomes",
        "_queue_wait",
        "_time_per_output_token",
        "_time_to_first_token",
        "_tokens",
        "arrivals",
        "expected_output_tokens",
        "interactive",
    )

    def __init__(self) -> None:
        self.arrivals = dict.fromkeys(ServiceTier, 0)
        self.interactive = InteractiveCounts()
        self.expected_output_tokens = FIRST_GUESS_OUTPUT_TOKENS
        self._outcomes = dict.fromkeys(Outcome, 0)
        self._tokens = TokenCounts()
        self._queue_wait = RollingWindow()
        self._time_to_first_token = RollingWindow()
        self._time_per_output_token = RollingWindow()

    def note_queue_wait(self, now_seconds: float, wait_seconds: float) -> None:
        """Add the wait of a request with an objective that got a place."""
        self._queue_wait.add(now_seconds, wait_seconds)

    def note_first_token(self, now_seconds: float, seconds: float) -> None:
        """Add the time to first token of a request with an objective."""
        self._time_to_first_token.add(now_seconds, seconds)

    def note_time_per_output_token(self, now_seconds: float, seconds: float) -> None:
        """Add the mean time per output token of a request with an objective."""
        self._time_per_output_token.add(now_seconds, seconds)

    def note_end(self, outcome: Outcome, tokens: TokenCounts) -> None:
        """Count a request that has ended."""
        self._outcomes[outcome] += 1
        self._tokens += tokens
        if outcome.is_whole:
            self.expected_output_tokens += LEARNING_RATE * (
                tokens.output_tokens - self.expected_output_tokens
            )

    def queue_wait_quantile(self, now_seconds: float, q: float) -> float | None:
        """Return a quantile of the waits of the last minute."""
        return quantile(self._queue_wait.values(now_seconds), q)

    def members(self, now_seconds: float) -> Iterator[tuple[str, Any]]:
        """Return the members that this object contributes to the signals document."""
        waits = self._queue_wait.values(now_seconds)
        yield "arrivals_total", sum(self.arrivals.values())
        yield "tier_arrivals_total", {tier.value: n for tier, n in self.arrivals.items()}
        yield "completed_total", sum(n for outcome, n in self._outcomes.items() if outcome.is_whole)
        yield "ended_total", {outcome.value: count for outcome, count in self._outcomes.items()}
        yield (
            "tokens_total",
            {
                "input": self._tokens.input_tokens,
                "cached": self._tokens.cached_tokens,
                "output": self._tokens.output_tokens,
            },
        )
        yield "interactive_total", self.interactive.as_member()
        yield "queue_wait_seconds_p95", quantile(waits, 0.95)
        yield "queue_wait_seconds", summarize(waits)
        yield "ttft_seconds", summarize(self._time_to_first_token.values(now_seconds))
        yield "tpot_seconds", summarize(self._time_per_output_token.values(now_seconds))
        yield "expected_output_tokens", self.expected_output_tokens
