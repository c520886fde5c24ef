"""Finds each peer's best setting, on the training half of a trace only.

A setting is the better one if it meets the attainment target for less money; where
none meets it, the one that comes closest. All settings of a policy's grid run
on a short window around the hardest minutes first; the best few of them then
run on the whole training half, and that decides.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from trierarch.core.errors import InvalidInput
from trierarch.simulation.defaults import hardest_window_seconds
from trierarch.simulation.policies import registry
from trierarch.simulation.runs import (
    SWEPT,
    Contestant,
    RunCache,
    Task,
    attainable_target,
    attained,
    ceiling_contestant,
    run_contestants,
)
from trierarch.simulation.scenarios import Scenario
from trierarch.simulation.sizing import with_initial_replicas
from trierarch.simulation.summary import RunSummary

SIEVE_REQUESTS = 60_000
"""Requests of the short window: enough for several cold starts, a fraction of a second to run."""
SIEVE_LEAD_RATIO = 0.6
"""Share of the short window that lies before the hardest minutes: the way up costs most."""
FINALISTS = 3
FEWEST_REQUESTS = 100
"""A training half with fewer tells nothing."""
SIEVE_COST_SHARE = 0.4
"""Share of the progress bar that the short window gets."""
Options = tuple[tuple[str, str], ...]
Progress = Callable[[str, float], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Tuning:
    """What was found.

    Attributes:
        settings: Per policy the settings that ran on the whole training half, best first; an
            empty setting is the policy's default.
    """

    settings: Mapping[str, tuple[Options, ...]]

    def best(self, policy: str) -> Options:
        """Return the best setting; empty where nothing beats the default."""
        found = self.settings.get(policy, ())
        return found[0] if found else ()


def tune(
    training: Scenario,
    policies: Iterable[str],
    *,
    attainment: float,
    seed: int,
    jobs: int = 1,
    cache: RunCache | None = None,
    progress: Progress | None = None,
) -> Tuning:
    """Return the best settings of each policy on a training half.

    Args:
        training: The half and its fleet.
        policies: Names in the registry.
        attainment: The share of requests that must meet the objective.
        seed: Of the runs.
        jobs: Processes to use.
        cache: Of runs.
        progress: Called with what is being done and the share that is done.

    Raises:
        InvalidInput: If the half is too short to learn from.
    """
    if len(training.trace) < FEWEST_REQUESTS:
        raise InvalidInput(
            f"{training.trace.name}: {len(training.trace)} requests are too few to tune on"
        )
    entries = registry()
    grids: dict[str, Sequence[Options]] = {
        policy: ((), *(tuple(options) for options in entries[policy].sweep(training)))
        for policy in policies
    }
    sieve = sieve_scenario(training)
    if sieve is not None:
        grids = _rank(
            sieve, grids, attainment, seed, jobs, cache, _part(progress, 0.0, SIEVE_COST_SHARE)
        )
        grids = {policy: finalists(ranked) for policy, ranked in grids.items()}
    start = 0.0 if sieve is None else SIEVE_COST_SHARE
    ranked = _rank(training, grids, attainment, seed, jobs, cache, _part(progress, start, 1.0))
    return Tuning({policy: finalists(settings) for policy, settings in ranked.items()})


def sieve_scenario(training: Scenario) -> Scenario | None:
    """Return the short window around the hardest minutes; None if the half is short itself."""
    trace = training.trace
    if len(trace) <= 2 * SIEVE_REQUESTS:
        return None
    length = trace.duration_seconds * SIEVE_REQUESTS / len(trace)
    middle = hardest_window_seconds(training.setup, trace)
    begin = max(0.0, min(middle - SIEVE_LEAD_RATIO * length, trace.duration_seconds - length))
    window = trace.between(begin, begin + length, name=f"{trace.name}, hardest minutes")
    return dataclasses.replace(
        training, trace=window, setup=with_initial_replicas(training.setup, window)
    )


def finalists(ranked: Sequence[Options]) -> tuple[Options, ...]:
    """Return the first few."""
    return tuple(ranked[:FINALISTS])


def rank_key(summary: RunSummary, target: float) -> tuple[bool, float]:
    """Return a key that sorts the better run first."""
    share = attained(summary)
    if share < target:
        return (True, -share)
    cost = summary.usd_per_million_slo_tokens
    return (False, math.inf if cost is None else cost)


def _rank(
    scenario: Scenario,
    grids: Mapping[str, Sequence[Options]],
    attainment: float,
    seed: int,
    jobs: int,
    cache: RunCache | None,
    progress: Progress | None,
) -> dict[str, Sequence[Options]]:
    ceiling = ceiling_contestant(scenario)
    tasks: list[Task] = [(ceiling, seed)]
    tasks += [
        (Contestant(policy, SWEPT, options), seed)
        for policy, settings in grids.items()
        for options in dict.fromkeys(settings)
    ]
    summaries: dict[Contestant, RunSummary] = {}
    for (contestant, _), evidence in run_contestants(scenario, tasks, jobs=jobs, cache=cache):
        summaries[contestant] = evidence.summary
        if progress is not None:
            progress(f"tuning {contestant.policy}", len(summaries) / len(tasks))
    target = attainable_target(attainment, summaries.pop(ceiling).slo_attainment.both)
    ranked: dict[str, list[tuple[tuple[bool, float], Options]]] = {policy: [] for policy in grids}
    for contestant, summary in summaries.items():
        ranked[contestant.policy].append((rank_key(summary, target), contestant.options))
    return {
        policy: tuple(options for _, options in sorted(pairs)) for policy, pairs in ranked.items()
    }


def _part(progress: Progress | None, start: float, end: float) -> Progress | None:
    """Return a progress that fills a part of the given one."""
    if progress is None:
        return None
    whole = progress
    return lambda label, share: whole(label, start + (end - start) * share)
