"""The verdict: thresholds against what was found, as a pure function.

A limit without a sample to judge is missed: nothing measured is not "fast". A
check that the endpoint cannot offer is neither passed nor missed, unless the
scenario requires it.
"""

import dataclasses
import enum

from trierarch_loadtests.reporting.ledger import LedgerResult
from trierarch_loadtests.reporting.tally import Row, Tally
from trierarch_loadtests.scenario import LatencyThresholds, Scenario


class Judgement(enum.StrEnum):
    """How one check came out."""

    PASSED = "passed"
    MISSED = "missed"
    NOT_AVAILABLE = "not available"


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One threshold and what was found."""

    name: str
    limit: str
    observed: float | int | None
    judgement: Judgement
    note: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """All checks of a run."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check was missed."""
        return all(check.judgement is not Judgement.MISSED for check in self.checks)


_PERCENTILES = {
    "ttft_p50_seconds": ("ttft_seconds", 50.0),
    "ttft_p95_seconds": ("ttft_seconds", 95.0),
    "tpot_p50_seconds": ("tpot_seconds", 50.0),
    "tpot_p95_seconds": ("tpot_seconds", 95.0),
    "gap_p99_seconds": ("gap_seconds", 99.0),
    "latency_p95_seconds": ("latency_seconds", 95.0),
}


def judge(
    scenario: Scenario, tally: Tally, ledger: LedgerResult, *, unfinished: str | None
) -> Verdict:
    """Return the verdict of a run.

    Args:
        scenario: Its thresholds and whether the ledger check is required.
        tally: Everything counted, of all workers.
        ledger: The comparison of tokens.
        unfinished: Why the plan was not carried out to its end, or ``None`` if it was.
    """
    limits = scenario.thresholds
    measured = tally.measured()
    everything = tally.everything()
    checks = []
    if unfinished is not None:
        checks.append(Check("plan_carried_out", "yes", None, Judgement.MISSED, unfinished))
    checks += _latency_checks(limits, measured, prefix="")
    for stage, stage_limits in limits.stages.items():
        checks += _latency_checks(stage_limits, tally.of_stage(stage), prefix=f"{stage}/")
    if limits.error_ratio is not None:
        planned = measured.counts["planned"]
        ratio = measured.failed / planned if planned else None
        checks.append(_at_most("error_ratio", limits.error_ratio, ratio))
    if limits.lost_streams is not None:
        checks.append(
            _at_most("lost_streams", limits.lost_streams, everything.counts["lost_stream"])
        )
    if limits.dropped_requests is not None:
        checks.append(
            _at_most("dropped_requests", limits.dropped_requests, everything.counts["dropped"])
        )
    if limits.start_lag_p99_seconds is not None:
        lag = everything.histograms["start_lag_seconds"].percentile(99)
        checks.append(_at_most("start_lag_p99_seconds", limits.start_lag_p99_seconds, lag))
    if limits.goodput_ratio is not None:
        checks.append(_goodput_check(limits.goodput_ratio, measured))
    if limits.ledger_token_difference is not None:
        checks.append(
            _ledger_check(limits.ledger_token_difference, ledger, scenario.ledger.required)
        )
    return Verdict(tuple(checks))


def _latency_checks(limits: LatencyThresholds, row: Row, *, prefix: str) -> list[Check]:
    checks = []
    for name, (histogram, percent) in _PERCENTILES.items():
        limit = getattr(limits, name)
        if limit is not None:
            observed = row.histograms[histogram].percentile(percent)
            checks.append(_at_most(prefix + name, limit, observed))
    return checks


def _at_most(name: str, limit: float, observed: float | None) -> Check:
    if observed is None:
        return Check(name, f"<= {limit:g}", None, Judgement.MISSED, "no sample")
    judgement = Judgement.PASSED if observed <= limit else Judgement.MISSED
    return Check(name, f"<= {limit:g}", observed, judgement)


def _goodput_check(limit: float, row: Row) -> Check:
    planned = row.counts["planned"]
    if not planned:
        return Check("goodput_ratio", f">= {limit:g}", None, Judgement.MISSED, "no sample")
    ratio = row.counts["good"] / planned
    judgement = Judgement.PASSED if ratio >= limit else Judgement.MISSED
    return Check("goodput_ratio", f">= {limit:g}", ratio, judgement)


def _ledger_check(limit: int, ledger: LedgerResult, required: bool) -> Check:
    difference = ledger.difference_tokens
    if not ledger.available and not required:
        judgement = Judgement.NOT_AVAILABLE
    elif difference is not None and difference <= limit:
        judgement = Judgement.PASSED
    else:
        judgement = Judgement.MISSED
    return Check("ledger_token_difference", f"<= {limit}", difference, judgement, ledger.note)
