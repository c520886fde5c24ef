"""An open loop against an OpenAI endpoint that keeps what happened to every request.

Prompts are random token ids, so that lengths are exact and no prefix is found in a
cache; arrivals are drawn beforehand and never wait for answers.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time

import httpx
import numpy as np

from trierarch.simulation.traces.trace import Trace, build_trace

TIMEOUT_SECONDS = 300.0
LOWEST_TOKEN_ID = 100
"""Below it there may be special tokens."""


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the engine.

    Attributes:
        requests_per_second: Mean rate of a Poisson process.
        seconds: Length of the run.
        input_tokens: Least and most, uniform between.
        output_tokens: The same.
        vocabulary: Size of the model's, for token ids.
    """

    requests_per_second: float
    seconds: float
    input_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    vocabulary: int


@dataclasses.dataclass(frozen=True, slots=True)
class Timed:
    """One request as its client saw it, in seconds from the start of the run."""

    planned_seconds: float
    first_token_seconds: float
    finish_seconds: float
    input_tokens: int
    output_tokens: int

    @property
    def ttft_seconds(self) -> float:
        """Time to first token, from the planned start."""
        return self.first_token_seconds - self.planned_seconds

    @property
    def tpot_seconds(self) -> float:
        """Time per output token after the first."""
        decode = self.finish_seconds - self.first_token_seconds
        return decode / max(1, self.output_tokens - 1)


def plan_requests(load: Load, seed: int) -> Trace:
    """Return the requests of a run."""
    generator = np.random.default_rng(seed)
    most = int(load.requests_per_second * load.seconds * 2) + 20
    times = np.cumsum(generator.exponential(1 / load.requests_per_second, most))
    times = times[times < load.seconds]
    count = len(times)
    return build_trace(
        "open loop",
        "drawn",
        times,
        generator.integers(load.input_tokens[0], load.input_tokens[1] + 1, count),
        generator.integers(load.output_tokens[0], load.output_tokens[1] + 1, count),
    )


async def send(base_url: str, model: str, trace: Trace, vocabulary: int, seed: int) -> list[Timed]:
    """Send a plan and return what happened, in order of planned start.

    Raises:
        httpx.HTTPError: If the engine refuses a request: a run with holes is of no use.
    """
    generator = np.random.default_rng([seed, 1])
    prompts = [
        generator.integers(LOWEST_TOKEN_ID, vocabulary, int(length)).tolist()
        for length in trace.input_tokens
    ]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(limits=limits, timeout=TIMEOUT_SECONDS) as client:
        begin = time.perf_counter() + 0.2
        tasks = [
            _one(client, base_url, model, prompts[index], trace, index, begin)
            for index in range(len(trace))
        ]
        return list(await asyncio.gather(*tasks))


async def _one(
    client: httpx.AsyncClient,
    base_url: str,
    model: str,
    prompt: list[int],
    trace: Trace,
    index: int,
    begin: float,
) -> Timed:
    planned = float(trace.arrival_seconds[index])
    outputs = int(trace.output_tokens[index])
    await asyncio.sleep(max(0.0, begin + planned - time.perf_counter()))
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": outputs,
        "min_tokens": outputs,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    first = last = 0.0
    generated = 0
    async with client.stream("POST", f"{base_url}/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            now = time.perf_counter() - begin
            event = json.loads(line.removeprefix("data: "))
            if event.get("choices"):
                first = first or now
                last = now
            if event.get("usage"):
                generated = event["usage"]["completion_tokens"]
    return Timed(planned, first, last, int(trace.input_tokens[index]), generated)
