"""A trace and a fleet put together, the same way for every policy."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from trierarch.core.errors import InvalidInput
from trierarch.simulation.defaults import (
    PEAK_WINDOW_SECONDS,
    mixed_fleet,
    peak_replicas,
    replicas_needed,
    single_fleet,
)
from trierarch.simulation.fleet.setup import ColdStart, FleetSetup, Objective
from trierarch.simulation.sizing import with_initial_replicas
from trierarch.simulation.traces import SpotTrace, Trace, read_spot_trace

SINGLE, MIXED = "single", "mixed"
FLEETS = (SINGLE, MIXED)
ALL, TRAINING, TEST = "all", "train", "test"
HALVES = (ALL, TRAINING, TEST)
FLEX_SHARE_RATIO = 0.3
"""Share of the traffic of the mixed fleet that can wait for a day."""
SMALLEST_PEAK_REPLICAS = 3.0
"""Below this many busy replicas at peak there is nothing to scale; such a trace is scaled up."""
SCALED_PEAK_REPLICAS = 5.0
LARGEST_AUTOMATIC_FACTOR = 100.0
FEWEST_REQUESTS_TO_SCALE = 100
"""A handful of requests says nothing about traffic, however often it is copied."""
SPOT_RECORDINGS = {"gcp": "gcp-a100x1-east1b-count.csv", "aws": "aws-p3-events.csv"}


@dataclasses.dataclass(frozen=True, slots=True)
class ScenarioChoices:
    """What a user may choose beside the trace and the policy.

    Attributes:
        fleet: ``single`` or ``mixed``.
        half: ``all``, ``train`` or ``test``; the trace is scaled before it is cut.
        rate_factor: Multiplies the number of requests; None scales small traces up.
        seed: Of everything drawn.
        spot: ``gcp``, ``aws`` or a file.
        flex_share_ratio: Of the default tier; None takes 0 for single and 30 % for mixed.
        objective: None takes the fleet's own.
        cold_start_seconds: Median; None takes the fleet's own.
        metrics_loss_ratio: Share of scrapes that fail.
        longest_seconds: A longer trace is cut to its hardest part of this length; None keeps all.
        most_requests: A trace with more is cut to its hardest part of at most so many.
    """

    fleet: str = SINGLE
    half: str = ALL
    rate_factor: float | None = 1.0
    seed: int = 0
    spot: str = "gcp"
    flex_share_ratio: float | None = None
    objective: Objective | None = None
    cold_start_seconds: float | None = None
    metrics_loss_ratio: float = 0.0
    longest_seconds: float | None = None
    most_requests: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Scenario:
    """What a run needs beside a policy and a seed.

    Attributes:
        setup: The fleet.
        trace: Its requests.
        rate_factor: By which the recording was scaled.
        training: The half before, from which a policy may learn; None where there is none.
    """

    setup: FleetSetup
    trace: Trace
    rate_factor: float
    training: Scenario | None = None


def build_scenario(trace: Trace, choices: ScenarioChoices) -> Scenario:
    """Return the fleet and the trace that runs on it.

    Raises:
        InvalidInput: If a choice does not exist or leaves nothing to run.
    """
    setup = single_fleet()
    if choices.longest_seconds is not None:
        trace = _hardest(setup, trace, choices.longest_seconds)
    factor = choices.rate_factor
    if factor is None:
        factor = automatic_rate_factor(setup, trace)
    if choices.most_requests is not None:
        trace = _hardest_requests(setup, trace, choices.most_requests / max(factor, 1e-9))
    if not (math.isfinite(factor) and factor > 0):
        raise InvalidInput(f"the rate factor must be positive, got {factor}")
    trace = trace.scaled(factor, seed=choices.seed)
    scenario = _assemble(setup, trace, choices, factor, choices.half)
    if choices.half != TEST:
        return scenario
    training = _assemble(setup, trace, choices, factor, TRAINING)
    return dataclasses.replace(scenario, training=training)


def _assemble(
    single: FleetSetup, trace: Trace, choices: ScenarioChoices, factor: float, half: str
) -> Scenario:
    """Return one half, or the whole, of a scaled trace on the fleet that was chosen."""
    if choices.fleet == MIXED:
        pool = max(1, round(peak_replicas(single, trace)))
        trace = _cut(_with_flex(trace, choices, FLEX_SHARE_RATIO), half)
        setup = mixed_fleet(
            spot_recording(choices.spot),
            pool_replicas=pool,
            duration_seconds=trace.duration_seconds,
        )
    elif choices.fleet == SINGLE:
        trace, setup = _cut(_with_flex(trace, choices, 0.0), half), single
    else:
        raise InvalidInput(f"no fleet {choices.fleet!r}; there are {', '.join(FLEETS)}")
    if not len(trace):
        raise InvalidInput(f"{trace.name}: no request is left to run")
    setup = dataclasses.replace(
        setup,
        objective=choices.objective or setup.objective,
        metrics_loss_ratio=choices.metrics_loss_ratio,
        variants=tuple(
            dataclasses.replace(
                variant,
                cold_start=ColdStart(choices.cold_start_seconds, variant.cold_start.spread_ratio),
            )
            if choices.cold_start_seconds is not None
            else variant
            for variant in setup.variants
        ),
    )
    return Scenario(with_initial_replicas(setup, trace), trace, factor)


def _hardest(setup: FleetSetup, trace: Trace, longest_seconds: float) -> Trace:
    load = replicas_needed(setup, trace, window_seconds=PEAK_WINDOW_SECONDS)
    return trace.hardest(longest_seconds, load, PEAK_WINDOW_SECONDS)


def _hardest_requests(setup: FleetSetup, trace: Trace, most: float) -> Trace:
    """Return the hardest part with at most so many requests, but one window at least."""
    part = trace
    windows = math.ceil(trace.duration_seconds / PEAK_WINDOW_SECONDS)
    while len(part) > most and windows > 1:
        windows = max(1, min(windows - 1, int(windows * most / len(part))))
        part = _hardest(setup, trace, windows * PEAK_WINDOW_SECONDS)
    return part


def automatic_rate_factor(setup: FleetSetup, trace: Trace) -> float:
    """Return 1 for a trace that needs several replicas, else what makes it need them.

    Public traces are samples of services many times their size.
    """
    peak = peak_replicas(setup, trace)
    if peak >= SMALLEST_PEAK_REPLICAS or len(trace) < FEWEST_REQUESTS_TO_SCALE:
        return 1.0
    return round(min(LARGEST_AUTOMATIC_FACTOR, SCALED_PEAK_REPLICAS / peak), 2)


def spot_recording(choice: str) -> SpotTrace:
    """Return a recording that comes with the package, or one from a file.

    Raises:
        InvalidInput: If the file cannot be used.
    """
    name = SPOT_RECORDINGS.get(choice)
    if name is not None:
        return read_spot_trace(Path(__file__).parent / "traces" / "recordings" / name)
    return read_spot_trace(Path(choice))


def _with_flex(trace: Trace, choices: ScenarioChoices, default_ratio: float) -> Trace:
    ratio = choices.flex_share_ratio
    ratio = default_ratio if ratio is None else ratio
    if not 0.0 <= ratio <= 1.0:
        raise InvalidInput(f"the flex share must lie between 0 and 1, got {ratio}")
    return trace.with_flex_share(ratio, seed=choices.seed) if ratio > 0 else trace


def _cut(trace: Trace, half: str) -> Trace:
    if half == ALL:
        return trace
    if half not in HALVES:
        raise InvalidInput(f"no half {half!r}; there are {', '.join(HALVES)}")
    training, test = trace.halves()
    return training if half == TRAINING else test
