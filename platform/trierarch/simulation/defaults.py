"""The fleets that ``simulate`` and ``compare`` run on unless told otherwise.

One replica is a node of eight H200 that serves a model of the DeepSeek-R1 class
(671 billion parameters, 256 routed experts of which a token uses 8, latent
attention) as one expert-parallel group. The coefficients come from:

- a step with nothing in it, 12 ms, and reading all experts, 10 ms: 104 GB of
  weights per accelerator at 80 % of 4.8 TB/s is 27 ms for everything; a step of a
  few requests reads a part of it. Together with 60 microseconds per decoding
  request and 8 ns per token of context a full batch of 256 takes about 42 ms:
  770 output tokens per second and accelerator, about half of what is published
  for disaggregated serving on H200 (2,200 with separate prefill), as measured
  aggregated deployments get;
- prefill at 31 microseconds per token: the 32,200 tokens per second without cache
  hits published for a node of eight H800;
- 70 KB of KV memory per token (61 layers x 576 x 2 bytes) in what the weights
  leave of 8 x 141 GB: 2 million tokens.

The price is 3.41 dollars per accelerator-hour (an index of April 2026) times
eight; spot is assumed at 45 % of it. Cold starts have a median of 300 s, inside
the 120 to 420 s that operators report for such models.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from trierarch.simulation.fleet.setup import (
    ON_DEMAND,
    SPOT,
    ColdStart,
    FleetSetup,
    Objective,
    PriceSteps,
    SpotSupply,
    VariantSetup,
)
from trierarch.simulation.service import ServiceCoefficients
from trierarch.simulation.traces.spot import SpotTrace
from trierarch.simulation.traces.trace import Tier, Trace

H200_NODE_SERVICE = ServiceCoefficients(
    step_seconds=0.012,
    expert_seconds=0.010,
    expert_share_ratio=8 / 256,
    decode_token_seconds=60e-6,
    prefill_token_seconds=31e-6,
    context_token_seconds=8e-9,
    prefill_context_seconds=0.2e-9,
    maximum_requests=256,
    step_tokens=8_192,
    kv_limit_tokens=2_000_000,
    prefix_cache_tokens=500_000,
    pending_prefill_limit_tokens=32_768,
)
H200_NODE_USD_PER_HOUR = 8 * 3.41
SPOT_PRICE_RATIO = 0.45
COLD_START = ColdStart(median_seconds=300.0, spread_ratio=0.25)
MAXIMUM_REPLICAS = 64
PEAK_WINDOW_SECONDS = 300.0


def single_fleet() -> FleetSetup:
    """Return the fleet of one on-demand variant."""
    return FleetSetup(
        name="single",
        variants=(
            VariantSetup(
                name="h200",
                service=H200_NODE_SERVICE,
                price=PriceSteps.constant(H200_NODE_USD_PER_HOUR),
                cold_start=COLD_START,
                minimum_replicas=1,
                maximum_replicas=MAXIMUM_REPLICAS,
                capacity_type=ON_DEMAND,
                accelerator="H200",
                accelerators_per_replica=8,
            ),
        ),
        objective=Objective(),
    )


def mixed_fleet(spot: SpotTrace, *, pool_replicas: int, duration_seconds: float) -> FleetSetup:
    """Return the fleet of an on-demand and a spot variant of the same node.

    Prices step twice, at a third and at two thirds of the run: spot becomes half as dear again,
    then on-demand 15 % cheaper and spot as at first.

    Args:
        spot: The market.
        pool_replicas: Spot replicas at full availability.
        duration_seconds: Length of the run, to place the price steps.
    """
    on_demand = H200_NODE_USD_PER_HOUR
    cheap = on_demand * SPOT_PRICE_RATIO
    third = duration_seconds / 3
    single = single_fleet()
    base = single.variants[0]
    return dataclasses.replace(
        single,
        name="mixed",
        variants=(
            dataclasses.replace(
                base,
                name="h200-ondemand",
                price=PriceSteps(((0.0, on_demand), (2 * third, on_demand * 0.85))),
            ),
            dataclasses.replace(
                base,
                name="h200-spot",
                minimum_replicas=0,
                price=PriceSteps(((0.0, cheap), (third, cheap * 1.5), (2 * third, cheap))),
                capacity_type=SPOT,
                supply=SpotSupply(spot, pool_replicas),
            ),
        ),
    )


def replicas_needed(setup: FleetSetup, trace: Trace, *, window_seconds: float) -> np.ndarray:
    """Return, per window of the trace, the busy replicas of the first variant it works out to.

    Flex requests are left out: they can wait.
    """
    if not len(trace):
        return np.zeros(1)
    work = setup.variants[0].service.request_work_seconds(trace.input_tokens, trace.output_tokens)
    work = np.where(trace.tiers == Tier.FLEX, 0.0, work)
    windows = (trace.arrival_seconds // window_seconds).astype(np.int64)
    return np.bincount(windows, weights=work) / window_seconds


def hardest_window_seconds(setup: FleetSetup, trace: Trace) -> float:
    """Return when the hardest five minutes begin."""
    load = replicas_needed(setup, trace, window_seconds=PEAK_WINDOW_SECONDS)
    return float(load.argmax()) * PEAK_WINDOW_SECONDS


def peak_replicas(setup: FleetSetup, trace: Trace) -> float:
    """Return the busy replicas in the trace's hardest five minutes."""
    return float(replicas_needed(setup, trace, window_seconds=PEAK_WINDOW_SECONDS).max())
