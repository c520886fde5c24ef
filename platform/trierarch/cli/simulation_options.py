"""Options that ``simulate`` and ``compare`` share, and their progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from trierarch.core.errors import InvalidInput

if TYPE_CHECKING:
    from trierarch.simulation.scenarios import Scenario, ScenarioChoices
    from trierarch.simulation.traces import Trace

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
SMALL_TRACE_REQUESTS = 300_000
"""Up to here a run takes a second or two, so more of them are made."""


def scenario_options(command: CommandT) -> CommandT:
    """Add the options that say which trace runs on which fleet."""
    options = [
        click.option(
            "--trace",
            "trace_file",
            required=True,
            type=click.Path(path_type=Path),
            help="Requests: Azure, BurstGPT, Mooncake, Qwen-Bailian, ServeGen clients, or a CSV "
            "with arrival_seconds,input_tokens,output_tokens. Plain or gzipped.",
        ),
        click.option(
            "--fleet",
            type=click.Choice(("single", "mixed")),
            default="single",
            show_default=True,
            help="One on-demand variant, or on-demand and spot with reclaims, price steps and "
            "30 % flex traffic.",
        ),
        click.option(
            "--half",
            type=click.Choice(("all", "train", "test")),
            default=None,
            help="Which part of the trace's time to run.  [default: all; for compare test, which "
            "nobody has seen: peers are tuned on the first half, and trierarch learns there]",
        ),
        click.option(
            "--longest-hours",
            type=click.FloatRange(min=0, min_open=True),
            default=None,
            help="Cut a longer trace to its hardest part of this length.  "
            "[default: all; for compare 48, and less where that is over 400,000 requests]",
        ),
        click.option(
            "--spot-trace",
            default="gcp",
            show_default=True,
            metavar="gcp|aws|FILE",
            help="Spot market of the mixed fleet.",
        ),
        click.option(
            "--cold-start-seconds",
            type=click.FloatRange(min=0),
            default=None,
            help="Median time until a replica serves.  [default: 300]",
        ),
        click.option(
            "--ttft-seconds",
            type=click.FloatRange(min=0, min_open=True),
            default=2.0,
            show_default=True,
            help="Objective: time to first token.",
        ),
        click.option(
            "--tpot-seconds",
            type=click.FloatRange(min=0, min_open=True),
            default=0.05,
            show_default=True,
            help="Objective: time per output token after the first.",
        ),
        click.option(
            "--metrics-loss",
            type=click.FloatRange(min=0, max=1, max_open=True),
            default=0.0,
            help="Share of metric scrapes that fail.",
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
        click.option(
            "--out",
            type=click.Path(path_type=Path, file_okay=False),
            default=None,
            help="Folder for the results.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def load_scenario(rate_factor: float | None, **choices: Any) -> Scenario:
    """Return the scenario that the options describe.

    Raises:
        InvalidInput: If the simulator is not installed or an input cannot be used.
    """
    trace, chosen = load_trace(rate_factor=rate_factor, **choices)
    from trierarch.simulation.scenarios import build_scenario

    return build_scenario(trace, chosen)


def load_trace(
    *,
    trace_file: Path,
    fleet: str,
    half: str | None,
    longest_hours: float | None,
    spot_trace: str,
    cold_start_seconds: float | None,
    ttft_seconds: float,
    tpot_seconds: float,
    metrics_loss: float,
    seed: int,
    rate_factor: float | None,
) -> tuple[Trace, ScenarioChoices]:
    """Return the requests and what the options choose beside them.

    Raises:
        InvalidInput: If the simulator is not installed or an input cannot be used.
    """
    require_simulator()
    from trierarch.simulation.fleet.setup import Objective
    from trierarch.simulation.scenarios import ALL, ScenarioChoices
    from trierarch.simulation.traces import read_trace

    choices = ScenarioChoices(
        fleet=fleet,
        half=half or ALL,
        rate_factor=rate_factor,
        seed=seed,
        spot=spot_trace,
        objective=Objective(ttft_seconds=ttft_seconds, tpot_seconds=tpot_seconds),
        cold_start_seconds=cold_start_seconds,
        metrics_loss_ratio=metrics_loss,
        longest_seconds=None if longest_hours is None else longest_hours * 3600.0,
    )
    return read_trace(trace_file, seed=seed), choices


def require_simulator() -> None:
    """Say how to install what the simulator needs if it is not there.

    Raises:
        InvalidInput: If a library is missing.
    """
    try:
        import matplotlib as _matplotlib
        import numba as _numba
        import numpy as _numpy
    except ImportError as error:
        raise InvalidInput(
            f"{error.name} is not installed; run: pip install 'trierarch[simulation]'"
        ) from error
    del _matplotlib, _numba, _numpy


@contextmanager
def progress_bar(*, is_shown: bool) -> Iterator[Callable[[str, float], None]]:
    """Yield a function that shows what is being done and how much of it is left, on stderr."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from trierarch.simulation.engine.compiled import is_warm

    first = "reading" if is_warm() else "compiling the simulator (only this time, about a minute)"
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (is_shown and console.is_terminal),
    ) as progress:
        task = progress.add_task(first, total=1.0)

        def report(label: str, share: float) -> None:
            progress.update(task, description=label, completed=share)

        if is_shown and not console.is_terminal and not is_warm():
            click.echo(f"{first} ...", err=True)
        yield report


def make_folder(folder: Path) -> Path:
    """Return the folder, created if need be.

    Raises:
        InvalidInput: If it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{folder}: cannot be created ({error.strerror})") from error
    return folder
