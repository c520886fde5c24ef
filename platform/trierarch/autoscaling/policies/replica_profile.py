"""What a profile run tells of one replica; laws with a performance model start from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from trierarch.core.identifiers import VariantName


@dataclasses.dataclass(frozen=True, slots=True)
class ReplicaProfile:
    """The step time ``alpha + n * (request + beta * tokens computed + gamma * tokens held)``.

    The published model has no term per request; a fit on a fleet whose decode tokens cost more
    than its prompt tokens needs one, and a peer should not lose for the lack of it.

    Attributes:
        name: The variant.
        alpha_seconds: Of a step with nothing in it.
        beta_seconds: Per token computed.
        gamma_seconds: Per token of context that a step reads.
        maximum_requests: Seats of the batch.
        step_tokens: Most tokens computed in one step.
        kv_tokens: KV memory.
        request_seconds: Per request in the batch.
    """

    name: VariantName
    alpha_seconds: float
    beta_seconds: float
    gamma_seconds: float
    maximum_requests: int
    step_tokens: int
    kv_tokens: int
    request_seconds: float = 0.0

    def step_seconds(self, running: float, inputs: float, outputs: float) -> float:
        """Return T(n) for requests of mean lengths, prefills spread over the steps."""
        computed = self.beta_seconds * (inputs + outputs) / (outputs + 1)
        return self.alpha_seconds + running * (
            self.request_seconds + computed + self.gamma_seconds * (inputs + outputs / 2)
        )

    def prefill_seconds(self, running: float, inputs: float, outputs: float) -> float:
        """Return the time to the first token once a request is in a batch of n."""
        own = (self.beta_seconds + self.gamma_seconds) * inputs
        return self.step_seconds(running, inputs, outputs) + own

    def decode_seconds(self, running: float, inputs: float, outputs: float) -> float:
        """Return the time per output token in a batch of n."""
        own = self.beta_seconds + self.gamma_seconds * (inputs + outputs / 2)
        return self.step_seconds(running, inputs, outputs) + own

    def seats(self, inputs: float, outputs: float) -> int:
        """Return how many requests fit, by seats and by memory."""
        held = max(1.0, inputs + outputs / 2)
        return max(1, min(self.maximum_requests, math.floor(self.kv_tokens / held)))

    def service_rate(self, running: float, inputs: float, outputs: float) -> float:
        """Return requests finished per second by a batch of n."""
        residence = self.prefill_seconds(running, inputs, outputs) + outputs * self.decode_seconds(
            running, inputs, outputs
        )
        return running / residence


def largest_batch(seats: int, fits: Callable[[int], bool]) -> int:
    """Return the most requests up to ``seats`` for which ``fits`` holds; 0 if none."""
    low, high = 0, seats
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
