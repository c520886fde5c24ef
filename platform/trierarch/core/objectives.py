"""What is promised to users of a model, as every process may know it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class LatencyPromise:
    """Limits that a request should keep; None promises nothing.

    Attributes:
        ttft_seconds: Arrival at the gateway to the first token.
        tpot_seconds: Mean time per output token after the first.
    """

    ttft_seconds: float | None = None
    tpot_seconds: float | None = None
