"""``trierarch simulate``: replay a trace under one policy, in virtual time."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trierarch.cli.explain import DECISIONS_FILE
from trierarch.cli.simulation_options import (
    load_scenario,
    make_folder,
    progress_bar,
    scenario_options,
)

if TYPE_CHECKING:
    from trierarch.simulation.fleet.simulator import RunResult


@click.command()
@scenario_options
@click.option(
    "--policy",
    required=True,
    help="Who decides: static, trierarch, clairvoyant, or a peer (compare --help lists them).",
)
@click.option(
    "--option", "option_texts", multiple=True, metavar="NAME=VALUE", help="A policy's setting."
)
@click.option(
    "--rate-factor",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Multiply the number of requests, over the same time.",
)
def simulate(
    policy: str,
    option_texts: tuple[str, ...],
    seed: int,
    out: Path | None,
    as_json: bool,
    **choices: Any,
) -> None:
    """Replay a trace of requests under one scaling policy and print what came of it.

    Every replica batches continuously, prefills in chunks and runs out of KV memory as a real
    engine does; starts, drains and spot losses take their time and cost their money. The same
    inputs and seed give the same figures. With --out DIR: summary.json, timeline.csv and, for
    trierarch, decisions.jsonl that `trierarch explain --decisions DIR` reads.
    """
    scenario = load_scenario(seed=seed, **choices)
    from trierarch.simulation.fleet.simulator import simulate as run
    from trierarch.simulation.policies import build_controller, parse_options
    from trierarch.simulation.summary import summarize

    options = parse_options(option_texts)
    with progress_bar(is_shown=not as_json) as report:
        controller = build_controller(policy, scenario, options, seed)
        result = run(
            scenario.setup,
            scenario.trace,
            controller,
            seed=seed,
            progress=lambda share: report(policy, share),
        )
    document = {
        "trace": scenario.trace.name,
        "fleet": scenario.setup.name,
        "rate_factor": scenario.rate_factor,
        "notes": list(scenario.trace.notes),
        **summarize(result).to_json(),
    }
    if out is not None:
        _write(make_folder(out), document, result, getattr(controller, "decision_records", None))
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        _print(document, out)


def _print(document: dict[str, Any], out: Path | None) -> None:
    attainment = document["slo_attainment"]
    rows = [
        ("requests", f"{document['requests']:,}"),
        ("cost", f"${document['cost_usd']:,.2f}"),
        ("per million tokens", _dollars(document["usd_per_million_tokens"])),
        ("per million SLO tokens", _dollars(document["usd_per_million_slo_tokens"])),
        ("TTFT met", f"{attainment['ttft']:.2%}"),
        ("TPOT met", f"{attainment['tpot']:.2%}"),
        ("both met", f"{attainment['both']:.2%}"),
        ("replica-hours", f"{document['replica_hours']:,.1f}"),
        ("scale events", f"{document['scale_events']} ({document['reversals']} reversals)"),
        ("longest queue", f"{document['max_queue']:,}"),
        ("lost requests", f"{document['lost_requests']:,}"),
        ("unfinished requests", f"{document['unfinished_requests']:,}"),
    ]
    if "flex_attainment" in document:
        rows.insert(7, ("flex done in time", f"{document['flex_attainment']:.2%}"))
    click.echo(f"{document['policy']} on {document['trace']}, {document['fleet']} fleet")
    for note in document["notes"]:
        click.echo(f"  note: {note}")
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"  {name:<{width}}  {value}")
    if out is not None:
        click.echo(f"Results are in {out}.")


def _dollars(value: float | None) -> str:
    return "-" if value is None else f"${value:.4f}"


def _write(
    folder: Path,
    document: dict[str, Any],
    result: RunResult,
    decision_records: list[dict[str, Any]] | None,
) -> None:
    (folder / "summary.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    names = [variant.name for variant in result.setup.variants]
    with (folder / "timeline.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        columns = [
            f"{kind}_{name}"
            for kind in ("desired", "ready", "starting", "draining")
            for name in names
        ]
        writer.writerow(["seconds", "waiting_requests", *columns])
        for moment in result.moments:
            writer.writerow(
                [
                    f"{moment.at_seconds:g}",
                    moment.waiting_requests,
                    *moment.desired,
                    *moment.ready,
                    *moment.starting,
                    *moment.draining,
                ]
            )
    if decision_records is not None:
        with (folder / DECISIONS_FILE).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in decision_records)
