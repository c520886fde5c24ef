"""The benchmark's results as a page of the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trierarch.simulation.comparison import Comparison
from trierarch.simulation.report import HEADER, sentences, table_header, table_rows

TOP = """# Scaling policies on real traces

Written by `{command}`, commit `{commit}`, on {machine}.
Do not edit: run it again.

Peers were tuned on the first half of each trace, and everyone is judged on the second half.
trierarch is not tuned: it has the settings that an operator of the fleet would write down. Costs
are simulated, with the same requests, cold starts, market, prices, router and metrics for all. How
it is made comparable is told in [the reference of the policies](../reference/policies.md), the
commands in [the guide](../guides/compare-policies.md).

A policy with `*` misses the attainment target. *Regret* is cost over that of the clairvoyant
schedule, which knows the future and is found in the same simulator. *Captured* is (best peer -
trierarch) / (best peer - clairvoyant) in cost; *saving* is in dollars per million tokens that met
the objective. *Hindsight* takes the best setting of any peer that was tried on the judged half
itself, which nobody could have known.

| trace | fleet | target; trierarch | best peer | captured | saving | hindsight: captured; saving |
|---|---|---|---|---|---|---|
"""
GOALS = "The goals are 70 % captured on the single fleet and 25 % saved on the mixed one."
FEW_COLUMNS = ("policy", "cost $", "$/M SLO tokens", "both met", "reversals", "regret")


def render_page(
    comparisons: Sequence[Comparison],
    speed: Mapping[str, float],
    *,
    command: str,
    commit: str,
    machine: str,
) -> str:
    """Return the page in Markdown."""
    lines = [TOP.format(command=command, commit=commit[:12], machine=machine).rstrip("\n")]
    lines += [_overview(comparison) for comparison in comparisons]
    lines += [
        "",
        "The goals are 70 % captured on the single fleet and 25 % saved on the mixed one.",
    ]
    if speed:
        lines += [
            "",
            f"One run of trierarch's policy over {speed['simulated_requests']:,.0f} requests takes "
            f"{speed['simulation_seconds']:.1f} s on one core, compilation not counted "
            f"({speed['compilation_seconds']:.1f} s here; it is kept for later processes).",
        ]
    for comparison in comparisons:
        scenario = comparison.scenario
        lines += ["", f"## {scenario.trace.name}, {scenario.setup.name} fleet", ""]
        lines += _table(comparison)
        lines += ["", *(f"- {sentence}" for sentence in sentences(comparison))]
    return "\n".join(lines) + "\n"


def _overview(comparison: Comparison) -> str:
    ours, peer = comparison.ours, comparison.best_peer
    cells = [
        comparison.scenario.trace.name,
        comparison.scenario.setup.name,
        f"{comparison.attainment_target:.2%}; {ours.attainment:.2%}" if ours is not None else "-",
        "none meets the target" if peer is None else peer.contestant.label,
        _share(comparison.captured_share),
        _share(comparison.slo_token_saving),
        f"{_share(comparison.hindsight_captured_share)}; "
        f"{_share(comparison.hindsight_slo_token_saving)}",
    ]
    return f"| {' | '.join(cells)} |"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _table(comparison: Comparison) -> list[str]:
    header = table_header(comparison)
    wanted = [header.index(name) for name in header if name in FEW_COLUMNS or name not in HEADER]
    lines = [f"| {' | '.join(header[index] for index in wanted)} |", "|---" * len(wanted) + "|"]
    for cells in table_rows(comparison):
        # A star at the start of a cell would open an emphasis.
        shown = [cells[index].replace("*", r"\*") for index in wanted]
        lines.append(f"| {' | '.join(shown)} |")
    return lines
