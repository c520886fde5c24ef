"""The result files: ``summary.json`` for programs, ``summary.md`` for people.

A figure means nothing without how it was made, so every summary carries the
machine, the commit, the seed, the scenario, the server's own version, how late
the generator was and how many requests it could not send.
"""

import dataclasses
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from trierarch_loadtests.plan import Plan
from trierarch_loadtests.reporting.histogram import RELATIVE_ERROR
from trierarch_loadtests.reporting.ledger import LedgerResult
from trierarch_loadtests.reporting.slo import Verdict
from trierarch_loadtests.reporting.tally import TIMELINE_SECONDS, Row, Tally
from trierarch_loadtests.shapes.stages import total_seconds

FORMAT = "trierarch-loadtest/1"
LAG_WARNING_SECONDS = 0.1
"""99th percentile of start lag above which the generator itself shapes the load."""

DEFINITIONS = {
    "loop": "open: arrivals do not wait for answers",
    "latency": "from the planned start of a request, so a late generator or server shows",
    "ttft": "to the first event with content; an event that only names the role does not count",
    "tpot": "(last - first event with content) / (output tokens by the server's usage - 1)",
    "gap": "between neighbouring events with content; one event may carry several tokens",
    "latencies_of": "complete requests of measured stages; failures are in the error ratio",
    "connection": "a new one for each request; connect time is part of every latency",
    "percentiles": f"from merged histograms, within {RELATIVE_ERROR:.0%}",
}


@dataclasses.dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known about a run besides its numbers."""

    run_id: str
    started_at: str
    """UTC, ISO 8601."""
    workers: int
    duration_factor: float
    """What the scenario's durations were multiplied by."""
    requests: int
    """How many the plan has."""
    base_url: str
    model: str
    engine: str
    """The server's own version and where it was read, or that it is not reported."""
    environment: dict[str, str]
    commit: str
    command: str
    notes: tuple[str, ...]
    cpu_saturated: bool
    unfinished: str | None


def build_summary(
    facts: RunFacts, plan: Plan, tally: Tally, ledger: LedgerResult, verdict: Verdict
) -> dict[str, Any]:
    """Return the content of ``summary.json``."""
    measured = tally.measured()
    measured_seconds = total_seconds([stage for stage in plan.stages if stage.measured])
    return {
        "format": FORMAT,
        "scenario": plan.scenario.name,
        "run": dataclasses.asdict(facts),
        "seed": plan.scenario.seed,
        "plan": {
            "arrivals": plan.arrivals_summary,
            "seconds": total_seconds(plan.stages),
            "requests": facts.requests,
            "maximum_ongoing_requests": plan.scenario.maximum_ongoing_requests,
            "stages": [dataclasses.asdict(stage) for stage in plan.stages],
        },
        "definitions": DEFINITIONS,
        "verdict": {
            "passed": verdict.passed,
            "checks": [dataclasses.asdict(check) for check in verdict.checks],
        },
        "warnings": warnings(facts, tally),
        "slo": plan.scenario.slo.model_dump(),
        "totals": _row_summary(tally.everything()),
        "measured": _row_summary(measured) | _rates(measured, measured_seconds),
        "stages": {
            name: _row_summary(tally.of_stage(name))
            for name in dict.fromkeys(stage.name for stage in plan.stages)
        },
        "kinds": {
            name: _row_summary(tally.of_kind(name))
            for name in sorted({key.kind for key in tally.rows})
        },
        "timeline": {
            "row_seconds": TIMELINE_SECONDS,
            "rows": [
                _timeline_row(index, tally.timeline[index]) for index in sorted(tally.timeline)
            ],
        },
        "ledger": _ledger_summary(ledger, tally.everything()),
        "answers_by_variant": dict(tally.variants),
        "fingerprints": dict(tally.fingerprints),
        "failures": tally.failures,
    }


def warnings(facts: RunFacts, tally: Tally) -> list[str]:
    """Return what makes the figures doubtful, one sentence each."""
    found = []
    row = tally.everything()
    if dropped := row.counts["dropped"]:
        found.append(
            f"{dropped} of {row.counts['planned']} planned requests were dropped because "
            "the cap on ongoing requests was reached: the server got less than was planned."
        )
    lag = row.histograms["start_lag_seconds"].percentile(99)
    if lag is not None and lag > LAG_WARNING_SECONDS:
        found.append(
            f"The generator itself was late (99th percentile {lag:.3f} s); use more workers."
        )
    if facts.cpu_saturated:
        found.append("A load generator process used over 90 % of its CPU core; use more workers.")
    if unknown := row.counts["usage_unknown"]:
        found.append(f"{unknown} requests brought no usage; their tokens are not counted.")
    if facts.unfinished is not None:
        found.append(f"The plan was not carried out to its end: {facts.unfinished}.")
    return found


def _row_summary(row: Row) -> dict[str, Any]:
    counts = {str(name): count for name, count in sorted(row.counts.items())}
    planned = row.counts["planned"]
    return {
        "counts": counts,
        "failed": row.failed,
        "error_ratio": row.failed / planned if planned else None,
        "goodput_ratio": row.counts["good"] / planned if planned else None,
        **{name: histogram.summary() for name, histogram in row.histograms.items()},
    }


def _rates(row: Row, seconds: float) -> dict[str, float]:
    """Return rates over the planned time of the measured stages, for answers planned in it."""
    return {
        "seconds": seconds,
        "planned_requests_per_second": row.counts["planned"] / seconds,
        "complete_requests_per_second": row.counts["complete"] / seconds,
        "good_requests_per_second": row.counts["good"] / seconds,
        "output_tokens_per_second": row.counts["output_tokens"] / seconds,
        "good_output_tokens_per_second": row.counts["good_output_tokens"] / seconds,
    }


def _timeline_row(index: int, row: Row) -> dict[str, Any]:
    return {
        "from_seconds": index * TIMELINE_SECONDS,
        "planned": row.counts["planned"],
        "dropped": row.counts["dropped"],
        "complete": row.counts["complete"],
        "failed": row.failed,
        "output_tokens": row.counts["output_tokens"],
        "ttft_p50_seconds": row.histograms["ttft_seconds"].percentile(50),
        "ttft_p95_seconds": row.histograms["ttft_seconds"].percentile(95),
        "tpot_p95_seconds": row.histograms["tpot_seconds"].percentile(95),
    }


def _ledger_summary(ledger: LedgerResult, everything: Row) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "available": ledger.available,
        "note": ledger.note,
        "client": dataclasses.asdict(ledger.client),
        "ledger": dataclasses.asdict(ledger.ledger) if ledger.ledger else None,
        "difference_tokens": ledger.difference_tokens,
        "client_complete_requests": everything.counts["complete"],
        "ledger_requests": ledger.requests,
        "spend": None,
        "per_million_output_tokens": None,
    }
    if ledger.spend is not None:
        summary["spend"] = {"amount": str(ledger.spend), "currency": ledger.currency}
        if ledger.ledger is not None and ledger.ledger.output_tokens > 0:
            unit = ledger.spend * 1_000_000 / Decimal(ledger.ledger.output_tokens)
            summary["per_million_output_tokens"] = {
                "amount": f"{unit:.6f}",
                "currency": ledger.currency,
            }
    return summary


def write_results(directory: Path, summary: dict[str, Any], markdown: str, plan: Plan) -> None:
    """Write ``summary.json``, ``summary.md`` and the effective ``scenario.yaml``.

    Raises:
        OSError: If the directory cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(summary, indent=2, allow_nan=False)
    (directory / "summary.json").write_text(text + "\n", encoding="utf-8")
    (directory / "summary.md").write_text(markdown, encoding="utf-8")
    scenario = plan.scenario.model_dump(mode="json", exclude_none=True)
    (directory / "scenario.yaml").write_text(
        yaml.safe_dump(scenario, sort_keys=False), encoding="utf-8"
    )
