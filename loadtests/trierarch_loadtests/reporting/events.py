"""Locust's own tables: one row for each kind, and extra rows for what a stream adds.

The names are stable (``chat/stream``, ``chat/stream/ttft``) and never contain
ids. Locust shows these rows live; warm-up is in them and its totals add the
extra rows up, so the figures to quote are those of the summary.
"""

from typing import Any

from trierarch_loadtests.openai_stream import Outcome
from trierarch_loadtests.plan import PlannedRequest
from trierarch_loadtests.reporting.tally import Measurement

MILLISECONDS = 1000.0


class RequestFailed(Exception):
    """What locust counts as a failure; its text is the outcome only, so that rows stay few."""


def fire_rows(events: Any, planned: PlannedRequest, done: Measurement, size_bytes: int) -> None:
    """Report one ended request to locust."""
    name = planned.entry.row_name
    answer = done.answer
    failed = None if answer.outcome is Outcome.COMPLETE else RequestFailed(str(answer.outcome))
    _fire(events, "POST", name, done.latency_seconds * MILLISECONDS, size_bytes, failed)
    if failed is not None:
        return
    if (ttft_seconds := done.ttft_seconds) is not None:
        _fire(events, "ms", f"{name}/ttft", ttft_seconds * MILLISECONDS, 0, None)
    if (tpot_seconds := answer.tpot_seconds) is not None:
        _fire(events, "ms", f"{name}/tpot", tpot_seconds * MILLISECONDS, 0, None)
    if answer.usage is not None and answer.usage.output_tokens:
        tokens = float(answer.usage.output_tokens)
        _fire(events, "tokens", f"{name}/output_tokens", tokens, 0, None)


def _fire(
    events: Any,
    request_type: str,
    name: str,
    value: float,
    size_bytes: int,
    failed: RequestFailed | None,
) -> None:
    events.request.fire(
        request_type=request_type,
        name=name,
        response_time=value,
        response_length=size_bytes,
        exception=failed,
        context={},
    )
