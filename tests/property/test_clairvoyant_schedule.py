"""Nobody who meets the attainment target is cheaper than the schedule that knows the future."""

from __future__ import annotations

import numpy as np
import pytest

from trierarch.simulation.clairvoyant.bounds import fluid_bound_usd
from trierarch.simulation.clairvoyant.search import ClairvoyantSearch
from trierarch.simulation.fleet.simulator import simulate
from trierarch.simulation.runs import (
    DEFAULT,
    Contestant,
    attainable_target,
    attained,
    ceiling_contestant,
    run_contestants,
)
from trierarch.simulation.scenarios import Scenario, ScenarioChoices, build_scenario
from trierarch.simulation.summary import summarize
from trierarch.simulation.traces import Trace
from trierarch.simulation.traces.trace import build_trace

SECONDS, MEAN_RATE = 1500.0, 14.0
PEERS = ("static", "hpa", "knative", "llm-d-slo", "skyserve", "wva-queue-model", "dynamo-sla")
OURS = "trierarch"


def shaped(kind: str, seed: int) -> Trace:
    """Return requests whose rate rises, swings, or bursts."""
    generator = np.random.default_rng(seed)
    count = int(MEAN_RATE * SECONDS)
    places = np.linspace(0.0, 1.0, 301)
    rate = {
        "ramp": 0.4 + 1.2 * places,
        "wave": 1.0 + 0.7 * np.sin(4 * np.pi * places),
        "burst": np.where((places > 0.4) & (places < 0.6), 2.6, 0.6),
    }[kind]
    share = np.concatenate(([0.0], np.cumsum((rate[1:] + rate[:-1]) / 2)))
    times = np.interp(np.sort(generator.random(count)), share / share[-1], places * SECONDS)
    inputs, outputs = generator.integers(50, 3000, count), generator.integers(20, 600, count)
    return build_trace(kind, "test", times, inputs, outputs)


@pytest.mark.parametrize(
    ("kind", "fleet", "seed"),
    [("ramp", "single", 0), ("wave", "single", 1), ("burst", "single", 2), ("wave", "mixed", 3)],
)
def test_no_policy_is_cheaper_at_the_same_attainment(kind: str, fleet: str, seed: int) -> None:
    scenario = build_scenario(shaped(kind, seed), ScenarioChoices(fleet=fleet, seed=seed))
    ceiling = ceiling_contestant(scenario)
    tasks = [(Contestant(name, DEFAULT), seed) for name in (*PEERS, OURS)]
    runs = {
        contestant: evidence
        for (contestant, _), evidence in run_contestants(
            scenario, [(ceiling, seed), *tasks], jobs=1
        )
    }
    target = attainable_target(0.99, runs.pop(ceiling).summary.slo_attainment.both)

    alone = search(scenario, target, seed)
    found = alone.run()
    assert found.is_feasible
    peers = [runs[Contestant(name, DEFAULT)].summary for name in PEERS]
    assert all(found.summary.cost_usd <= p.cost_usd for p in peers if attained(p) >= target)

    informed = search(scenario, target, seed)
    for evidence in runs.values():
        informed.learn(evidence)
    best = informed.run()
    everyone = [evidence.summary for evidence in runs.values()]
    assert all(best.summary.cost_usd <= s.cost_usd for s in everyone if attained(s) >= target)
    assert best.summary.cost_usd >= fluid_bound_usd(
        scenario.setup, scenario.trace, served_ratio=target
    )
    again = summarize(simulate(scenario.setup, scenario.trace, best.replay(), seed=seed))
    assert again.cost_usd == best.summary.cost_usd
    assert attained(again) >= target


def search(scenario: Scenario, target: float, seed: int) -> ClairvoyantSearch:
    """Return a search that has seen nothing yet."""
    return ClairvoyantSearch(scenario.setup, scenario.trace, attainment_ratio=target, seed=seed)
