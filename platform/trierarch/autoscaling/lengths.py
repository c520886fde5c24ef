"""How many tokens the requests have that arrive now, of which none has ended yet.

The mean of the requests that ended lately is late by the time that a request stays, and where
answers become longer, or serving has just begun, it is of the short ones. What engines generate
tells sooner: in a steady state it is arrivals times their length, and it rises with the requests
that run.
"""

from __future__ import annotations

import dataclasses
import math

FLOW_SECONDS = 300.0
"""Time constant of what is generated over what arrives."""

USUAL_SECONDS = 3600.0
"""Time constant of the usual length."""

YOUNG_SECONDS = 300.0
"""Time constant with which the usual length gives way to what is measured after a begin."""

MATURE_SECONDS = 900.0
"""Time of serving after which what has ended is as long as what arrives."""

LEAST_ARRIVED = 30.0
"""Requests before what is generated says anything of their length."""


@dataclasses.dataclass(frozen=True, slots=True)
class Lengths:
    """Memory of generated tokens.

    Attributes:
        generated_tokens: Of the last minutes, older ones weighing less.
        arrived_requests: In the same time, with the same weights.
        usual_output_tokens: Mean of the last hour; None before any is known.
    """

    generated_tokens: float = 0.0
    arrived_requests: float = 0.0
    usual_output_tokens: float | None = None

    def output_tokens(self, measured: float, served_seconds: float) -> float:
        """Return the expected answer of a request that arrives now.

        Args:
            measured: Mean of those that ended lately.
            served_seconds: Time since requests began to arrive.
        """
        expected = measured
        if self.arrived_requests >= LEAST_ARRIVED:
            expected = max(expected, self.generated_tokens / self.arrived_requests)
        if self.usual_output_tokens is not None:
            youth = math.exp(-served_seconds / YOUNG_SECONDS)
            expected = max(expected, youth * self.usual_output_tokens + (1 - youth) * expected)
        return expected

    def learned(
        self,
        elapsed_seconds: float,
        *,
        generated_per_second: float | None,
        arrivals_per_second: float | None,
        measured: float | None,
    ) -> Lengths:
        """Return them after an interval; unchanged by what is not known.

        Args:
            elapsed_seconds: Length of the interval.
            generated_per_second: Tokens of all engines that serve.
            arrivals_per_second: Requests of all lanes.
            measured: Mean output tokens of requests that ended lately, where those are as long as
                the ones that arrive; None if unknown.
        """
        if elapsed_seconds <= 0:
            return self
        found = self
        if generated_per_second is not None and arrivals_per_second is not None:
            keep = math.exp(-elapsed_seconds / FLOW_SECONDS)
            found = dataclasses.replace(
                found,
                generated_tokens=keep * found.generated_tokens
                + generated_per_second * elapsed_seconds,
                arrived_requests=keep * found.arrived_requests
                + arrivals_per_second * elapsed_seconds,
            )
        if measured is not None:
            usual = found.usual_output_tokens
            rate = min(1.0, elapsed_seconds / USUAL_SECONDS)
            usual = measured if usual is None else usual + rate * (measured - usual)
            found = dataclasses.replace(found, usual_output_tokens=usual)
        return found
