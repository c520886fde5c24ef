"""Pictures of a comparison: cost against attainment, and replicas over time."""

from __future__ import annotations

import io

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trierarch.simulation.clairvoyant.evidence import slot_length_seconds
from trierarch.simulation.comparison import Comparison, Row
from trierarch.simulation.defaults import replicas_needed
from trierarch.simulation.policies import CLAIRVOYANT, OURS

OURS_COLOR, CLAIRVOYANT_COLOR, PEER_COLOR = "#c0392b", "#2c3e50", "#7f8c8d"
LOAD_WINDOW_SECONDS = 300.0
DOTS_PER_INCH = 120


def pareto_figure(comparison: Comparison) -> Figure:
    """Return dollars per million SLO tokens against attainment; one small dot per seed."""
    figure = Figure(figsize=(9.5, 6.0), layout="constrained")
    axes = figure.add_subplot()
    everything = [*comparison.swept, *comparison.rows]
    policies = list(dict.fromkeys(row.contestant.policy for row in everything))
    palette = mpl.colormaps["tab20"]
    for index, policy in enumerate(policies):
        color = {OURS: OURS_COLOR, CLAIRVOYANT: CLAIRVOYANT_COLOR}.get(policy, palette(index % 20))
        mine = sorted(
            (row for row in everything if row.contestant.policy == policy),
            key=lambda row: row.usd_per_million_slo_tokens,
        )
        _draw_policy(axes, policy, mine, color)
    target = comparison.attainment_target
    axes.axhline(100 * target, color="black", linewidth=0.8, linestyle=":")
    axes.annotate(
        f" target {target:.2%}",
        (0, 100 * target),
        xycoords=("axes fraction", "data"),
        va="bottom",
        fontsize=8,
    )
    axes.set_xlabel("dollars per million tokens that met the objective")
    axes.set_ylabel("requests that met TTFT and TPOT, %")
    _zoom(axes, comparison)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    axes.set_title(f"{comparison.scenario.trace.name}, {comparison.scenario.setup.name} fleet")
    return figure


def _draw_policy(axes: Axes, policy: str, rows: list[Row], color: object) -> None:
    finite = [row for row in rows if np.isfinite(row.usd_per_million_slo_tokens)]
    if not finite:
        return
    for row in finite:
        costs = [run.usd_per_million_slo_tokens or np.nan for run in row.runs]
        shares = [100 * run.slo_attainment.both for run in row.runs]
        axes.plot(costs, shares, ".", color=color, alpha=0.4, markersize=4)
    marker = "*" if policy in (OURS, CLAIRVOYANT) else "o"
    axes.plot(
        [row.usd_per_million_slo_tokens for row in finite],
        [100 * row.attainment for row in finite],
        marker=marker,
        markersize=11 if marker == "*" else 5,
        linewidth=0.8,
        color=color,
        label=policy,
    )


def _zoom(axes: Axes, comparison: Comparison) -> None:
    """Show the policies that come near the target; far-off points would hide the rest."""
    near = [
        row
        for row in comparison.rows
        if row.attainment > comparison.attainment_target - 0.15
        and np.isfinite(row.usd_per_million_slo_tokens)
    ]
    if near:
        lowest = min(row.attainment for row in near)
        axes.set_ylim(100 * lowest - 1.0, min(100.4, 100 * comparison.ceiling + 1.0))
        dearest = max(row.usd_per_million_slo_tokens for row in near)
        cheapest = min(row.usd_per_million_slo_tokens for row in near)
        axes.set_xlim(0.9 * cheapest, 1.1 * dearest)


def timeline_figure(comparison: Comparison) -> Figure:
    """Return ready replicas over time of ours, the best peer and the schedule, over the load."""
    figure = Figure(figsize=(9.5, 4.0), layout="constrained")
    axes = figure.add_subplot()
    setup, trace = comparison.scenario.setup, comparison.scenario.trace
    load = replicas_needed(setup, trace, window_seconds=LOAD_WINDOW_SECONDS)
    hours = np.arange(len(load)) * LOAD_WINDOW_SECONDS / 3600
    axes.fill_between(hours, load, step="post", color="#dfe6e9", label="work that arrives")
    labels = [OURS, CLAIRVOYANT]
    if comparison.best_peer is not None:
        labels.insert(1, comparison.best_peer.contestant.label)
    slot_hours = slot_length_seconds(setup, trace) / 3600
    colors = {OURS: OURS_COLOR, CLAIRVOYANT: CLAIRVOYANT_COLOR}
    for label in labels:
        evidence = comparison.timelines.get(label)
        if evidence is None:
            continue
        total = evidence.ready.sum(axis=1)
        axes.step(
            np.arange(len(total)) * slot_hours,
            total,
            where="post",
            linewidth=1.0,
            label=label,
            color=colors.get(label, PEER_COLOR),
        )
    axes.set_xlabel("hours")
    axes.set_ylabel("ready replicas")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def to_png(figure: Figure) -> bytes:
    """Return the picture as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()


def to_svg(figure: Figure) -> str:
    """Return the picture as an SVG element for a page."""
    buffer = io.StringIO()
    # No creation date: the same comparison gives the same page.
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
