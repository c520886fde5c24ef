"""Fits a service model to a measured run, by running it in the simulator.

Only three times are fitted: a step with nothing in it, a decoded token, a prompt
token. Everything else (seats, tokens of a step, KV memory) is what the engine was
told. The search is a pattern search in the logarithm of the times: it needs no
derivative and every try is a run of a few milliseconds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from benchmarks.simulation.open_loop import Timed

from trierarch.simulation.fleet.setup import (
    ColdStart,
    FleetSetup,
    PriceSteps,
    VariantSetup,
)
from trierarch.simulation.fleet.simulator import simulate
from trierarch.simulation.schedules import StaticController
from trierarch.simulation.service import ServiceCoefficients
from trierarch.simulation.summary import request_latencies
from trierarch.simulation.traces.trace import Trace

FITTED = ("step_seconds", "decode_token_seconds", "prefill_token_seconds")
FIRST_STRIDE, LAST_STRIDE = math.log(3.0), math.log(1.005)
SHRINK = 0.6
QUANTILES = (0.25, 0.5, 0.75, 0.9)
SMALLEST_SECONDS = 1e-7
"""Keeps a time that does not matter from running away to nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Figures:
    """What is compared: latencies in seconds, tokens per second."""

    ttft_mean: float
    ttft_p50: float
    ttft_p90: float
    tpot_mean: float
    tpot_p50: float
    tpot_p90: float
    output_tokens_per_second: float


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """A short run that begins and ends with an idle engine.

    Attributes:
        trace: Its requests, with the lengths that were really served.
        timed: What happened to them, in the same order.
    """

    trace: Trace
    timed: Sequence[Timed]


def measured_figures(blocks: Sequence[Block]) -> Figures:
    """Return the figures of a real run."""
    timed = [one for block in blocks for one in block.timed]
    return _figures(
        *_measured_latencies(blocks),
        sum(one.output_tokens for one in timed),
        sum(max(one.finish_seconds for one in block.timed) for block in blocks),
    )


def simulated_figures(service: ServiceCoefficients, blocks: Sequence[Block]) -> Figures:
    """Return the figures of the same requests on one simulated replica."""
    runs = [run_latencies(service, block.trace) for block in blocks]
    ttft, tpot, _ = (np.concatenate(column) for column in zip(*runs, strict=True))
    outputs = sum(int(block.trace.output_tokens.sum()) for block in blocks)
    return _figures(ttft, tpot, outputs, sum(float(finish.max()) for _, _, finish in runs))


def _measured_latencies(blocks: Sequence[Block]) -> tuple[np.ndarray, np.ndarray]:
    timed = [one for block in blocks for one in block.timed]
    return (
        np.array([one.ttft_seconds for one in timed]),
        np.array([one.tpot_seconds for one in timed]),
    )


def run_latencies(
    service: ServiceCoefficients, trace: Trace
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return TTFT, TPOT and finish in seconds of every request on one replica."""
    setup = FleetSetup(
        name="one replica",
        variants=(
            VariantSetup(
                name="engine",
                service=service,
                price=PriceSteps.constant(1.0),
                cold_start=ColdStart(0.0),
                minimum_replicas=1,
                maximum_replicas=1,
            ),
        ),
        initial_replicas=(1,),
    )
    result = simulate(setup, trace, StaticController([1]), seed=0)
    ttft, tpot = request_latencies(result)
    return ttft, tpot, result.requests["finish_seconds"]


def fit(start: ServiceCoefficients, blocks: Sequence[Block]) -> ServiceCoefficients:
    """Return the model whose runs of the blocks are closest to what was measured.

    Args:
        start: What is not fitted, and where the search begins.
        blocks: Requests and what happened to them.
    """
    measured = _shape(*_measured_latencies(blocks))
    best, best_error = start, _error(start, blocks, measured)
    stride = FIRST_STRIDE
    while stride > LAST_STRIDE:
        improved = False
        for name in FITTED:
            for direction in (math.exp(stride), math.exp(-stride)):
                value = max(SMALLEST_SECONDS, getattr(best, name) * direction)
                candidate = dataclasses.replace(best, **{name: value})
                error = _error(candidate, blocks, measured)
                if error < best_error:
                    best, best_error, improved = candidate, error, True
        if not improved:
            stride *= SHRINK
    return best


def _error(service: ServiceCoefficients, blocks: Sequence[Block], measured: np.ndarray) -> float:
    runs = [run_latencies(service, block.trace) for block in blocks]
    ttft, tpot, _ = (np.concatenate(column) for column in zip(*runs, strict=True))
    return float(np.square(np.log(_shape(ttft, tpot) / measured)).sum())


def _shape(ttft: np.ndarray, tpot: np.ndarray) -> np.ndarray:
    """Return means and quantiles of both latencies."""
    parts = [(values.mean(), *np.quantile(values, QUANTILES)) for values in (ttft, tpot)]
    return np.maximum(np.concatenate(parts), SMALLEST_SECONDS)


def _figures(ttft: np.ndarray, tpot: np.ndarray, outputs: int, seconds: float) -> Figures:
    return Figures(
        ttft_mean=float(ttft.mean()),
        ttft_p50=float(np.quantile(ttft, 0.5)),
        ttft_p90=float(np.quantile(ttft, 0.9)),
        tpot_mean=float(tpot.mean()),
        tpot_p50=float(np.quantile(tpot, 0.5)),
        tpot_p90=float(np.quantile(tpot, 0.9)),
        output_tokens_per_second=outputs / seconds,
    )
