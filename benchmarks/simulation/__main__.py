"""``python -m benchmarks.simulation``: is the simulator's replica like a real engine?

Starts vLLM on the processor with a replica's options and sends short open-loop runs. The service
model is fitted to every other one and predicts the ones between, so that a machine that is busier
for a while is so for both. Ends with 1 if TTFT, TPOT or throughput of the predicted runs are off by
more than 15 %.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bare_engine import bare_vllm
from benchmarks.recording import ROOT, record
from benchmarks.simulation.fitting import Block, Figures, fit, measured_figures, simulated_figures
from benchmarks.simulation.open_loop import Load, Timed, plan_requests, send

from trierarch.core.errors import TrierarchError
from trierarch.serving.models import resolve_model
from trierarch.serving.specification import EngineSpec
from trierarch.simulation.service import ServiceCoefficients
from trierarch.simulation.traces import Trace

TOLERANCE_RATIO = 0.15
JUDGED = ("ttft_mean", "tpot_mean", "output_tokens_per_second")
INPUT_TOKENS, OUTPUT_TOKENS = (32, 384), (16, 96)
PROBE_REQUESTS, PROBE_WIDTH = 24, 8
UTILIZATION_RATIO = 0.5
"""Share of the probe's rate that the open loop asks for: queues form, and end again."""
BLOCKS = 4
"""Runs per half; they take turns."""
MODEL_TOKENS = 1024
STEP_TOKENS = 2048
"""What vLLM prefills in one step at most, unless told otherwise."""


def main() -> int:
    """Measure, fit, predict, print a table, write the results."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="pocket", help="as in trierarch up")
    parser.add_argument("--data-dir", type=Path, help="where models are kept; default: temporary")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each half")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trierarch-bench-") as name:
        folder = Path(name)
        try:
            model = resolve_model(options.model, options.data_dir or folder, say)
        except TrierarchError as error:
            sys.stderr.write(f"{error}\n")
            return 2
        spec = EngineSpec(
            model_path=str(model.path),
            served_name=model.name,
            dtype="float32",  # every processor computes it at full speed
            max_model_tokens=MODEL_TOKENS,
            engine_arguments={"max-num-batched-tokens": STEP_TOKENS},
        )
        config = json.loads((model.path / "config.json").read_text(encoding="utf-8"))
        say("starting vLLM")
        with bare_vllm(spec, folder) as url:
            halves = asyncio.run(measure(url, spec, config["vocab_size"], options))
    return judge(spec, halves, options)


_said: list[str] = []


def say(text: str, *_: object) -> None:
    """Tell what is being done, once: progress comes with the same words many times."""
    if _said[-1:] != [text]:
        _said.append(text)
        sys.stderr.write(f"{text}\n")


async def measure(
    url: str, spec: EngineSpec, vocabulary: int, options: argparse.Namespace
) -> tuple[list[Block], list[Block]]:
    """Return the fitted and the predicted runs, at a part of the rate that a probe reached."""
    probe = Load(PROBE_WIDTH, PROBE_REQUESTS / PROBE_WIDTH, INPUT_TOKENS, OUTPUT_TOKENS, vocabulary)
    for number in range(2):
        # The first probe warms up: kernels and allocators begin slowly.
        trace = plan_requests(probe, options.seed + 1000 + number)
        begin = time.perf_counter()
        await send(url, spec.served_name, trace, vocabulary, options.seed + 1000 + number)
        rate = len(trace) / (time.perf_counter() - begin)
    load = dataclasses.replace(
        probe,
        requests_per_second=UTILIZATION_RATIO * rate,
        seconds=options.seconds / BLOCKS,
    )
    halves: tuple[list[Block], list[Block]] = ([], [])
    for number in range(2 * BLOCKS):
        seed = options.seed + number
        trace = plan_requests(load, seed)
        say(
            f"run {number + 1} of {2 * BLOCKS}: {len(trace)} requests,"
            f" {load.requests_per_second:.2f} per second, load average {os.getloadavg()[0]:.1f}"
        )
        timed = await send(url, spec.served_name, trace, vocabulary, seed)
        halves[number % 2].append(Block(served(trace, timed), timed))
    return halves


def judge(
    spec: EngineSpec, halves: tuple[list[Block], list[Block]], options: argparse.Namespace
) -> int:
    """Fit on one half, compare on the other; 1 if that is further off than promised."""
    start = ServiceCoefficients(
        step_seconds=0.02,
        expert_seconds=0.0,
        expert_share_ratio=0.0,
        decode_token_seconds=0.002,
        prefill_token_seconds=0.0005,
        context_token_seconds=0.0,
        prefill_context_seconds=0.0,
        maximum_requests=spec.max_running_requests,
        step_tokens=STEP_TOKENS,
        kv_limit_tokens=spec.max_running_requests * MODEL_TOKENS,
        # The engine's own queue holds everything; this benchmark has no gateway.
        pending_prefill_limit_tokens=10_000_000,
    )
    first, second = halves
    say("fitting")
    fitted = fit(start, first)
    calibrated = (measured_figures(first), simulated_figures(fitted, first))
    predicted = (measured_figures(second), simulated_figures(fitted, second))
    print_table(calibrated, predicted)
    figures: dict[str, float] = {
        name: getattr(fitted, name)
        for name in ("step_seconds", "decode_token_seconds", "prefill_token_seconds")
    }
    real: dict[str, float] = {}
    worst = 0.0
    for name, value in dataclasses.asdict(predicted[1]).items():
        measured = getattr(predicted[0], name)
        error = value / measured - 1.0
        figures |= {name: round(value, 5), f"{name}_error": round(error, 4)}
        real[name] = round(measured, 5)
        worst = max(worst, abs(error)) if name in JUDGED else worst
    command = f"python -m benchmarks.simulation --model {options.model} --seconds "
    command += f"{options.seconds:g} --seed {options.seed}"
    path = record("simulation", command, figures, {"vLLM": real})
    sys.stdout.write(f"load average {os.getloadavg()[0]:.1f}; worst of TTFT, TPOT and throughput: ")
    sys.stdout.write(f"{worst:.1%} off\nwritten to {path.relative_to(ROOT)}\n")
    return 0 if worst <= TOLERANCE_RATIO else 1


def served(trace: Trace, timed: list[Timed]) -> Trace:
    """Return the plan with the lengths that were really generated."""
    outputs = trace.output_tokens.copy()
    outputs[:] = [one.output_tokens for one in timed]
    return dataclasses.replace(trace, output_tokens=outputs)


def print_table(calibrated: tuple[Figures, Figures], predicted: tuple[Figures, Figures]) -> None:
    """Print measured and simulated figures of both halves."""
    header = ("figure", "fitted half: vLLM", "simulated", "error", "other half: vLLM")
    sys.stdout.write(f"{header[0]:<26}{header[1]:>18}{header[2]:>12}{header[3]:>9}")
    sys.stdout.write(f"{header[4]:>18}{header[2]:>12}{header[3]:>9}\n")
    for field in dataclasses.fields(Figures):
        line = f"{field.name:<26}"
        for measured, simulated in (calibrated, predicted):
            real, model = getattr(measured, field.name), getattr(simulated, field.name)
            line += f"{real:>18.4f}{model:>12.4f}{model / real - 1:>9.1%}"
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
