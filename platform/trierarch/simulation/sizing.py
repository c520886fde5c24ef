"""How large a fixed fleet has to be, found by trying it.

The work that arrives says how many replicas are busy, not how many keep the
latency objective: prompts that arrive in bursts slow down every request that is
decoding beside them. So a size is found the way a load test finds it.
"""

from __future__ import annotations

import dataclasses

from trierarch.simulation.defaults import PEAK_WINDOW_SECONDS, hardest_window_seconds
from trierarch.simulation.fleet.setup import FleetSetup
from trierarch.simulation.fleet.simulator import simulate
from trierarch.simulation.schedules import StaticController
from trierarch.simulation.summary import summarize
from trierarch.simulation.traces.trace import Trace

START_WINDOW_SECONDS = 600.0
"""What a fleet is sized for at the start: two cold starts, until decisions can have acted."""
PEAK_MARGIN_SECONDS = 300.0
"""Run before the hardest window, so that it begins with full batches."""
CLOSE_ENOUGH_RATIO = 0.995
"""Share of the best attainable result that counts as meeting an objective out of reach."""


def attainment_of(setup: FleetSetup, trace: Trace, replicas: int) -> float:
    """Return what a fixed fleet of the first variant, ready from the start, attains."""
    counts = (replicas, *(0 for _ in setup.variants[1:]))
    fixed = dataclasses.replace(
        setup,
        initial_replicas=counts,
        variants=tuple(
            dataclasses.replace(variant, minimum_replicas=0, supply=None)
            for variant in setup.variants
        ),
    )
    result = simulate(fixed, trace, StaticController(counts), seed=0)
    return summarize(result).slo_attainment.both


def smallest_fixed_fleet(setup: FleetSetup, trace: Trace) -> int:
    """Return the fewest replicas of the first variant that meet the objective on a short trace.

    Where no number meets it, the fewest that come close to what the largest fleet attains.
    """
    most = setup.variants[0].maximum_replicas
    target = setup.objective.percentile / 100.0
    target = min(target, CLOSE_ENOUGH_RATIO * attainment_of(setup, trace, most))
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        if attainment_of(setup, trace, middle) >= target:
            high = middle
        else:
            low = middle
    return high


def peak_fleet(setup: FleetSetup, trace: Trace) -> int:
    """Return the fixed fleet that the hardest five minutes of a trace ask for."""
    start = hardest_window_seconds(setup, trace)
    begin = max(0.0, start - PEAK_MARGIN_SECONDS)
    end = start + PEAK_WINDOW_SECONDS
    return smallest_fixed_fleet(setup, trace.between(begin, end, name=trace.name))


def with_initial_replicas(setup: FleetSetup, trace: Trace) -> FleetSetup:
    """Return the fleet with what the trace's first minutes ask for, of its first variant.

    A run then measures decisions, not the luck of an empty start. Every policy gets the same.
    """
    beginning = trace.between(0.0, START_WINDOW_SECONDS, name=trace.name)
    first = max(smallest_fixed_fleet(setup, beginning), setup.variants[0].minimum_replicas)
    others = [variant.minimum_replicas for variant in setup.variants[1:]]
    return dataclasses.replace(setup, initial_replicas=(first, *others))
