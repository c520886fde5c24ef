"""``python -m benchmarks.autoscaling``: time the simulator, compare policies, write the results.

Peers are tuned on the first half of each trace and everyone is judged on the second half.
Runs are kept in benchmarks/results/autoscaling-runs, so that a benchmark that was stopped goes on.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from benchmarks.autoscaling.page import render_page
from benchmarks.autoscaling.run_cache import PEER_SOURCES, DiskCache
from benchmarks.recording import RESULTS_DIR, describe_machine, read_commit, record

from trierarch.cli.tables import format_table
from trierarch.core.errors import InvalidInput
from trierarch.simulation.comparison import Comparison, compare
from trierarch.simulation.contestants import (
    choose_contestants,
    tuned_policies,
    with_curves,
    with_tuning,
)
from trierarch.simulation.fleet.simulator import simulate
from trierarch.simulation.policies import OURS, build_controller
from trierarch.simulation.report import sentences, table_header, table_rows
from trierarch.simulation.scenarios import (
    FLEETS,
    TEST,
    ScenarioChoices,
    build_scenario,
)
from trierarch.simulation.traces import Trace, read_trace
from trierarch.simulation.traces.trace import build_trace
from trierarch.simulation.tuning import tune

RUNS_DIR = RESULTS_DIR / "autoscaling-runs"
DAY_SECONDS = 86_400.0
DAY_REQUESTS = 1_380_000
SMALL_REQUESTS = 60_000
ATTAINMENT = 0.99
MANY_REQUESTS = 300_000
"""Above it one seed has to do, and no curves are drawn."""
SEEDS = 3
FIGURES = ("cost_usd", "usd_per_million_tokens", "usd_per_million_slo_tokens", "replica_hours")


def synthetic_day(requests: int, seed: int) -> Trace:
    """Return a day with two peaks and the mean lengths of a reasoning model's traffic."""
    generator = np.random.default_rng(seed)
    edges = np.linspace(0.0, DAY_SECONDS, 1441)
    rate = 1.0 + 0.6 * np.sin(2 * np.pi * edges / DAY_SECONDS) ** 2
    share = np.concatenate(([0.0], np.cumsum((rate[1:] + rate[:-1]) / 2)))
    times = np.interp(np.sort(generator.random(requests)), share / share[-1], edges)
    inputs = np.clip(generator.lognormal(5.6, 1.6, requests), 1, 100_000).astype(np.int64)
    outputs = np.clip(generator.lognormal(6.7, 1.1, requests), 1, 30_000).astype(np.int64)
    return build_trace("synthetic day", "synthetic", times, inputs, outputs)


def measure_speed(trace: Trace) -> dict[str, float]:
    """Return how long one run of our policy takes on this trace, after compiling."""
    small = build_scenario(trace.between(0.0, 60.0, name=trace.name), ScenarioChoices())
    start = time.perf_counter()
    simulate(small.setup, small.trace, build_controller(OURS, small, {}, 0), seed=0)
    compilation = time.perf_counter() - start
    scenario = build_scenario(trace, ScenarioChoices())
    controller = build_controller(OURS, scenario, {}, 0)
    start, start_cpu = time.perf_counter(), time.process_time()
    simulate(scenario.setup, scenario.trace, controller, seed=0)
    elapsed = time.perf_counter() - start
    return {
        "simulated_requests": float(len(trace)),
        "compilation_seconds": round(compilation, 2),
        "simulation_seconds": round(elapsed, 2),
        "simulation_cpu_seconds": round(time.process_time() - start_cpu, 2),
        "requests_per_second": round(len(trace) / elapsed),
    }


def compare_on(
    trace: Trace, fleet: str, policies: Sequence[str] | None, jobs: int, seed_count: int | None
) -> Comparison:
    """Return the comparison on one fleet: tuned on the first half, judged on the second."""
    scenario = build_scenario(trace, ScenarioChoices(fleet=fleet, rate_factor=None, half=TEST))
    contestants = choose_contestants(policies)
    to_tune = tuned_policies(contestants)
    tuning = None
    if to_tune and scenario.training is not None:
        cache = DiskCache(RUNS_DIR / "tuning", PEER_SOURCES)
        tuning = tune(
            scenario.training, to_tune, attainment=ATTAINMENT, seed=0, jobs=jobs, cache=cache
        )
        contestants = with_tuning(contestants, tuning)
    is_long = len(scenario.trace) > MANY_REQUESTS
    if not is_long:
        contestants = with_curves(contestants, scenario, tuning)
    return compare(
        scenario,
        contestants,
        seeds=range(seed_count or (1 if is_long else SEEDS)),
        attainment=ATTAINMENT,
        jobs=jobs,
        cache=DiskCache(RUNS_DIR / "judged"),
    )


def main() -> int:
    """Run everything and write the results."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.autoscaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--trace",
        dest="traces",
        type=Path,
        action="append",
        help="requests; repeat for several; a synthetic day without it",
    )
    parser.add_argument(
        "--fleet", dest="fleets", choices=FLEETS, action="append", help="default: both"
    )
    parser.add_argument("--policies", help="separated by commas; default: all, peers also tuned")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--seeds", type=int, help=f"runs per setting; default: {SEEDS}, 1 for a long trace"
    )
    parser.add_argument("--minutes", type=float, help="begin no further comparison after that")
    parser.add_argument("--page", type=Path, help="also write a page in Markdown there")
    parser.add_argument("--speed-only", action="store_true", help="only time the simulator")
    arguments = parser.parse_args()
    policies = arguments.policies.split(",") if arguments.policies else None
    try:
        traces = [read_trace(path) for path in arguments.traces or []]
        choose_contestants(policies)
        largest = max(traces, key=len, default=None) or synthetic_day(DAY_REQUESTS, 0)
        speed = measure_speed(largest)
        print(format_table(["figure", "value"], [[k, f"{v:,.2f}"] for k, v in speed.items()]))
        comparisons: list[Comparison] = []
        if not arguments.speed_only:
            comparisons = compare_all(
                traces or [synthetic_day(SMALL_REQUESTS, 0)],
                arguments.fleets or list(FLEETS),
                policies,
                arguments.jobs,
                arguments.seeds,
                arguments.minutes,
            )
    except InvalidInput as error:
        print(error, file=sys.stderr)
        return 2
    command = " ".join(["python -m benchmarks.autoscaling", *_without_folders(sys.argv[1:])])
    figures, peers = collect_figures(comparisons)
    path = record("autoscaling", command, speed | figures, peers)
    print(f"\nResults are in {path.relative_to(path.parents[2])}.")
    if arguments.page is not None:
        arguments.page.write_text(
            render_page(
                comparisons,
                speed,
                command=command,
                commit=read_commit(),
                machine=describe_machine(),
            ),
            encoding="utf-8",
        )
    return 0


def compare_all(
    traces: Sequence[Trace],
    fleets: Sequence[str],
    policies: Sequence[str] | None,
    jobs: int,
    seed_count: int | None,
    minutes: float | None,
) -> list[Comparison]:
    """Return every comparison there was time for; small traces come first."""
    start = time.monotonic()
    comparisons: list[Comparison] = []
    for trace in sorted(traces, key=len):
        for fleet in fleets:
            spent = time.monotonic() - start
            if minutes is not None and spent > minutes * 60:
                print(f"\nNo time left for {trace.name}, {fleet} fleet.", flush=True)
                continue
            comparison = compare_on(trace, fleet, policies, jobs, seed_count)
            comparisons.append(comparison)
            print(f"\n{comparison.scenario.trace.name}, {fleet} fleet\n")
            print(format_table(table_header(comparison), table_rows(comparison)))
            print("\n".join(("", "* misses the attainment target", *sentences(comparison))))
            print(f"({time.monotonic() - start - spent:.0f} s)", flush=True)
    return comparisons


def collect_figures(
    comparisons: Sequence[Comparison],
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return our figures and the peers', named by trace and fleet."""
    figures: dict[str, float] = {}
    peers: dict[str, dict[str, float]] = {}
    for comparison in comparisons:
        trace = re.sub(r"\W+", "_", comparison.scenario.trace.name.lower()).strip("_")
        prefix = f"{trace}_{comparison.scenario.setup.name}"
        document = comparison.to_json()
        for name in (
            "attainment_target",
            "captured_share",
            "slo_token_saving",
            "hindsight_captured_share",
            "hindsight_slo_token_saving",
        ):
            if document[name] is not None:
                figures[f"{prefix}_{name}"] = round(document[name], 4)
        for row in document["policies"]:
            flat = {f"{prefix}_{key}": row[key] for key in FIGURES if row[key] is not None}
            flat[f"{prefix}_slo_attainment"] = row["slo_attainment"]["both"]
            flat[f"{prefix}_regret"] = row["regret"]
            place = figures if row["policy"] == OURS else peers.setdefault(row["policy"], {})
            place.update({key: round(float(value), 4) for key, value in flat.items()})
    return figures, peers


def _without_folders(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as they can be published: files by their names alone."""
    return [Path(text).name if Path(text).is_absolute() else text for text in arguments]


if __name__ == "__main__":
    sys.exit(main())
