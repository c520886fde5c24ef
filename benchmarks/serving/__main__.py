"""``python -m benchmarks.serving``: measure, print a table, write the results."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bare_engine import bare_vllm
from benchmarks.recording import ROOT, record
from openai import AsyncOpenAI

from trierarch.serving.specification import EngineSpec
from trierarch.testing.running_stack import run_stack

CONCURRENCIES = (1, 8)
REQUESTS = 8
"""Of one contender at one concurrency in one round."""
RESAMPLES = 2000
OUTPUT_TOKENS = 48


async def stream(client: AsyncOpenAI, model: str, number: int) -> tuple[float, int]:
    """Stream one answer; return seconds to the first token and the number of tokens."""
    began_seconds = time.perf_counter()
    first_seconds = 0.0
    tokens = 0
    answer = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": f"Tell me story {number} about rowers at sea."}],
        max_tokens=OUTPUT_TOKENS,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    async for chunk in answer:
        if chunk.choices and not first_seconds:
            first_seconds = time.perf_counter() - began_seconds
        if chunk.usage:
            tokens = chunk.usage.completion_tokens
    return first_seconds, tokens


async def measure(
    url: str, key: str, model: str, concurrency: int, seed: int
) -> tuple[float, float]:
    """Return tokens per second and the median time to first token in ms of one round."""
    async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=600.0) as client:
        began_seconds = time.perf_counter()
        done: list[tuple[float, int]] = []
        for first in range(0, REQUESTS, concurrency):
            numbers = range(1000 * seed + first, 1000 * seed + first + concurrency)
            done += await asyncio.gather(*(stream(client, model, number) for number in numbers))
        took_seconds = time.perf_counter() - began_seconds
    rate = sum(tokens for _, tokens in done) / took_seconds
    return rate, 1000.0 * statistics.median(first for first, _ in done)


Samples = dict[str, dict[str, list[float]]]
"""By contender, then by key: one figure a round, in the same order everywhere."""


def run_rounds(contenders: Mapping[str, tuple[str, str]], model: str, rounds: int) -> Samples:
    """Return every contender's figures; the rounds go through all orders of the contenders.

    Turning them in a circle would not do: each would then always follow the same other one.
    """
    samples: Samples = {name: {} for name in contenders}
    orders = list(itertools.permutations(contenders))
    for number in range(rounds + 1):
        for concurrency in CONCURRENCIES:
            for name in orders[number % len(orders)]:
                url, key = contenders[name]
                # A prompt of its own per round: nothing is found in a prefix cache.
                rate, first_ms = asyncio.run(measure(url, key, model, concurrency, number))
                if number == 0:
                    continue  # The first round warms up.
                found = samples[name]
                found.setdefault(f"tokens_per_second_{concurrency}", []).append(rate)
                found.setdefault(f"ttft_{concurrency}_p50_ms", []).append(first_ms)
        sys.stderr.write(f"round {number} of {rounds} done\n")
    return samples


def take_medians(samples: Samples) -> dict[str, dict[str, float]]:
    """Return the median of each figure over the rounds."""
    return {
        name: {key: round(statistics.median(values), 2) for key, values in found.items()}
        for name, found in samples.items()
    }


def estimate(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of the rounds' figures and the bounds of its 95 % bootstrap interval."""
    source = random.Random(0)  # noqa: S311  # resampling, not a secret
    means = sorted(
        statistics.fmean(source.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    return (
        round(statistics.fmean(values), 4),
        round(means[round(0.025 * RESAMPLES)], 4),
        round(means[round(0.975 * RESAMPLES) - 1], 4),
    )


def compare_rounds(samples: Samples, ours: str, peer: str) -> dict[str, tuple[float, float, float]]:
    """Return what the rounds' own ratios and added milliseconds say: estimate, low, high.

    What slows a machine for a minute slows both of a round, so it cancels here, and does not in a
    ratio of medians.
    """
    figures = {}
    for key, values in samples[ours].items():
        pairs = list(zip(values, samples[peer][key], strict=True))
        figures[f"ratio_{key}"] = estimate([a / b for a, b in pairs])
        if key.startswith("ttft"):
            figures[f"added_{key}"] = estimate([a - b for a, b in pairs])
    return figures


def main() -> int:
    """Measure a replica behind the gateway against bare vLLM: same model, turn by turn."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="measured rounds (default: 12)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="trierarch-bench-") as name,
        contextlib.ExitStack() as s,
    ):
        folder = Path(name)
        # Eight requests fill half a replica's seats, so that it stays alone.
        stack = s.enter_context(run_stack(folder, os.environ))
        deployment: dict[str, Any] = json.loads(
            next(stack.data_dir.rglob("deployment.json")).read_text(encoding="utf-8")
        )
        spec = EngineSpec.model_validate(deployment["models"][0]["engine"])
        bare = s.enter_context(bare_vllm(spec, folder))
        [replica] = stack.ready()
        key = stack.client_environment["OPENAI_API_KEY"]
        contenders = {
            "bare vLLM": (bare, "none"),
            "replica on Ray Serve": (f"http://{replica['host']}:{replica['port']}/v1", "none"),
            "gateway and replica": (stack.url, key),
        }
        samples = run_rounds(contenders, spec.served_name, options.rounds)
    figures = take_medians(samples)
    ours = figures["gateway and replica"]
    keys = list(ours)
    sys.stdout.write(f"{'':<24}" + "".join(f"{key:>24}" for key in keys) + "\n")
    for contender, found in figures.items():
        sys.stdout.write(
            f"{contender:<24}" + "".join(f"{found[key]:>24.2f}" for key in keys) + "\n"
        )
    compared: dict[str, float] = {}
    for name in contenders:
        if name == "bare vLLM":
            continue
        sys.stdout.write(f"{name} against bare vLLM: mean of {options.rounds} rounds (95 %)\n")
        for key, (mean, low, high) in compare_rounds(samples, name, "bare vLLM").items():
            sys.stdout.write(f"  {key:<32}{mean:>10.4f}  ({low:.4f} to {high:.4f})\n")
            if name == "gateway and replica":
                compared |= {key: mean, f"{key}_low": low, f"{key}_high": high}
    others = {name: found for name, found in figures.items() if found is not ours}
    written = record("serving", "make bench-serving", {**ours, **compared}, others)
    sys.stdout.write(f"written to {written.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
