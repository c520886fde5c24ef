"""One contestant's run, and what counts as meeting the objective.

The target is what was asked for, or 99 % of what the largest fleet allowed reaches
where that is less: some prompts cannot be answered in time by any number of
replicas.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

from trierarch.simulation.clairvoyant.evidence import Evidence, gather_evidence
from trierarch.simulation.fleet.simulator import simulate
from trierarch.simulation.policies import STATIC, build_controller
from trierarch.simulation.scenarios import Scenario
from trierarch.simulation.summary import RunSummary
from trierarch.simulation.workers import run_all

CEILING_SHARE = 0.99
"""Share of that attainment which is asked for where the target is out of reach."""
DEFAULT, TUNED, SWEPT, CEILING = "default", "tuned", "swept", "ceiling"


@dataclasses.dataclass(frozen=True, slots=True)
class Contestant:
    """A policy with its settings.

    Attributes:
        policy: Name in the registry.
        setting: ``default``, ``tuned`` or ``swept``.
        options: What differs from the policy's defaults.
    """

    policy: str
    setting: str = DEFAULT
    options: tuple[tuple[str, str], ...] = ()

    @property
    def is_tuned(self) -> bool:
        """Whether its setting was, or is to be, found on the training half."""
        return self.setting == TUNED

    @property
    def label(self) -> str:
        """Unique name of a row."""
        if self.setting == DEFAULT:
            return self.policy
        if self.setting == TUNED:
            return f"{self.policy}:tuned"
        return f"{self.policy}:{','.join(f'{name}={value}' for name, value in self.options)}"


Task = tuple[Contestant, int]
"""Who runs, with which seed."""


class RunCache(Protocol):
    """Remembers runs between processes."""

    def load(self, scenario: Scenario, task: Task) -> Evidence | None:
        """Return an earlier result of the same run, or None."""
        ...

    def save(self, scenario: Scenario, task: Task, evidence: Evidence) -> None:
        """Keep a result."""
        ...


def run_contestants(
    scenario: Scenario, tasks: Sequence[Task], *, jobs: int, cache: RunCache | None = None
) -> Iterator[tuple[Task, Evidence]]:
    """Yield every run's evidence, as they come; what the cache holds comes first."""
    left: list[Task] = []
    for task in tasks:
        known = cache.load(scenario, task) if cache is not None else None
        if known is None:
            left.append(task)
        else:
            yield task, known
    for task, evidence in run_all(_run_contestant, scenario, left, jobs):
        if cache is not None:
            cache.save(scenario, task, evidence)
        yield task, evidence


def ceiling_contestant(scenario: Scenario) -> Contestant:
    """Return the largest fleet allowed, ready from the first second."""
    most = scenario.setup.variants[0].maximum_replicas
    return Contestant(STATIC, CEILING, (("replicas", str(most)),))


def attainable_target(attainment: float, ceiling: float) -> float:
    """Return the share to ask for, given what the largest fleet attains."""
    return attainment if ceiling >= attainment / CEILING_SHARE else CEILING_SHARE * ceiling


def attained(summary: RunSummary) -> float:
    """Return the share of met objectives of the worse-off of interactive and flex requests."""
    flex = summary.flex_attainment
    both = summary.slo_attainment.both
    return both if flex is None else min(both, flex)


def _run_contestant(scenario: Scenario, task: Task) -> Evidence:
    contestant, seed = task
    setup = scenario.setup
    if contestant.setting == CEILING:
        # Ready from the first second: what no later start could have reached.
        first = int(dict(contestant.options)["replicas"].split(",")[0])
        setup = dataclasses.replace(setup, initial_replicas=(first, *setup.initial_replicas[1:]))
    controller = build_controller(contestant.policy, scenario, dict(contestant.options), seed)
    return gather_evidence(simulate(setup, scenario.trace, controller, seed=seed))
