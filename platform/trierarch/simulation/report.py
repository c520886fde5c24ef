"""A comparison in words: the table's cells and the sentences below it."""

from __future__ import annotations

import math

from trierarch.simulation.comparison import Comparison, Row, mean_summary

HEADER = (
    "policy",
    "cost $",
    "$/M tokens",
    "$/M SLO tokens",
    "TTFT met",
    "TPOT met",
    "both met",
    "replica-h",
    "changes",
    "reversals",
    "max queue",
    "lost",
    "regret",
)
FLEX_COLUMN = 7


def table_header(comparison: Comparison) -> list[str]:
    """Return the columns; flex only where there is flex traffic."""
    header = list(HEADER)
    if _has_flex(comparison):
        header.insert(FLEX_COLUMN, "flex met")
    return header


def table_rows(comparison: Comparison) -> list[list[str]]:
    """Return one line per policy, those that meet the target first, cheapest first."""
    order = sorted(
        comparison.rows, key=lambda row: (not row.meets_target, row.usd_per_million_slo_tokens)
    )
    return [_cells(comparison, row) for row in order]


def sentences(comparison: Comparison) -> list[str]:
    """Return what it comes to."""
    scenario = comparison.scenario
    objective = scenario.setup.objective
    lines = [
        f"{len(scenario.trace)} requests in {scenario.trace.duration_seconds / 3600:.1f} h; "
        f"objective: TTFT {objective.ttft_seconds:g} s and TPOT {objective.tpot_seconds * 1e3:g} "
        f"ms for {comparison.attainment_target:.2%} of the requests "
        f"(the largest fleet allowed reaches {comparison.ceiling:.2%})."
    ]
    if scenario.rate_factor != 1.0:
        lines.append(f"The trace's request rate was multiplied by {scenario.rate_factor:g}.")
    lines += [f"Trace: {note}." for note in scenario.trace.notes]
    peer, ours = comparison.best_peer, comparison.ours
    if peer is None:
        lines.append("No peer meets the target.")
    elif ours is not None and comparison.captured_share is not None:
        saving = comparison.slo_token_saving or 0.0
        lines.append(
            f"Best peer that meets the target: {peer.contestant.label}. trierarch costs "
            f"{_less_or_more(1 - ours.cost_usd / peer.cost_usd)} than it "
            f"({_less_or_more(saving)} per SLO token) and captures "
            f"{comparison.captured_share:.0%} of the gap to the clairvoyant schedule."
        )
    else:
        lines.append(f"Best peer that meets the target: {peer.contestant.label}.")
    hindsight, share = comparison.best_hindsight_peer, comparison.hindsight_captured_share
    if hindsight is not None and hindsight is not peer and share is not None:
        lines.append(
            f"With hindsight, a setting tried on this very trace, the best peer is "
            f"{hindsight.contestant.label}; trierarch captures {share:.0%} of that gap."
        )
    lines.append(
        f"No schedule can cost less than ${comparison.fluid_bound_usd:,.2f} (fluid bound); the "
        f"cheapest one found costs ${comparison.clairvoyant.cost_usd:,.2f}."
    )
    lines += [f"Where trierarch loses: {loss}." for loss in comparison.losses()]
    return lines


def _cells(comparison: Comparison, row: Row) -> list[str]:
    run = mean_summary(row.runs)
    cells = [
        row.contestant.label if row.meets_target else f"* {row.contestant.label}",
        f"{run.cost_usd:,.2f}",
        _dollars(run.usd_per_million_tokens),
        _dollars(run.usd_per_million_slo_tokens),
        f"{run.slo_attainment.ttft:.2%}",
        f"{run.slo_attainment.tpot:.2%}",
        f"{run.slo_attainment.both:.2%}",
        f"{run.replica_hours:,.1f}",
        str(run.scale_events),
        str(run.reversals),
        str(run.max_queue),
        str(run.lost_requests),
        f"{row.regret:.3f}",
    ]
    if _has_flex(comparison):
        flex = run.flex_attainment
        cells.insert(FLEX_COLUMN, "-" if flex is None else f"{flex:.2%}")
    return cells


def _less_or_more(saving: float) -> str:
    return f"{abs(saving):.1%} {'less' if saving >= 0 else 'more'}"


def _dollars(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _has_flex(comparison: Comparison) -> bool:
    return any(run.flex_attainment is not None for row in comparison.rows for run in row.runs)
