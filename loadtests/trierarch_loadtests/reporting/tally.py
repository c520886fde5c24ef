"""Everything counted during a run, in a form that workers can send and a master can add up.

Rows are kept by stage and kind of request, and once more along time, so that a
report can show what happened before and after a scale-up.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any

from trierarch_loadtests.openai_stream import FAILURES, Answer, Outcome
from trierarch_loadtests.plan import PlannedRequest
from trierarch_loadtests.reporting.histogram import Histogram
from trierarch_loadtests.reporting.recording import DROPPED, RecordedRequest, to_message
from trierarch_loadtests.scenario import Slo

TIMELINE_SECONDS = 10.0
"""Width of one row along time."""
RECORDED_DECIMALS = 6
RECORDED_TIERS = ("priority", "default", "flex")
KEPT_FAILURES = 50
"""Failed requests described one by one; the counts cover all of them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement:
    """One request that was sent: when, and what came back."""

    planned_seconds: float
    """The planned start, on the same clock as the answer's instants."""
    started_seconds: float
    connected_seconds: float | None
    ended_seconds: float
    answer: Answer
    request_id: str | None = None
    variant: str | None = None

    @property
    def start_lag_seconds(self) -> float:
        """How late the generator was; part of every latency below."""
        return max(0.0, self.started_seconds - self.planned_seconds)

    @property
    def latency_seconds(self) -> float:
        """From the planned start to the end of the answer."""
        return self.ended_seconds - self.planned_seconds

    @property
    def ttft_seconds(self) -> float | None:
        """From the planned start to the first content, or ``None`` if there was none."""
        content = self.answer.content_seconds
        return content[0] - self.planned_seconds if content else None

    def meets(self, slo: Slo) -> bool:
        """Return whether the request is complete and both its times are within the SLO.

        An answer of one token has no time per output token and is judged by its
        first token; one that is not streamed by its whole latency.
        """
        if self.answer.outcome is not Outcome.COMPLETE:
            return False
        first = self.ttft_seconds if self.ttft_seconds is not None else self.latency_seconds
        tpot = self.answer.tpot_seconds
        return first <= slo.ttft_seconds and (tpot is None or tpot <= slo.tpot_seconds)


class Row:
    """Counters and histograms of a group of requests."""

    HISTOGRAMS = (
        "ttft_seconds", "tpot_seconds", "gap_seconds", "latency_seconds", "connect_seconds",
        "start_lag_seconds", "input_tokens", "output_tokens",
    )  # fmt: skip

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.histograms = {name: Histogram() for name in self.HISTOGRAMS}

    @property
    def failed(self) -> int:
        """Requests that failed for any reason but the load generator's own end."""
        return sum(self.counts[outcome] for outcome in FAILURES)

    @property
    def sent(self) -> int:
        """Requests with an outcome."""
        return sum(self.counts[outcome] for outcome in Outcome)

    def record(self, done: Measurement, slo: Slo) -> None:
        """Count one request that has ended."""
        answer, histograms = done.answer, self.histograms
        self.counts[answer.outcome] += 1
        histograms["start_lag_seconds"].record(done.start_lag_seconds)
        if done.connected_seconds is not None:
            histograms["connect_seconds"].record(done.connected_seconds - done.started_seconds)
        if answer.usage is not None:
            self.counts["input_tokens"] += answer.usage.input_tokens
            self.counts["cached_tokens"] += answer.usage.cached_tokens
            self.counts["output_tokens"] += answer.usage.output_tokens
        elif answer.outcome in (Outcome.COMPLETE, Outcome.LOST_STREAM, Outcome.CANCELLED):
            self.counts["usage_unknown"] += 1
        if answer.outcome is not Outcome.COMPLETE:
            return
        histograms["latency_seconds"].record(done.latency_seconds)
        for name, value in (
            ("ttft_seconds", done.ttft_seconds),
            ("tpot_seconds", answer.tpot_seconds),
        ):
            if value is not None:
                histograms[name].record(value)
        for gap in answer.gaps_seconds:
            histograms["gap_seconds"].record(gap)
        if answer.usage is not None:
            histograms["input_tokens"].record(answer.usage.input_tokens)
            histograms["output_tokens"].record(answer.usage.output_tokens)
        if done.meets(slo):
            self.counts["good"] += 1
            self.counts["good_output_tokens"] += answer.usage.output_tokens if answer.usage else 0

    def merge(self, other: "Row") -> None:
        """Add another row to this one."""
        self.counts.update(other.counts)
        for name, histogram in other.histograms.items():
            self.histograms[name].merge(histogram)

    def to_message(self) -> dict[str, Any]:
        """Return plain values that survive a message between processes."""
        return {
            "counts": {str(name): count for name, count in self.counts.items()},
            "histograms": {
                name: histogram.to_message()
                for name, histogram in self.histograms.items()
                if histogram.count
            },
        }

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "Row":
        """Return the row that ``to_message`` described."""
        row = cls()
        row.counts.update(message["counts"])
        for name, histogram in message["histograms"].items():
            row.histograms[name] = Histogram.from_message(histogram)
        return row


@dataclasses.dataclass(frozen=True, slots=True)
class RowKey:
    """Which requests a row counts."""

    stage: str
    measured: bool
    kind: str


class Tally:
    """All rows of a run, or of one worker's part of it.

    Attributes:
        requests: Of a worker's part, those that no report has carried yet.
    """

    def __init__(self) -> None:
        self.rows: dict[RowKey, Row] = {}
        self.timeline: dict[int, Row] = {}
        self.failures: list[dict[str, Any]] = []
        self.requests: list[RecordedRequest] = []
        self.variants: Counter[str] = Counter()
        self.fingerprints: Counter[str] = Counter()
        self.cpu_saturated = False

    def plan(self, planned: PlannedRequest) -> None:
        """Count a request whose planned start has come."""
        for row in self._rows_of(planned):
            row.counts["planned"] += 1

    def drop(self, planned: PlannedRequest) -> None:
        """Count a planned request that was not sent because too many were ongoing."""
        self.requests.append(describe(planned, None))
        for row in self._rows_of(planned):
            row.counts["dropped"] += 1

    def record(self, planned: PlannedRequest, done: Measurement, slo: Slo) -> None:
        """Count a request that has ended."""
        self.requests.append(describe(planned, done))
        for row in self._rows_of(planned):
            row.record(done, slo)
        if done.variant:
            self.variants[done.variant] += 1
        if done.answer.fingerprint:
            self.fingerprints[done.answer.fingerprint] += 1
        if done.answer.outcome in FAILURES and len(self.failures) < KEPT_FAILURES:
            self.failures.append(
                {
                    "kind": planned.entry.row_name,
                    "stage": planned.stage.name,
                    "planned_seconds": round(planned.seconds, 3),
                    "outcome": str(done.answer.outcome),
                    "detail": done.answer.detail,
                    "request_id": done.request_id,
                }
            )

    def everything(self) -> Row:
        """Return the sum of all rows, warm-up included."""
        return total(self.rows.values())

    def measured(self) -> Row:
        """Return the sum of the rows of measured stages."""
        return total(row for key, row in self.rows.items() if key.measured)

    def of_stage(self, stage: str) -> Row:
        """Return the sum of one stage's rows."""
        return total(row for key, row in self.rows.items() if key.stage == stage)

    def of_kind(self, kind: str) -> Row:
        """Return the sum of one kind's rows, measured stages only."""
        return total(row for key, row in self.rows.items() if key.measured and key.kind == kind)

    def merge(self, other: "Tally") -> None:
        """Add another tally's counts to this one; its requests go to the recording instead."""
        for key, row in other.rows.items():
            self.rows.setdefault(key, Row()).merge(row)
        for index, row in other.timeline.items():
            self.timeline.setdefault(index, Row()).merge(row)
        self.failures = (self.failures + other.failures)[:KEPT_FAILURES]
        self.variants.update(other.variants)
        self.fingerprints.update(other.fingerprints)
        self.cpu_saturated = self.cpu_saturated or other.cpu_saturated

    def to_message(self) -> dict[str, Any]:
        """Return plain values that survive a message between processes."""
        return {
            "rows": [
                [*dataclasses.astuple(key), row.to_message()] for key, row in self.rows.items()
            ],
            "timeline": [[index, row.to_message()] for index, row in self.timeline.items()],
            "failures": self.failures,
            "requests": [to_message(request) for request in self.requests],
            "variants": dict(self.variants),
            "fingerprints": dict(self.fingerprints),
            "cpu_saturated": self.cpu_saturated,
        }

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "Tally":
        """Return the tally that ``to_message`` described."""
        tally = cls()
        for stage, measured, kind, row in message["rows"]:
            tally.rows[RowKey(stage, measured, kind)] = Row.from_message(row)
        for index, row in message["timeline"]:
            tally.timeline[int(index)] = Row.from_message(row)
        tally.failures = list(message["failures"])
        tally.requests = [RecordedRequest(*values) for values in message["requests"]]
        tally.variants.update(message["variants"])
        tally.fingerprints.update(message["fingerprints"])
        tally.cpu_saturated = bool(message["cpu_saturated"])
        return tally

    def _rows_of(self, planned: PlannedRequest) -> tuple[Row, Row]:
        key = RowKey(planned.stage.name, planned.stage.measured, planned.entry.row_name)
        index = int(planned.seconds // TIMELINE_SECONDS)
        return self.rows.setdefault(key, Row()), self.timeline.setdefault(index, Row())


def describe(planned: PlannedRequest, done: Measurement | None) -> RecordedRequest:
    """Return a request's row in the recording; ``done`` is None if it was dropped.

    One that brought no usage stands with the lengths it was planned with: it was asked for.
    """
    tier = str(planned.entry.extra_body.get("service_tier", ""))
    asked = RecordedRequest(
        arrival_seconds=round(planned.seconds, RECORDED_DECIMALS),
        input_tokens=planned.input_tokens,
        output_tokens=planned.output_tokens,
        tier=tier if tier in RECORDED_TIERS else "",
        kind=planned.entry.row_name,
        stage=planned.stage.name,
        outcome=DROPPED,
    )
    if done is None:
        return asked
    answer = done.answer
    usage = answer.usage
    return dataclasses.replace(
        asked,
        input_tokens=asked.input_tokens if usage is None else usage.input_tokens,
        output_tokens=asked.output_tokens if usage is None else usage.output_tokens,
        outcome=str(answer.outcome),
        start_lag_seconds=_rounded(done.start_lag_seconds),
        ttft_seconds=_rounded(done.ttft_seconds),
        tpot_seconds=_rounded(answer.tpot_seconds),
        latency_seconds=_rounded(done.latency_seconds),
        variant=done.variant,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, RECORDED_DECIMALS)


def total(rows: Iterable[Row]) -> Row:
    """Return the sum of rows."""
    result = Row()
    for row in rows:
        result.merge(row)
    return result
