"""What a policy is shown at a tick: numbers as an operator's metrics would have them.

Counts of replicas come from the orchestrator and are current; everything else
is as old as the metrics lag says, and a lost scrape shows the one before it.
Nothing here reveals a length, an arrival or an outage that has not happened.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from trierarch.simulation.engine.records import (
    HISTOGRAM_BINS,
    HISTOGRAM_BINS_PER_E,
    HISTOGRAM_FLOOR_SECONDS,
)

HISTOGRAM_EDGES_SECONDS = HISTOGRAM_FLOOR_SECONDS * np.exp(
    np.arange(HISTOGRAM_BINS) / HISTOGRAM_BINS_PER_E
)
"""Upper edge of each latency bin; the last is open."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReplicaGauges:
    """One ready replica at the scrape.

    Attributes:
        variant: Place of its variant in the fleet.
        running: Requests in the batch, prefilling ones included.
        waiting: Requests in the replica's own line.
        kv_ratio: KV memory in use.
        kv_tokens: The same in tokens.
        pending_prefill_tokens: Prompt tokens not yet computed.
        ready_seconds: When it first served.
    """

    serial: int
    variant: int
    running: int
    waiting: int
    kv_ratio: float
    kv_tokens: int
    pending_prefill_tokens: int
    ready_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Scrape:
    """Metrics at one instant; counters run from the start of the simulation.

    Per-tier tuples are in the order priority, default, flex.

    Attributes:
        at_seconds: When they were read.
        waiting_requests: At the gateway.
        waiting_input_tokens: Prompt tokens of those.
        arrived_requests: Counter.
        arrived_input_tokens: Counter.
        completed_requests: Counter.
        completed_input_tokens: Counter.
        completed_output_tokens: Counter.
        late_requests: Counter of completions whose first token came after the objective.
        missed_requests: Counter of completions outside the objective, late ones included.
        lost_requests: Counter.
        flex_deadline_seconds: Of the first waiting flex request; None if none waits.
        in_flight_requests: On replicas now, draining ones included.
        arrival_dispersion: Variance over mean of interactive arrivals per second in the last
            minute; None without arrivals.
        generated_tokens: Counter per variant.
        prefilled_tokens: Counter per variant.
        cached_tokens: Counter per variant of prompt tokens found in prefix caches.
        preemptions: Counter per variant.
        wait_histogram: Counter per latency bin of interactive requests that left the queue.
        ttft_histogram: Counter per latency bin of interactive first tokens.
        engine_ttft_histograms: The same per variant, from dispatch instead of arrival.
        tpot_histograms: Counter per variant and latency bin of interactive completions.
        replicas: Every ready replica.
    """

    at_seconds: float
    waiting_requests: tuple[int, ...]
    waiting_input_tokens: tuple[int, ...]
    arrived_requests: tuple[int, ...]
    arrived_input_tokens: tuple[int, ...]
    completed_requests: tuple[int, ...]
    completed_input_tokens: tuple[int, ...]
    completed_output_tokens: tuple[int, ...]
    late_requests: tuple[int, ...]
    missed_requests: tuple[int, ...]
    lost_requests: tuple[int, ...]
    flex_deadline_seconds: float | None
    in_flight_requests: int
    arrival_dispersion: float | None
    generated_tokens: tuple[int, ...]
    prefilled_tokens: tuple[int, ...]
    cached_tokens: tuple[int, ...]
    preemptions: tuple[int, ...]
    wait_histogram: NDArray[np.int64]
    ttft_histogram: NDArray[np.int64]
    engine_ttft_histograms: NDArray[np.int64]
    tpot_histograms: NDArray[np.int64]
    replicas: tuple[ReplicaGauges, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class VariantCounts:
    """Replicas of one variant now, as the orchestrator reports them.

    Attributes:
        name: The variant.
        ready: Serve.
        starting_seconds: For each starting replica, when it was provisioned.
        draining: Finish what they have.
        price_usd_per_hour: Of one replica, now.
        not_obtained: Spot replicas asked for at the last tick and not given.
        reclaimed: Replicas the market has taken back so far.
        cold_starts_seconds: Cold starts measured so far, oldest first.
    """

    name: str
    ready: int
    starting_seconds: tuple[float, ...]
    draining: int
    price_usd_per_hour: float
    not_obtained: int
    reclaimed: int
    cold_starts_seconds: tuple[float, ...]

    @property
    def current(self) -> int:
        """Ready plus starting: what a desired count is compared with."""
        return self.ready + len(self.starting_seconds)


@dataclasses.dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """Everything a policy sees at a tick.

    Attributes:
        now_seconds: Time of the decision.
        variants: Current counts.
        scrape: The newest metrics that have arrived; None before the first.
        previous: The scrape that arrived before it, for rates; None before the second.
        scrape_failed: The scrape due at this tick was lost, ``scrape`` is an older one.
    """

    now_seconds: float
    variants: tuple[VariantCounts, ...]
    scrape: Scrape | None
    previous: Scrape | None
    scrape_failed: bool
