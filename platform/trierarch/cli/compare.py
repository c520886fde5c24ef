"""``trierarch compare``: several policies and the best possible schedule on one trace."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trierarch.cli.simulation_options import (
    SMALL_TRACE_REQUESTS,
    load_trace,
    make_folder,
    progress_bar,
    scenario_options,
)
from trierarch.cli.tables import format_table
from trierarch.core.errors import InvalidInput

if TYPE_CHECKING:
    from trierarch.simulation.comparison import Comparison

DEFAULT_OUT = Path("trierarch-compare")
SMALL_TRACE_SEEDS = 3
LONGEST_HOURS = 48.0
"""Some recordings span months; policies are told apart by their hardest days."""
MOST_REQUESTS = 400_000
"""Requests of the hardest part that is compared on unless a length is asked for: minutes on one
core, where a whole day of a busy service takes half an hour."""
TUNING_SHARE = 0.5
"""Share of the progress bar that tuning gets."""


@click.command()
@scenario_options
@click.option(
    "--policies",
    default=None,
    metavar="A,B,...",
    help="Which ones; NAME:tuned is a peer with its best setting on the first half of the trace."
    "  [default: all, peers also tuned]",
)
@click.option(
    "--attainment",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=0.99,
    show_default=True,
    help="Share of requests that must meet both objectives.",
)
@click.option(
    "--rate-factor",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help="Multiply the number of requests.  [default: 1, or what makes a small trace need 5 "
    "replicas at its peak]",
)
@click.option(
    "--seeds",
    "seed_count",
    type=click.IntRange(min=1),
    default=None,
    help="Runs per policy, from --seed on.  [default: 3, 1 for a long trace]",
)
@click.option(
    "--sweep/--no-sweep",
    "is_swept",
    default=None,
    help="Also run what came next in the tuning, for curves and for hindsight.  "
    "[default: not for a long trace]",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=None,
    help="Processes to use.  [default: one per processor]",
)
def compare(
    policies: str | None,
    attainment: float,
    seed_count: int | None,
    is_swept: bool | None,
    jobs: int | None,
    seed: int,
    out: Path | None,
    as_json: bool,
    longest_hours: float | None,
    half: str | None,
    **choices: Any,
) -> None:
    """Compare scaling policies on one trace with the best schedule that knows the future.

    Prints a table and writes compare.png, compare.html and compare.json. Policies that meet
    the attainment target come first, cheapest first; a * marks those that miss it. Regret is
    cost over the clairvoyant schedule's. Everyone is judged on the second half of the trace. Peers
    take part with their defaults and with the best setting found on the first half; trierarch has
    no setting to find and serves the first half before. What it does worse than others is listed
    too. A long or busy trace is cut to its hardest part, which the table says;
    --longest-hours sets how long that is.
    """
    trace, chosen = load_trace(
        seed=seed, longest_hours=longest_hours or LONGEST_HOURS, half=half, **choices
    )
    if longest_hours is None:
        chosen = dataclasses.replace(chosen, most_requests=MOST_REQUESTS)
    from trierarch.simulation.comparison import compare as run
    from trierarch.simulation.contestants import (
        choose_contestants,
        tuned_policies,
        with_curves,
        with_tuning,
    )
    from trierarch.simulation.scenarios import ALL, TEST, TRAINING, build_scenario
    from trierarch.simulation.tuning import FEWEST_REQUESTS, tune

    names = None if policies is None else [name.strip() for name in policies.split(",")]
    contestants = choose_contestants(names)
    if half is None:
        earlier, later = trace.halves()
        can_learn = len(later) > 0 and len(earlier) >= FEWEST_REQUESTS
        chosen = dataclasses.replace(chosen, half=TEST if can_learn else ALL)
    scenario = build_scenario(trace, chosen)
    is_small = len(scenario.trace) <= SMALL_TRACE_REQUESTS
    count = seed_count or (SMALL_TRACE_SEEDS if is_small else 1)
    processes = jobs or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    to_tune = tuned_policies(contestants)
    tuning = None
    with progress_bar(is_shown=not as_json) as report:
        if to_tune:
            try:
                tuning = tune(
                    scenario.training
                    or build_scenario(trace, dataclasses.replace(chosen, half=TRAINING)),
                    to_tune,
                    attainment=attainment,
                    seed=seed,
                    jobs=processes,
                    progress=lambda label, share: report(label, TUNING_SHARE * share),
                )
            except InvalidInput as error:
                # A handful of requests can be compared on, but nothing can be learned from half.
                click.echo(f"Peers are not tuned: {error}", err=True)
                contestants = [c for c in contestants if c.policy not in to_tune or not c.is_tuned]
            else:
                contestants = with_tuning(contestants, tuning)
        start = TUNING_SHARE if tuning is not None else 0.0
        comparison = run(
            scenario,
            with_curves(contestants, scenario, tuning)
            if (is_small if is_swept is None else is_swept)
            else contestants,
            seeds=range(seed, seed + count),
            attainment=attainment,
            jobs=processes,
            progress=lambda label, share: report(label, start + (1 - start) * share),
        )
    folder = out or (None if as_json else DEFAULT_OUT)
    if folder is not None:
        _write(make_folder(folder), comparison)
    if as_json:
        click.echo(json.dumps(comparison.to_json(), indent=2))
    else:
        _print(comparison)
        click.echo(f"\nPlot and table are in {folder}: compare.png, compare.html, compare.json.")


def _print(comparison: Comparison) -> None:
    from trierarch.simulation.report import sentences, table_header, table_rows

    click.echo(f"{comparison.scenario.trace.name}, {comparison.scenario.setup.name} fleet\n")
    click.echo(format_table(table_header(comparison), table_rows(comparison)))
    click.echo("\n* misses the attainment target\n")
    for sentence in sentences(comparison):
        click.echo(sentence)


def _write(folder: Path, comparison: Comparison) -> None:
    from trierarch.simulation.page import render_page
    from trierarch.simulation.plots import pareto_figure, to_png
    from trierarch.simulation.report import sentences, table_header, table_rows

    page = render_page(
        comparison, table_header(comparison), table_rows(comparison), sentences(comparison)
    )
    try:
        (folder / "compare.json").write_text(
            json.dumps(comparison.to_json(), indent=2) + "\n", encoding="utf-8"
        )
        (folder / "compare.png").write_bytes(to_png(pareto_figure(comparison)))
        (folder / "compare.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{folder}: cannot be written ({error.strerror})") from error
