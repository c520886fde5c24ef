"""``trierarch plan``: how a model fits on accelerators, and what a million tokens cost."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trierarch.cli.ledger_options import ledger_options
from trierarch.cli.plan_options import (
    bundled_names,
    check_positive,
    choose_accelerators,
    choose_lengths,
    find_prices,
    load_bundled,
    load_model,
    load_price_book,
)
from trierarch.cli.tables import format_table
from trierarch.core.clock import SystemClock
from trierarch.core.errors import InvalidInput
from trierarch.cost.prices import ANY_REGION, CapacityType
from trierarch.hardware.capacity import LatencyTargets, Workload, predict_service
from trierarch.hardware.formats import KvCacheFormat
from trierarch.hardware.planning import MOST_ACCELERATORS, plan_layouts
from trierarch.hardware.published import check_points

if TYPE_CHECKING:
    from trierarch.hardware.architecture import ModelArchitecture
    from trierarch.hardware.planning import PlannedLayout
    from trierarch.hardware.published import Checked

SHOWN_LAYOUTS = 15
"""Rows of the table; --all and --json have every one."""

HEADER = (
    "accelerator",
    "layout",
    "KV cache",
    "limit",
    "weights GB",
    "KV GB",
    "batch",
    "TTFT s",
    "TPOT ms",
    "tokens/s",
    "per accel.",
    "$/hour",
    "$/M tokens",
    "$/M output",
)


@click.command()
@click.option(
    "--model",
    metavar="DIR_OR_CONFIG_JSON",
    help=f"The model's folder or config.json, or one of {', '.join(bundled_names())}.",
)
@click.option(
    "--accelerator",
    "accelerator_names",
    multiple=True,
    metavar="NAME",
    help="Look at this one only; may be repeated.  [default: all that are known]",
)
@click.option(
    "--context",
    type=int,
    metavar="N",
    help="Longest sequence that must fit, in tokens.  [default: 32768, or the model's limit]",
)
@click.option(
    "--input-tokens", type=int, metavar="N", help="Mean prompt, not cached.  [default: 4096]"
)
@click.option("--output-tokens", type=int, metavar="N", help="Mean answer.  [default: 1024]")
@click.option(
    "--ttft-seconds",
    type=float,
    default=2.0,
    show_default=True,
    metavar="X",
    help="First token at the latest, without waiting in a queue.",
)
@click.option(
    "--tpot-seconds",
    type=float,
    default=0.05,
    show_default=True,
    metavar="X",
    help="Time per output token at most.",
)
@click.option(
    "--max-accelerators",
    type=int,
    default=MOST_ACCELERATORS,
    show_default=True,
    metavar="N",
    help="Largest replica to look at.",
)
@click.option(
    "--capacity-type",
    type=click.Choice([kind.value for kind in CapacityType]),
    default=CapacityType.ON_DEMAND.value,
    show_default=True,
    help="Which price to take.",
)
@click.option("--region", default=ANY_REGION, metavar="NAME", help="Where.  [default: any]")
@click.option(
    "--kv-cache",
    "kv_cache",
    type=click.Choice([kind.value for kind in KvCacheFormat]),
    help="Format of the KV cache.  [default: as engines choose for model and accelerator]",
)
@click.option("--all", "shows_all", is_flag=True, help="Show every layout that serves.")
@click.option(
    "--published",
    "shows_published",
    is_flag=True,
    help="Compare predictions with published throughput instead, and end.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with every layout.")
@ledger_options
@click.pass_context
def plan(
    context_object: click.Context,
    model: str | None,
    accelerator_names: tuple[str, ...],
    context: int | None,
    input_tokens: int | None,
    output_tokens: int | None,
    ttft_seconds: float,
    tpot_seconds: float,
    max_accelerators: int,
    capacity_type: str,
    region: str,
    kv_cache: str | None,
    shows_all: bool,
    shows_published: bool,
    as_json: bool,
    data_dir: Path | None,
    ledger_address: str | None,
) -> None:
    """Show on which accelerators and in which layout a model serves, cheapest first.

    A layout is one replica: DP data-parallel ranks, TP accelerators per rank, EP experts
    spread over so many. Batch is the largest per rank within memory and both latency
    targets, and "limit" says which of them ends it. Prices are those of `trierarch prices
    show`; dollars per million tokens are for a replica that is never idle.

    Everything is predicted from tables, nothing is measured: `trierarch plan --published`
    shows how far such predictions are from published numbers. Exit code 1 if nothing fits.
    """
    if shows_published:
        _show_published(as_json)
        return
    if model is None:
        raise InvalidInput("name a model: --model DIR_OR_CONFIG_JSON")
    for option, value in (
        ("--context", context),
        ("--input-tokens", input_tokens),
        ("--output-tokens", output_tokens),
        ("--ttft-seconds", ttft_seconds),
        ("--tpot-seconds", tpot_seconds),
        ("--max-accelerators", max_accelerators),
    ):
        check_positive(option, value)
    accelerators = choose_accelerators(accelerator_names)
    architecture = load_model(model)
    longest, prompt, answer = choose_lengths(
        context, input_tokens, output_tokens, architecture.context_limit_tokens
    )
    workload = Workload(prompt, answer, longest)
    targets = LatencyTargets(ttft_seconds, tpot_seconds)
    prices, remarks = find_prices(
        load_price_book(data_dir, ledger_address),
        accelerators,
        CapacityType(capacity_type),
        region,
        SystemClock().unix_seconds(),
    )
    rows = plan_layouts(
        architecture,
        accelerators,
        workload,
        targets,
        usd_per_accelerator_hour=prices,
        most_accelerators=max_accelerators,
        cache=None if kv_cache is None else KvCacheFormat(kv_cache),
    )
    if as_json:
        click.echo(
            json.dumps(_as_json(model, architecture, workload, targets, rows, remarks), indent=2)
        )
    else:
        _print(model, architecture, workload, targets, rows, remarks, shows_all)
    if not any(row.is_feasible for row in rows):
        context_object.exit(1)


def _print(
    model: str,
    architecture: ModelArchitecture,
    workload: Workload,
    targets: LatencyTargets,
    rows: list[PlannedLayout],
    remarks: dict[str, str],
    shows_all: bool,
) -> None:
    click.echo(_describe(model, architecture, workload))
    click.echo(
        f"Asked: {workload.input_tokens} input and {workload.output_tokens} output tokens,"
        f" TTFT at most {targets.ttft_seconds:g} s, TPOT at most {targets.tpot_seconds:g} s"
    )
    feasible = [row for row in rows if row.is_feasible]
    shown = feasible if shows_all else feasible[:SHOWN_LAYOUTS]
    if shown:
        click.echo(
            "\nServes, cheapest first (predicted, not measured; never idle; GB per accelerator)"
        )
        click.echo(format_table(HEADER, [_cells(row) for row in shown], text_columns=4))
        click.echo(_conclusion(feasible[0]))
    if len(shown) < len(feasible):
        click.echo(
            f"{len(feasible) - len(shown)} more layouts serve, those without a price last;"
            " --all shows them."
        )
    known = {row.accelerator.name: row.accelerator for row in rows}
    for remark in sorted(set(remarks.values())):
        names = ", ".join(name for name in remarks if remarks[name] == remark)
        click.echo(f"{remark}: {names}; add one with: trierarch prices import FILE")
    unsure = sorted(name for name, accelerator in known.items() if accelerator.is_estimate)
    if unsure:
        click.echo(f"Hardware figures not confirmed by a primary source: {', '.join(unsure)}")
    refused = _refusals(rows)
    if refused:
        click.echo("\nDoes not serve (the reason of the largest such layout)")
        header = ("accelerator", "reason", "layouts", "detail")
        click.echo(format_table(header, refused, text_columns=4))


def _conclusion(best: PlannedLayout) -> str:
    if best.usd_per_million_tokens is None:
        return f"No price is known; most tokens per accelerator: {best.accelerator.name}."
    return (
        f"Cheapest: {best.layout} on {best.layout.accelerators} x {best.accelerator.name},"
        f" ${best.usd_per_million_tokens:.3f} per million tokens"
    )


def _describe(model: str, architecture: ModelArchitecture, workload: Workload) -> str:
    form = KvCacheFormat.BF16
    per_token = architecture.kv_bytes_of_next_token(workload.mean_context_tokens, form)
    longest = architecture.kv_bytes_of_sequence(workload.context_tokens, form)
    experts = architecture.experts
    choice = (
        f", {experts.active} of {experts.routed} experts in {experts.layers} layers"
        if experts
        else ", dense"
    )
    formats = {architecture.expert_format.name, architecture.dense_format.name}
    return (
        f"{model}: {architecture.kind}, {architecture.total_parameters / 1e9:.1f} B parameters,"
        f" {architecture.active_parameters / 1e9:.1f} B active{choice}\n"
        f"Attention: {architecture.attention_names}; weights {' and '.join(sorted(formats))}\n"
        f"KV cache in BF16: {per_token:,.0f} bytes per token,"
        f" {longest / 2**30:.2f} GiB per sequence of {workload.context_tokens} tokens"
    )


def _cells(row: PlannedLayout) -> list[str]:
    capacity = row.capacity
    if capacity is None:
        raise ValueError("a layout that does not serve has no row")

    def dollars(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    return [
        f"{row.layout.accelerators} x {row.accelerator.name}",
        str(row.layout),
        row.machine.cache.value,
        capacity.bound.value,
        f"{row.weight_bytes / 1e9:.1f}",
        f"{row.cache_space_bytes / 1e9:.1f}",
        str(capacity.sequences_per_rank),
        f"{capacity.ttft_seconds:.2f}",
        f"{capacity.tpot_seconds * 1e3:.1f}",
        f"{capacity.tokens_per_second:.0f}",
        f"{capacity.tokens_per_second / row.layout.accelerators:.0f}",
        dollars(row.usd_per_hour, 2),
        dollars(row.usd_per_million_tokens, 3),
        dollars(row.usd_per_million_output_tokens, 3),
    ]


def _refusals(rows: list[PlannedLayout]) -> list[list[str]]:
    """Return one row per accelerator and reason, with the words for its largest layout."""
    groups: dict[tuple[str, str], list[PlannedLayout]] = {}
    for row in rows:
        if row.infeasible is not None:
            key = (row.accelerator.name, row.infeasible.reason.value)
            groups.setdefault(key, []).append(row)
    table = []
    for (name, reason), group in groups.items():
        largest = max(group, key=lambda row: row.layout.accelerators)
        message = largest.infeasible.message if largest.infeasible else ""
        sizes = f"{len(group)} layouts" if len(group) > 1 else "1 layout"
        table.append([name, reason, sizes, f"{largest.layout}: {message}"])
    return table


def _as_json(
    model: str,
    architecture: ModelArchitecture,
    workload: Workload,
    targets: LatencyTargets,
    rows: list[PlannedLayout],
    remarks: dict[str, str],
) -> dict[str, Any]:
    form = KvCacheFormat.BF16
    return {
        "model": {
            "name": model,
            "kind": architecture.kind,
            "total_parameters": architecture.total_parameters,
            "active_parameters": architecture.active_parameters,
            "attention": architecture.attention_names,
            "expert_format": architecture.expert_format.name,
            "dense_format": architecture.dense_format.name,
            "kv_bytes_per_token_bf16": architecture.kv_bytes_of_next_token(
                workload.mean_context_tokens, form
            ),
            "kv_bytes_per_sequence_bf16": architecture.kv_bytes_of_sequence(
                workload.context_tokens, form
            ),
        },
        "workload": dataclasses.asdict(workload),
        "targets": dataclasses.asdict(targets),
        "price_remarks": remarks,
        "layouts": [_layout_as_json(row, workload) for row in rows],
    }


def _layout_as_json(row: PlannedLayout, workload: Workload) -> dict[str, Any]:
    machine, capacity = row.machine, row.capacity
    mean_tokens = workload.input_tokens + workload.output_tokens
    shared: dict[str, Any] = {
        "accelerator": row.accelerator.name,
        "accelerators": row.layout.accelerators,
        "layout": str(row.layout),
        "parallelism": dataclasses.asdict(row.layout),
        "is_feasible": row.is_feasible,
        "reason": row.infeasible.reason.value if row.infeasible else None,
        "message": row.infeasible.message if row.infeasible else None,
        "weight_bytes_per_accelerator": round(row.weight_bytes),
        "kv_space_bytes_per_accelerator": round(row.cache_space_bytes),
        "kv_format": machine.cache.value,
        "kv_bytes_per_token": machine.architecture.kv_bytes_of_next_token(
            mean_tokens, machine.cache
        ),
        "kv_bytes_per_sequence": machine.architecture.kv_bytes_of_sequence(
            workload.context_tokens, machine.cache
        ),
        "usd_per_hour": row.usd_per_hour,
        "usd_per_million_tokens": row.usd_per_million_tokens,
        "usd_per_million_output_tokens": row.usd_per_million_output_tokens,
    }
    if capacity is None:
        return {**shared, "capacity": None, "service_prior": None}
    prior = predict_service(machine, workload, sequences_per_rank=capacity.sequences_per_rank)
    return {
        **shared,
        "capacity": {
            **dataclasses.asdict(capacity),
            "bound": capacity.bound.value,
            "tokens_per_second": capacity.tokens_per_second,
        },
        "service_prior": dataclasses.asdict(prior),
    }


def check_published() -> list[Checked]:
    """Return every published point with its prediction."""
    return check_points({name: load_bundled(name) for name in bundled_names()})


def published_table(checked: list[Checked]) -> str:
    """Return the comparison for a terminal, and for the page that quotes it."""
    header = (
        "source", "model", "accelerator", "phase", "conditions", "published", "predicted", "error",
    )  # fmt: skip
    rows = [
        [
            row.point.source,
            row.point.model,
            row.point.accelerator,
            row.point.phase.value,
            row.point.conditions,
            f"{row.point.tokens_per_second:.0f}",
            f"{row.predicted_tokens_per_second:.0f}",
            f"{row.error_ratio:+.0%}",
        ]
        for row in checked
    ]
    errors = [abs(row.error_ratio) for row in checked]
    return (
        format_table(header, rows, text_columns=5)
        + f"\n\n{len(errors)} points, tokens per second and accelerator;"
        + f" median error {statistics.median(errors):.0%},"
        + f" within 30 %: {sum(error <= 0.3 for error in errors)}"
    )


def _show_published(as_json: bool) -> None:
    checked = check_published()
    if not as_json:
        click.echo(published_table(checked))
        return
    points = [
        {
            "source": row.point.source,
            "model": row.point.model,
            "accelerator": row.point.accelerator,
            "phase": row.point.phase.value,
            "conditions": row.point.conditions,
            "published_tokens_per_second": row.point.tokens_per_second,
            "predicted_tokens_per_second": row.predicted_tokens_per_second,
            "error_ratio": row.error_ratio,
        }
        for row in checked
    ]
    click.echo(json.dumps({"points": points}, indent=2))
