"""What a run teaches a search: small enough to come back from another process."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from trierarch.simulation.clairvoyant.schedule import ready_counts
from trierarch.simulation.fleet.setup import FleetSetup
from trierarch.simulation.fleet.simulator import Moment, RunResult, window_seconds
from trierarch.simulation.summary import RunSummary, met_objective, summarize
from trierarch.simulation.traces.trace import Tier, Trace

LONGEST_SLOT_SECONDS = 300.0
SLOTS_WANTED = 240


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """One run, slot by slot.

    Attributes:
        summary: Its figures.
        moments: Its decisions.
        ready: Ready replicas per slot and variant.
        misses: Interactive requests per slot of arrival that missed their objective.
        drain_seconds: Mean time from giving a replica back to its release; None without any.
    """

    summary: RunSummary
    moments: tuple[Moment, ...]
    ready: NDArray[np.int64]
    misses: NDArray[np.float64]
    drain_seconds: float | None


def slot_length_seconds(setup: FleetSetup, trace: Trace) -> float:
    """Return a slot of whole ticks: short for an hour, five minutes for a day."""
    wanted = min(LONGEST_SLOT_SECONDS, trace.duration_seconds / SLOTS_WANTED)
    return max(1.0, round(wanted / setup.tick_seconds)) * setup.tick_seconds


def slot_count(setup: FleetSetup, trace: Trace) -> int:
    """Return how many slots cover the window."""
    return math.ceil(window_seconds(setup, trace) / slot_length_seconds(setup, trace))


def request_slots(setup: FleetSetup, trace: Trace) -> NDArray[np.int64]:
    """Return the slot each request arrives in."""
    return np.asarray((trace.arrival_seconds / slot_length_seconds(setup, trace)).astype(np.int64))


def gather_evidence(result: RunResult) -> Evidence:
    """Return what a run teaches."""
    setup, trace = result.setup, result.trace
    slots = slot_count(setup, trace)
    _, _, met = met_objective(result)
    missed = (trace.tiers != Tier.FLEX) & ~met
    misses = np.bincount(request_slots(setup, trace)[missed], minlength=slots)
    drains = [
        life.released_seconds - life.drain_seconds
        for life in result.lives
        if life.drain_seconds < result.window_seconds and not life.reclaimed
    ]
    return Evidence(
        summary=summarize(result),
        moments=tuple(result.moments),
        ready=ready_counts(result.moments, slot_length_seconds(setup, trace), slots),
        misses=misses.astype(np.float64),
        drain_seconds=float(np.mean(drains)) if drains else None,
    )
