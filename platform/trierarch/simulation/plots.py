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
from trierarch.simulation.runs import DEFAULT

OURS_COLOR, CLAIRVOYANT_COLOR, PEER_COLOR = "#c0392b", "#2c3e50", "#7f8c8d"
_STARS = {OURS: OURS_COLOR, CLAIRVOYANT: CLAIRVOYANT_COLOR}
PALETTE = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">")
"""Not as many as colours, so that no two peers share both."""
LOAD_WINDOW_SECONDS = 300.0
DOTS_PER_INCH = 120


def pareto_figure(comparison: Comparison) -> Figure:
    """Return dollars per million SLO tokens against attainment; one small dot per seed.

    A policy's settings are joined by a thin line; its default is hollow. Policies with no point in
    the picture are named below it.
    """
    figure = Figure(figsize=(10.5, 6.0), layout="constrained")
    axes = figure.add_subplot()
    _zoom(axes, comparison)
    everything = [*comparison.swept, *comparison.rows]
    unseen = []
    peers = 0
    for policy in _by_cost(comparison):
        mine = sorted(
            (row for row in everything if row.contestant.policy == policy),
            key=lambda row: row.usd_per_million_slo_tokens,
        )
        if not any(_is_seen(axes, row) for row in mine):
            unseen.append(policy)
        elif policy in _STARS:
            _draw_policy(axes, policy, mine, _STARS[policy], "*")
        else:
            color = PALETTE[peers % len(PALETTE)]
            _draw_policy(axes, policy, mine, color, MARKERS[peers % len(MARKERS)])
            peers += 1
    target = comparison.attainment_target
    axes.axhline(100 * target, color="black", linewidth=0.8, linestyle=":")
    axes.annotate(
        f"target {target:.2%} ",
        (1, 100 * target),
        xycoords=("axes fraction", "data"),
        va="bottom",
        ha="right",
        fontsize=8,
    )
    note = f"\nnot in the picture, too far off: {', '.join(unseen)}" if unseen else ""
    axes.set_xlabel(f"dollars per million tokens that met the objective{note}", wrap=True)
    axes.set_ylabel("requests that met TTFT and TPOT, %")
    axes.grid(alpha=0.3)
    figure.legend(
        fontsize=8,
        loc="outside right upper",
        title="cheapest first;\nhollow: defaults",
        title_fontsize=8,
    )
    axes.set_title(f"{comparison.scenario.trace.name}, {comparison.scenario.setup.name} fleet")
    return figure


def _by_cost(comparison: Comparison) -> list[str]:
    """Return the policies: those that meet the target first, by cost, then by attainment."""
    rows = sorted(
        comparison.rows,
        key=lambda row: (
            (0, row.usd_per_million_slo_tokens) if row.meets_target else (1, -row.attainment)
        ),
    )
    return list(dict.fromkeys(row.contestant.policy for row in rows))


def _is_seen(axes: Axes, row: Row) -> bool:
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    return left <= row.usd_per_million_slo_tokens <= right and bottom <= 100 * row.attainment <= top


def _draw_policy(axes: Axes, policy: str, rows: list[Row], color: str, marker: str) -> None:
    finite = [row for row in rows if np.isfinite(row.usd_per_million_slo_tokens)]
    is_star = marker == "*"
    for row in finite:
        costs = [run.usd_per_million_slo_tokens or np.nan for run in row.runs]
        shares = [100 * run.slo_attainment.both for run in row.runs]
        axes.plot(costs, shares, ".", color=color, alpha=0.35, markersize=3)
    costs = [row.usd_per_million_slo_tokens for row in finite]
    shares = [100 * row.attainment for row in finite]
    axes.plot(costs, shares, linewidth=1.4 if is_star else 0.6, alpha=0.6, color=color)
    for row, cost, share in zip(finite, costs, shares, strict=True):
        axes.plot(
            cost,
            share,
            marker=marker,
            linestyle="",
            markersize=(14 if row.contestant.setting == DEFAULT else 8) if is_star else 6,
            color=color,
            markerfacecolor="white" if row.contestant.setting == DEFAULT and not is_star else color,
            zorder=3 if is_star else 2,
        )
    axes.plot([], [], marker=marker, color=color, linewidth=0.8, label=policy)


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
