"""Turns the engine's memory into scrapes."""

from __future__ import annotations

import numpy as np

from trierarch.simulation.engine import gauges
from trierarch.simulation.engine.records import DRAINING, FLEX, READY, Engine
from trierarch.simulation.fleet.ledger import ReplicaLife
from trierarch.simulation.fleet.snapshot import ReplicaGauges, Scrape
from trierarch.simulation.traces.trace import Floats

DISPERSION_WINDOW_SECONDS = 60


def scrape(
    engine: Engine, now_seconds: float, by_slot: dict[int, ReplicaLife], arrivals: Floats
) -> Scrape:
    """Return the metrics at ``now_seconds``, which the engine has just reached.

    Args:
        engine: The engine.
        now_seconds: Its time.
        by_slot: Which replica each slot holds.
        arrivals: Arrival times of the interactive requests; only the past is looked at.
    """
    lanes, variants = engine.lanes, engine.variants
    states = engine.replicas["state"]
    busy = np.flatnonzero((states == READY) | (states == DRAINING))
    rows = gauges.read_gauges(engine, now_seconds, busy)
    generated = variants["generated_tokens"].copy()
    np.add.at(generated, rows[:, gauges.VARIANT], rows[:, gauges.DECODED])
    return Scrape(
        at_seconds=now_seconds,
        waiting_requests=_tuple(lanes["queued"]),
        waiting_input_tokens=_tuple(lanes["queued_input_tokens"]),
        arrived_requests=_tuple(lanes["arrived"]),
        arrived_input_tokens=_tuple(lanes["arrived_input_tokens"]),
        completed_requests=_tuple(lanes["completed"]),
        completed_input_tokens=_tuple(lanes["completed_input_tokens"]),
        completed_output_tokens=_tuple(lanes["completed_output_tokens"]),
        late_requests=_tuple(lanes["late"]),
        missed_requests=_tuple(lanes["missed"]),
        lost_requests=_tuple(lanes["lost"]),
        flex_deadline_seconds=_flex_deadline(engine),
        in_flight_requests=int(engine.replicas["outstanding"].sum()),
        arrival_dispersion=_dispersion(arrivals, now_seconds),
        generated_tokens=_tuple(generated),
        prefilled_tokens=_tuple(variants["prefilled_tokens"]),
        cached_tokens=_tuple(variants["cached_tokens"]),
        preemptions=_tuple(variants["preemptions"]),
        wait_histogram=engine.wait_histogram.copy(),
        ttft_histogram=engine.ttft_histogram.copy(),
        engine_ttft_histograms=engine.engine_ttft_histogram.copy(),
        tpot_histograms=engine.tpot_histogram.copy(),
        replicas=tuple(
            _replica(engine, row, by_slot[int(row[gauges.SLOT])])
            for row in rows
            if states[row[gauges.SLOT]] == READY
        ),
    )


def _flex_deadline(engine: Engine) -> float | None:
    lane = engine.lanes[FLEX]
    return float(engine.requests[lane["head"]]["deadline_seconds"]) if lane["queued"] else None


def _dispersion(arrivals: Floats, now_seconds: float) -> float | None:
    start = now_seconds - DISPERSION_WINDOW_SECONDS
    low, high = np.searchsorted(arrivals, [start, now_seconds])
    if high == low or start < 0.0:
        return None
    seconds = (arrivals[low:high] - start).astype(np.int64)
    per_second = np.bincount(seconds, minlength=DISPERSION_WINDOW_SECONDS)
    return float(per_second.var() / per_second.mean())


def _tuple(column: np.ndarray) -> tuple[int, ...]:
    return tuple(int(value) for value in column)


def _replica(engine: Engine, row: np.ndarray, life: ReplicaLife) -> ReplicaGauges:
    limit = int(engine.variants[life.variant]["kv_limit_tokens"])
    kv_tokens = int(row[gauges.KV_TOKENS])
    return ReplicaGauges(
        serial=life.serial,
        variant=life.variant,
        running=int(row[gauges.RUNNING]),
        waiting=int(row[gauges.WAITING]),
        kv_ratio=kv_tokens / limit,
        kv_tokens=kv_tokens,
        pending_prefill_tokens=int(row[gauges.PENDING_PREFILL]),
        ready_seconds=life.serving_seconds,
    )
