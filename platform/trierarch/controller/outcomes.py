"""How the requests of one engine ended, from its own counters: pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

FINISHED_COUNTER = "vllm:request_success_total"
"""By ``finished_reason``; an engine's error during an answer is one of them."""

HTTP_COUNTER = "http_requests_total"
"""By class of status, ``5xx`` and alike; errors before an answer begins."""

FINISHED = "requests_finished"
FAILED = "requests_failed"
REFUSED = "requests_refused_by_server"
"""Names under which the sums stand among an engine's metrics."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """Requests since an engine began.

    Attributes:
        requests: That ended, but for those whose client went away.
        errors: Of them, those that the engine or its server failed.
    """

    requests: int = 0
    errors: int = 0

    @property
    def error_ratio(self) -> float:
        """Errors per request; 0 without requests."""
        return self.errors / self.requests if self.requests else 0.0


def outcome_key(name: str, labels: Mapping[str, str]) -> str | None:
    """Return under which name a sample of an engine's metrics is summed up; None for no outcome."""
    if name == FINISHED_COUNTER:
        return {"error": FAILED, "abort": None}.get(labels.get("finished_reason", ""), FINISHED)
    if name == HTTP_COUNTER and labels.get("status", "").startswith("5"):
        return REFUSED
    return None


def read_outcome(metrics: Mapping[str, float]) -> Outcome:
    """Return the outcome in what ``parse_engine_metrics`` has returned."""
    errors = int(metrics.get(FAILED, 0)) + int(metrics.get(REFUSED, 0))
    return Outcome(int(metrics.get(FINISHED, 0)) + errors, errors)


def add_outcomes(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the outcome of several engines together."""
    found = list(outcomes)
    return Outcome(sum(one.requests for one in found), sum(one.errors for one in found))
