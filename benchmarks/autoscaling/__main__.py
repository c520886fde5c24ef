"""``python -m benchmarks.autoscaling``: time the simulator, compare policies, write the results."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from trierarch.cli.tables import format_table
from trierarch.core.errors import InvalidInput
from trierarch.simulation.comparison import Comparison, compare
from trierarch.simulation.contestants import choose_contestants
from trierarch.simulation.fleet.simulator import simulate
from trierarch.simulation.policies import OURS, build_controller
from trierarch.simulation.report import sentences, table_header, table_rows
from trierarch.simulation.scenarios import MIXED, SINGLE, ScenarioChoices, build_scenario
from trierarch.simulation.traces import Trace, read_trace
from trierarch.simulation.traces.trace import build_trace

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "autoscaling.json"
DAY_SECONDS = 86_400.0
DAY_REQUESTS = 1_380_000
SMALL_REQUESTS = 60_000
ATTAINMENT = 0.99
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


def speed(trace: Trace) -> dict[str, float]:
    """Return how long one run of our policy takes on this trace."""
    scenario = build_scenario(trace, ScenarioChoices())
    controller = build_controller(OURS, scenario, {}, 0)
    start = time.perf_counter()
    simulate(scenario.setup, scenario.trace, controller, seed=0)
    elapsed = time.perf_counter() - start
    return {
        "simulated_requests": float(len(trace)),
        "simulation_seconds": round(elapsed, 2),
        "requests_per_second": round(len(trace) / elapsed),
    }


def compare_on(trace: Trace, fleet: str, policies: list[str] | None, jobs: int) -> Comparison:
    """Return the comparison on one fleet."""
    scenario = build_scenario(trace, ScenarioChoices(fleet=fleet, rate_factor=None))
    contestants = choose_contestants(scenario, policies, is_swept=False)
    return compare(scenario, contestants, seeds=range(1), attainment=ATTAINMENT, jobs=jobs)


def main() -> int:
    """Run everything and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.autoscaling", description=__doc__)
    parser.add_argument("--trace", type=Path, help="requests; a synthetic day without it")
    parser.add_argument("--policies", help="separated by commas; default: all")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--speed-only", action="store_true", help="only time the simulator")
    arguments = parser.parse_args()
    policies = arguments.policies.split(",") if arguments.policies else None
    figures: dict[str, float] = {}
    peers: dict[str, dict[str, float]] = {}
    try:
        whole = read_trace(arguments.trace) if arguments.trace else synthetic_day(DAY_REQUESTS, 0)
        figures |= speed(whole)
        print(format_table(["figure", "value"], [[k, f"{v:,.2f}"] for k, v in figures.items()]))
        if not arguments.speed_only:
            compared = whole if arguments.trace else synthetic_day(SMALL_REQUESTS, 0)
            for fleet in (SINGLE, MIXED):
                comparison = compare_on(compared, fleet, policies, arguments.jobs)
                print(f"\n{compared.name}, {fleet} fleet\n")
                print(format_table(table_header(comparison), table_rows(comparison)))
                print("\n".join(("", "* misses the attainment target", *sentences(comparison))))
                _enter(comparison, fleet, figures, peers)
    except InvalidInput as error:
        print(error, file=sys.stderr)
        return 2
    _write(figures, peers)
    return 0


def _enter(
    comparison: Comparison,
    fleet: str,
    figures: dict[str, float],
    peers: dict[str, dict[str, float]],
) -> None:
    for name in ("captured_share", "slo_token_saving"):
        value: float | None = getattr(comparison, name)
        if value is not None:
            figures[f"{fleet}_{name}"] = round(value, 4)
    for row in comparison.to_json()["policies"]:
        flat = {f"{fleet}_{key}": row[key] for key in FIGURES if row[key] is not None}
        flat[f"{fleet}_slo_attainment"] = row["slo_attainment"]["both"]
        flat[f"{fleet}_regret"] = row["regret"]
        place = figures if row["policy"] == OURS else peers.setdefault(row["policy"], {})
        place.update({key: round(float(value), 4) for key, value in flat.items()})


def _write(figures: dict[str, float], peers: dict[str, dict[str, float]]) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    document: dict[str, Any] = {
        "name": "autoscaling",
        "commit": commit or "unknown",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "command": " ".join(["python -m benchmarks.autoscaling", *sys.argv[1:]]),
        "figures": figures,
        "peers": peers,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"\nResults are in {RESULTS.relative_to(ROOT)}.")


if __name__ == "__main__":
    sys.exit(main())
