"""A true lower bound on the cost of serving a trace, from work alone.

Why it is one. Replica time is what is paid for. In the service model a decoded
token adds its own time, the time to read its own context, and at least an equal
share of the step's fixed cost, which is smallest when every seat is taken. A
prompt token adds its own time unless a prefix cache had it, which is impossible
the first time a block is seen anywhere. No schedule can serve a request with
less replica time than that sum, no replica-second is cheaper than the lowest
price of any variant at any time, and every replica-second is charged. Whoever
meets the objective for a share of the requests has served at least the cheapest
ones of that share.
"""

from __future__ import annotations

import math

import numpy as np

from trierarch.simulation.fleet.setup import SECONDS_PER_HOUR, FleetSetup
from trierarch.simulation.service import ServiceCoefficients
from trierarch.simulation.traces.trace import Trace


def least_work_seconds(service: ServiceCoefficients, trace: Trace) -> np.ndarray:
    """Return per request the replica time below which it cannot be served."""
    inputs = trace.input_tokens - cacheable_tokens(trace)
    work = service.request_work_seconds(trace.input_tokens, trace.output_tokens)
    whole_prompt = prefill_seconds(service, trace.input_tokens)
    return np.asarray(work - whole_prompt + prefill_seconds(service, inputs))


def prefill_seconds(service: ServiceCoefficients, input_tokens: np.ndarray) -> np.ndarray:
    """Return the time to compute prompts of these lengths from nothing."""
    inputs = input_tokens.astype(np.float64)
    pairs = inputs * inputs / 2.0
    return np.asarray(
        inputs * service.prefill_token_seconds + pairs * service.prefill_context_seconds
    )


def cacheable_tokens(trace: Trace) -> np.ndarray:
    """Return per request the prompt tokens in leading blocks that an earlier request had.

    With every replica sharing one unlimited cache this is what a cache could save; no real
    one saves more.
    """
    if not len(trace.prefix_block_ids):
        return np.zeros(len(trace), np.int64)
    _, first_place = np.unique(trace.prefix_block_ids, return_index=True)
    is_first = np.zeros(len(trace.prefix_block_ids), bool)
    is_first[first_place] = True
    owners = np.repeat(np.arange(len(trace)), np.diff(trace.prefix_block_offsets))
    known = np.bincount(owners[~is_first], minlength=len(trace))
    return np.asarray(np.minimum(known * trace.prefix_block_tokens, trace.input_tokens - 1))


def fluid_bound_usd(setup: FleetSetup, trace: Trace, *, served_ratio: float = 1.0) -> float:
    """Return a cost below which no policy can meet the objective for that share of requests.

    Args:
        setup: The fleet.
        trace: What arrives.
        served_ratio: Share of the requests that have to be served.
    """
    cheapest = math.inf
    count = math.ceil(served_ratio * len(trace))
    for variant in setup.variants:
        work = np.sort(least_work_seconds(variant.service, trace))[:count]
        lowest_price = min(price for _, price in variant.price.steps)
        cheapest = min(cheapest, float(work.sum()) / SECONDS_PER_HOUR * lowest_price)
    return cheapest
