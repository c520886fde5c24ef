"""From what the simulated fleet shows to the ``Observation`` that policies take.

The same builder serves every policy, ours and its peers', so none sees more or
sooner than another. Rates are differences of counters between scrapes; a lost
scrape turns every metric stale at its old time, and before the first one every
metric is missing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from trierarch.autoscaling.signals import (
    NOT_REPORTED,
    CostSignals,
    EngineSignals,
    GatewaySignals,
    LatencySignal,
    LatencySummary,
    Measured,
    Missing,
    Observation,
    ReplicaLoad,
    Signal,
    Stale,
    StartingReplica,
    TierSignals,
    VariantObservation,
    measure,
)
from trierarch.core.identifiers import ModelName, ReplicaId, VariantName
from trierarch.simulation.fleet.setup import SECONDS_PER_HOUR, FleetSetup
from trierarch.simulation.fleet.snapshot import (
    HISTOGRAM_EDGES_SECONDS,
    FleetSnapshot,
    Scrape,
    VariantCounts,
)
from trierarch.simulation.traces.trace import Tier

DEPLOYMENT = "simulation/fleet"
MODEL = ModelName("simulated")
LATENCY_WINDOW_SECONDS = 60.0
"""Latency quantiles are of this recent window, as dashboards and rules commonly ask for."""
LENGTH_WINDOW_SECONDS = 300.0
"""Mean lengths are of a longer one: they move slowly and single requests are long."""
COST_WINDOW_SECONDS = 3600.0
"""The rolling window of the unit cost."""
QUANTILE_RATIOS = (0.5, 0.9, 0.95, 0.99)


class ObservationBuilder:
    """Keeps the scrapes and charges that windows need; one per run."""

    def __init__(self, setup: FleetSetup) -> None:
        self._setup = setup
        self._scrapes: deque[Scrape] = deque()
        self._spend: deque[tuple[float, float]] = deque()
        self._spent_usd = 0.0
        self._last: FleetSnapshot | None = None

    def build(self, snapshot: FleetSnapshot) -> Observation:
        """Return what a policy may know at this tick."""
        self._charge(snapshot)
        self._keep(snapshot)
        scrape = snapshot.scrape
        is_stale = snapshot.scrape_failed
        before = self._last
        self._last = snapshot
        variants = tuple(
            self._variant(index, counts, snapshot, before, is_stale)
            for index, counts in enumerate(snapshot.variants)
        )
        return Observation(
            now_unix_seconds=snapshot.now_seconds,
            deployment=DEPLOYMENT,
            model=MODEL,
            variants=variants,
            gateway=GatewaySignals() if scrape is None else self._gateway(scrape, is_stale),
            cost=CostSignals() if scrape is None else self._cost(scrape, is_stale),
        )

    def _charge(self, snapshot: FleetSnapshot) -> None:
        if self._last is not None:
            hours = (snapshot.now_seconds - self._last.now_seconds) / SECONDS_PER_HOUR
            self._spent_usd += hours * sum(
                (counts.current + counts.draining) * counts.price_usd_per_hour
                for counts in self._last.variants
            )
        self._spend.append((snapshot.now_seconds, self._spent_usd))
        while self._spend[0][0] < snapshot.now_seconds - COST_WINDOW_SECONDS:
            self._spend.popleft()

    def _keep(self, snapshot: FleetSnapshot) -> None:
        scrape = snapshot.scrape
        if scrape is None or (self._scrapes and self._scrapes[-1] is scrape):
            return
        self._scrapes.append(scrape)
        while self._scrapes[0].at_seconds < scrape.at_seconds - COST_WINDOW_SECONDS:
            self._scrapes.popleft()

    def _since(self, scrape: Scrape, seconds: float) -> Scrape | None:
        """Return the oldest scrape kept that is at most ``seconds`` older than ``scrape``."""
        for earlier in reversed(self._scrapes):
            if earlier.at_seconds <= scrape.at_seconds - seconds:
                return earlier
        return self._scrapes[0] if self._scrapes[0] is not scrape else None

    def _gateway(self, scrape: Scrape, is_stale: bool) -> GatewaySignals:
        wrap = _wrapper(scrape.at_seconds, is_stale)
        last = self._scrapes[-2] if len(self._scrapes) > 1 else None
        recent = self._since(scrape, LATENCY_WINDOW_SECONDS)
        lengths = self._since(scrape, LENGTH_WINDOW_SECONDS)
        return GatewaySignals(
            arrivals_per_second=_rates(wrap, scrape, last, lambda s: s.arrived_requests),
            waiting_requests=_gauges(wrap, scrape.waiting_requests),
            waiting_tokens=_gauges(wrap, scrape.waiting_input_tokens),
            in_flight_requests=wrap(scrape.in_flight_requests),
            queue_wait=_latency(scrape, recent, is_stale, lambda s: s.wait_histogram),
            ttft=_latency(scrape, recent, is_stale, lambda s: s.ttft_histogram),
            tpot=_latency(scrape, recent, is_stale, lambda s: s.tpot_histograms.sum(axis=0)),
            mean_input_tokens=wrap(
                _mean(scrape, lengths, lambda s: sum(s.arrived_input_tokens), _arrived)
            ),
            mean_output_tokens=wrap(
                _mean(scrape, lengths, lambda s: sum(s.completed_output_tokens), _completed)
            ),
            arrival_dispersion=wrap(scrape.arrival_dispersion),
            completed_per_second=wrap(_rate(scrape, last, _completed)),
            shed_per_second=wrap(_rate(scrape, last, lambda s: sum(s.lost_requests))),
            flex_in_flight_requests=wrap(
                scrape.arrived_requests[Tier.FLEX]
                - scrape.completed_requests[Tier.FLEX]
                - scrape.lost_requests[Tier.FLEX]
                - scrape.waiting_requests[Tier.FLEX]
            ),
            flex_deadline_unix_seconds=wrap(scrape.flex_deadline_seconds),
            slo_met_ratio=wrap(_met_ratio(scrape, last, lambda s: s.missed_requests)),
            ttft_met_ratio=wrap(_met_ratio(scrape, last, lambda s: s.late_requests)),
            interactive_completed_per_second=wrap(
                _rate(scrape, last, lambda s: _interactive(s.completed_requests))
            ),
        )

    def _cost(self, scrape: Scrape, is_stale: bool) -> CostSignals:
        wrap = _wrapper(scrape.at_seconds, is_stale)
        window = self._since(scrape, COST_WINDOW_SECONDS)
        elapsed = self._spend[-1][0] - self._spend[0][0]
        spend = (self._spend[-1][1] - self._spend[0][1]) / elapsed if elapsed > 0 else None
        return CostSignals(
            spend_usd_per_hour=wrap(_per_hour(spend)),
            input_tokens_per_hour=wrap(
                _per_hour(_rate(scrape, window, lambda s: sum(s.completed_input_tokens)))
            ),
            cached_tokens_per_hour=wrap(
                _per_hour(_rate(scrape, window, lambda s: sum(s.cached_tokens)))
            ),
            output_tokens_per_hour=wrap(
                _per_hour(_rate(scrape, window, lambda s: sum(s.completed_output_tokens)))
            ),
        )

    def _variant(
        self,
        index: int,
        counts: VariantCounts,
        snapshot: FleetSnapshot,
        before: FleetSnapshot | None,
        is_stale: bool,
    ) -> VariantObservation:
        setup = self._setup.variants[index]
        scrape = snapshot.scrape
        reclaimed_before = before.variants[index].reclaimed if before is not None else 0
        return VariantObservation(
            name=VariantName(counts.name),
            ready=counts.ready,
            starting=tuple(
                StartingReplica(self._expected_ready(counts, index, started), started)
                for started in counts.starting_seconds
            ),
            draining=counts.draining,
            price_usd_per_hour=measure(counts.price_usd_per_hour, snapshot.now_seconds),
            accelerators_per_replica=setup.accelerators_per_replica,
            not_obtained=counts.not_obtained,
            reclaimed=counts.reclaimed - reclaimed_before,
            cold_starts_seconds=counts.cold_starts_seconds,
            engine=EngineSignals() if scrape is None else self._engine(index, scrape, is_stale),
            replicas=() if scrape is None else _replicas(index, scrape),
        )

    def _expected_ready(self, counts: VariantCounts, index: int, started: float) -> float:
        """Return when a starting replica should serve, by the median of what was measured."""
        measured = counts.cold_starts_seconds
        believed = self._setup.variants[index].cold_start.median_seconds
        return started + (float(np.median(measured)) if measured else believed)

    def _engine(self, index: int, scrape: Scrape, is_stale: bool) -> EngineSignals:
        wrap = _wrapper(scrape.at_seconds, is_stale)
        last = self._scrapes[-2] if len(self._scrapes) > 1 else None
        recent = self._since(scrape, LATENCY_WINDOW_SECONDS)
        mine = [replica for replica in scrape.replicas if replica.variant == index]
        kv_ratio = math.fsum(replica.kv_ratio for replica in mine) / len(mine) if mine else None

        def rate(counter: Callable[[Scrape], Sequence[int]]) -> Signal:
            return wrap(_rate(scrape, last, lambda s: counter(s)[index]))

        return EngineSignals(
            running_requests=wrap(sum(replica.running for replica in mine)),
            waiting_requests=wrap(sum(replica.waiting for replica in mine)),
            kv_used_ratio=wrap(kv_ratio),
            preemptions_per_second=rate(lambda s: s.preemptions),
            input_tokens_per_second=rate(lambda s: s.prefilled_tokens),
            cached_tokens_per_second=rate(lambda s: s.cached_tokens),
            output_tokens_per_second=rate(lambda s: s.generated_tokens),
            ttft=_latency(scrape, recent, is_stale, lambda s: s.engine_ttft_histograms[index]),
            tpot=_latency(scrape, recent, is_stale, lambda s: s.tpot_histograms[index]),
        )


Wrap = Callable[[float | None], Signal]


def _wrapper(at_seconds: float, is_stale: bool) -> Wrap:
    def wrap(value: float | None) -> Signal:
        signal = measure(value, at_seconds)
        if is_stale and isinstance(signal, Measured):
            return Stale(signal.value, signal.at_unix_seconds)
        return signal

    return wrap


def _gauges(wrap: Wrap, values: Sequence[int]) -> TierSignals:
    return TierSignals(*(wrap(value) for value in values))


def _rate(
    scrape: Scrape, earlier: Scrape | None, counter: Callable[[Scrape], float]
) -> float | None:
    if earlier is None or earlier.at_seconds >= scrape.at_seconds:
        return None
    return (counter(scrape) - counter(earlier)) / (scrape.at_seconds - earlier.at_seconds)


def _rates(
    wrap: Wrap, scrape: Scrape, earlier: Scrape | None, counters: Callable[[Scrape], Sequence[int]]
) -> TierSignals:
    if earlier is None or earlier.at_seconds >= scrape.at_seconds:
        return TierSignals()
    elapsed = scrape.at_seconds - earlier.at_seconds
    pairs = zip(counters(scrape), counters(earlier), strict=True)
    return TierSignals(*(wrap((now - before) / elapsed) for now, before in pairs))


def _mean(
    scrape: Scrape,
    earlier: Scrape | None,
    total: Callable[[Scrape], float],
    count: Callable[[Scrape], float],
) -> float | None:
    """Return the mean over the window, or since the start if there is no earlier scrape."""
    start_total, start_count = (total(earlier), count(earlier)) if earlier else (0.0, 0.0)
    number = count(scrape) - start_count
    return (total(scrape) - start_total) / number if number > 0 else None


def _interactive(counts: Sequence[int]) -> int:
    return sum(counts[: Tier.FLEX])


def _met_ratio(
    scrape: Scrape, earlier: Scrape | None, missed: Callable[[Scrape], Sequence[int]]
) -> float | None:
    """Return the share of interactive requests ended since ``earlier`` that met; lost ones did not.

    None if none has ended.
    """
    if earlier is None:
        return None

    def ended(counts: Callable[[Scrape], Sequence[int]]) -> int:
        return _interactive(counts(scrape)) - _interactive(counts(earlier))

    lost = ended(lambda s: s.lost_requests)
    requests = ended(lambda s: s.completed_requests) + lost
    return 1.0 - (ended(missed) + lost) / requests if requests > 0 else None


def _arrived(scrape: Scrape) -> float:
    return sum(scrape.arrived_requests)


def _completed(scrape: Scrape) -> float:
    return sum(scrape.completed_requests)


def _per_hour(per_second: float | None) -> float | None:
    return None if per_second is None else per_second * SECONDS_PER_HOUR


def _latency(
    scrape: Scrape,
    earlier: Scrape | None,
    is_stale: bool,
    histogram: Callable[[Scrape], np.ndarray],
) -> LatencySignal:
    counts = histogram(scrape) - (histogram(earlier) if earlier is not None else 0)
    summary = summarize_histogram(counts)
    if summary is None:
        return NOT_REPORTED if earlier is None else Missing("NoSamples")
    if is_stale:
        return Stale(summary, scrape.at_seconds)
    return Measured(summary, scrape.at_seconds)


def summarize_histogram(counts: np.ndarray) -> LatencySummary | None:
    """Return quantiles of binned latencies, each the upper edge of its bin; None if empty."""
    total = int(counts.sum())
    if total <= 0:
        return None
    cumulative = np.cumsum(counts)
    edges = HISTOGRAM_EDGES_SECONDS
    middles = np.concatenate((edges[:1] / 2, np.sqrt(edges[:-1] * edges[1:])))
    places = np.searchsorted(cumulative, np.array(QUANTILE_RATIOS) * total)
    return LatencySummary(
        samples=total,
        mean_seconds=float((counts * middles).sum() / total),
        quantiles=tuple(
            (ratio, float(edges[place]))
            for ratio, place in zip(QUANTILE_RATIOS, places, strict=True)
        ),
    )


def _replicas(index: int, scrape: Scrape) -> tuple[ReplicaLoad, ...]:
    return tuple(
        ReplicaLoad(
            replica_id=ReplicaId(f"replica-{replica.serial}"),
            running_requests=replica.running,
            waiting_requests=replica.waiting,
            kv_used_ratio=min(1.0, replica.kv_ratio),
            kv_used_tokens=replica.kv_tokens,
            waiting_tokens=replica.pending_prefill_tokens,
            ready_unix_seconds=replica.ready_seconds,
        )
        for replica in scrape.replicas
        if replica.variant == index
    )
