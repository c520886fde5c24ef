"""Peers are tuned on what they may know, and by the rule that is published."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from trierarch.core.errors import InvalidInput
from trierarch.simulation.contestants import choose_contestants, with_curves, with_tuning
from trierarch.simulation.runs import (
    SWEPT,
    Contestant,
    attainable_target,
    attained,
    run_contestants,
)
from trierarch.simulation.scenarios import TRAINING, Scenario, ScenarioChoices, build_scenario
from trierarch.simulation.summary import Attainment, RunSummary
from trierarch.simulation.traces import Trace
from trierarch.simulation.traces.trace import build_trace
from trierarch.simulation.tuning import rank_key, sieve_scenario, tune


def requests(count: int, seconds: float = 1200.0) -> Trace:
    """Return evenly spaced requests."""
    return build_trace(
        "even",
        "test",
        np.linspace(0.0, seconds, count),
        np.full(count, 1000, np.int64),
        np.full(count, 200, np.int64),
    )


def summary(cost: float, both: float, flex: float | None = None) -> RunSummary:
    return RunSummary(
        policy="x",
        cost_usd=cost,
        usd_per_million_tokens=cost,
        usd_per_million_slo_tokens=cost,
        slo_attainment=Attainment(both, both, both),
        flex_attainment=flex,
        replica_hours=1.0,
        scale_events=0,
        reversals=0,
        max_queue=0,
        lost_requests=0,
        unfinished_requests=0,
        requests=1,
        slo_tokens=1,
        seed=0,
    )


@pytest.fixture(scope="module")
def training() -> Scenario:
    return build_scenario(requests(24_000), ScenarioChoices(half=TRAINING))


def test_meeting_the_target_comes_before_money_and_closeness_before_both() -> None:
    runs = [summary(5, 0.995), summary(3, 0.991), summary(1, 0.98), summary(2, 0.97)]
    ranked = sorted(reversed(runs), key=lambda run: rank_key(run, 0.99))
    assert [run.cost_usd for run in ranked] == [3, 5, 1, 2]


def test_flex_work_that_is_late_is_a_miss_too() -> None:
    assert attained(summary(1, 0.995, 0.5)) == 0.5


@pytest.mark.parametrize(
    ("ceiling", "target"),
    [(1.0, 0.99), (0.99, 0.99 * 0.99), (0.5, 0.495)],
    ids=["within-reach", "just-out-of-reach", "far-out-of-reach"],
)
def test_nobody_is_asked_for_more_than_a_huge_fleet_gives(ceiling: float, target: float) -> None:
    assert attainable_target(0.99, ceiling) == pytest.approx(target)


def test_a_tuned_setting_is_the_best_of_the_grid_on_the_training_half(training: Scenario) -> None:
    tuning = tune(training, ["static"], attainment=0.99, seed=0)
    best = tuning.best("static")
    runs = dict(
        run_contestants(
            training,
            [(Contestant("static", SWEPT, options), 0) for options in tuning.settings["static"]],
            jobs=1,
        )
    )
    by_options = {contestant.options: run.summary for (contestant, _), run in runs.items()}
    assert min(by_options.values(), key=lambda run: rank_key(run, 0.99)) == by_options[best]


def test_a_cache_answers_for_a_run_it_has_seen(training: Scenario) -> None:
    class Memory:
        def __init__(self) -> None:
            self.kept: dict[object, object] = {}

        def load(self, scenario, task):
            return self.kept.get(task)

        def save(self, scenario, task, evidence) -> None:
            assert task not in self.kept
            self.kept[task] = evidence

    memory, task = Memory(), (Contestant("static", SWEPT, (("replicas", "1"),)), 0)
    first = dict(run_contestants(training, [task], jobs=1, cache=memory))
    again = dict(run_contestants(training, [task], jobs=1, cache=memory))
    assert first[task] is again[task]


def test_a_long_half_is_sieved_around_its_hardest_minutes(training: Scenario) -> None:
    assert sieve_scenario(training) is None
    count = 130_000
    times = np.sort(
        np.concatenate(
            (np.linspace(0, 40_000, count - 20_000), np.linspace(20_000, 20_300, 20_000))
        )
    )
    long = dataclasses.replace(
        requests(count), arrival_seconds=times, tiers=np.ones(count, np.int8)
    )
    sieve = sieve_scenario(dataclasses.replace(training, trace=long))
    assert sieve is not None
    assert len(sieve.trace) < count
    assert np.diff(np.searchsorted(sieve.trace.arrival_seconds, [0, 40_000])).item() > 20_000


def test_too_few_requests_are_said_to_be_too_few() -> None:
    few = build_scenario(requests(40), ScenarioChoices())
    with pytest.raises(InvalidInput, match="too few to tune on"):
        tune(few, ["static"], attainment=0.99, seed=0)


def test_ours_is_never_tuned() -> None:
    labels = [contestant.label for contestant in choose_contestants(None)]
    assert "hpa:tuned" in labels
    assert "trierarch" in labels
    assert "trierarch:tuned" not in labels
    with pytest.raises(InvalidInput, match="not tuned"):
        choose_contestants(["trierarch:tuned"])


def test_what_came_next_in_the_tuning_is_swept_once(training: Scenario) -> None:
    tuning = tune(training, ["static"], attainment=0.99, seed=0)
    chosen = with_tuning(choose_contestants(["static:tuned"]), tuning)
    everyone = with_curves(chosen, training, tuning)
    assert [contestant.setting for contestant in everyone[:1]] == ["tuned"]
    assert chosen[0].options not in [contestant.options for contestant in everyone[1:]]
    assert len(everyone) > 1
