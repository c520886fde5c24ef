"""``python -m benchmarks.gateway``: measure, print a table, write the results."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop
from benchmarks.gateway.clients import Timings, run_clients
from benchmarks.gateway.contenders import (
    Contender,
    direct,
    haproxy,
    mock_engine,
    pin,
    trierarch,
)
from benchmarks.recording import record

CONTENDER_CORE, LOAD_CORE = 0, 1

PROMPT = "Tell me how a trireme was rowed and who paid for it. " * 20

FIGURES = (
    ("json_1_p50_ms", "plain, 1 client: p50 ms"),
    ("json_1_p99_ms", "p99 ms"),
    ("json_32_requests_per_second", "32 clients: req/s"),
    ("json_32_p99_ms", "p99 ms"),
    ("json_cpu_us_per_request", "CPU us/req"),
    ("stream_tokens_per_second", "streams: tok/s"),
    ("stream_ttft_p50_ms", "first p50 ms"),
    ("stream_ttft_p99_ms", "first p99 ms"),
    ("stream_event_p50_ms", "event p50 ms"),
    ("stream_event_p99_ms", "event p99 ms"),
    ("stream_cpu_us_per_event", "CPU us/event"),
    ("mixed_event_p99_ms", "beside 1 MB posts: event p99 ms"),
)
"""Key in the results, and heading of the table's row."""


def request_bytes(key: str, body: dict[str, object]) -> bytes:
    """Return a chat completion request."""
    content = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        f"authorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        "user-agent: benchmark\r\naccept: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def chat_body(prompt: str = PROMPT, *, stream: bool = False) -> dict[str, object]:
    """Return a chat completion body of about a kilobyte."""
    body: dict[str, object] = {
        "model": "mock",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 64,
        "temperature": 0.7,
    }
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


def quantile_ms(values: Sequence[float], q: float) -> float:
    """Return a quantile in milliseconds."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1000


async def measure(contender: Contender, streams: int, seconds: float) -> dict[str, float]:
    """Return the figures of one contender.

    Raises:
        RuntimeError: If any answer was wrong: then its times mean nothing.
    """
    cpu: Callable[[], float] = contender.cpu_seconds
    plain = request_bytes(contender.key, chat_body())
    streamed = request_bytes(contender.key, chat_body(stream=True))
    large = request_bytes(contender.key, chat_body("word " * 200_000))

    async def run(request: bytes, count: int, warm_up: float = 1.0, ramp: float = 0.0) -> Timings:
        timings = await run_clients(
            contender.port,
            request,
            count,
            seconds=seconds,
            warm_up_seconds=warm_up,
            ramp_seconds=ramp,
            cpu_seconds=cpu,
        )
        if timings.errors or not (timings.requests or timings.events):
            raise RuntimeError(f"{contender.name}: {timings.errors} wrong answers")
        return timings

    one = await run(plain, 1)
    many = await run(plain, 32)
    flow = await run(streamed, streams, 2.0, 0.7)
    mixed, _ = await asyncio.gather(run(streamed, 20, 2.0, 0.7), run(large, 1, 2.0))
    return {
        "json_1_p50_ms": quantile_ms(one.latencies_seconds, 0.5),
        "json_1_p99_ms": quantile_ms(one.latencies_seconds, 0.99),
        "json_32_requests_per_second": many.requests / many.seconds,
        "json_32_p99_ms": quantile_ms(many.latencies_seconds, 0.99),
        "json_cpu_us_per_request": many.cpu_seconds / many.requests * 1e6,
        "stream_tokens_per_second": flow.events / flow.seconds,
        "stream_ttft_p50_ms": quantile_ms(flow.first_event_seconds, 0.5),
        "stream_ttft_p99_ms": quantile_ms(flow.first_event_seconds, 0.99),
        "stream_event_p50_ms": quantile_ms(flow.event_delays_seconds, 0.5),
        "stream_event_p99_ms": quantile_ms(flow.event_delays_seconds, 0.99),
        "stream_cpu_us_per_event": flow.cpu_seconds / flow.events * 1e6,
        "mixed_event_p99_ms": quantile_ms(mixed.event_delays_seconds, 0.99),
    }


def best_of(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the best value of each figure: noise of a shared machine only makes things worse."""
    return {
        key: (max if key.endswith("per_second") else min)(one[key] for one in rounds)
        for key in rounds[0]
    }


def print_table(figures: dict[str, dict[str, float]]) -> None:
    """Print contenders as columns."""
    names = list(figures)
    sys.stdout.write(f"{'':<34}" + "".join(f"{name:>14}" for name in names) + "\n")
    for key, heading in FIGURES:
        cells = "".join(f"{figures[name][key]:>14,.2f}" for name in names)
        sys.stdout.write(f"{heading:<34}{cells}\n")


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway")
    parser.add_argument("--streams", type=int, default=100, help="paced streams (default 100)")
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement (default 3)")
    parser.add_argument("--rounds", type=int, default=2, help="best value counts (default 2)")
    parser.add_argument("--output", type=Path, help="another results file")
    options = parser.parse_args(arguments)
    pin(os.getpid(), LOAD_CORE)
    rounds: dict[str, list[dict[str, float]]] = {}
    contenders = {"direct": direct, "haproxy": haproxy, "trierarch": trierarch}
    with mock_engine(LOAD_CORE) as engine_port:
        for number in range(options.rounds):
            for name, start in contenders.items():
                sys.stderr.write(f"round {number + 1}: {name}\n")
                with contextlib.ExitStack() as stack:
                    contender = stack.enter_context(start(engine_port, CONTENDER_CORE))
                    found = uvloop.run(measure(contender, options.streams, options.seconds))
                rounds.setdefault(name, []).append(found)
    figures = {name: best_of(found) for name, found in rounds.items()}
    print_table(figures)
    ours = figures.pop("trierarch")
    command = (
        f"python -m benchmarks.gateway --streams {options.streams} --seconds {options.seconds:g}"
        f" --rounds {options.rounds}"
    )
    record("gateway", command, ours, figures, path=options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
