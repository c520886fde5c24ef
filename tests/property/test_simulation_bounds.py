"""No schedule undercuts the fluid bound, and the clairvoyant one is never the dearer."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trierarch.simulation.clairvoyant.bounds import fluid_bound_usd
from trierarch.simulation.clairvoyant.evidence import gather_evidence
from trierarch.simulation.clairvoyant.search import ClairvoyantSearch
from trierarch.simulation.defaults import single_fleet
from trierarch.simulation.fleet.simulator import simulate
from trierarch.simulation.schedules import StaticController
from trierarch.simulation.summary import summarize
from trierarch.simulation.traces import Trace
from trierarch.simulation.traces.trace import build_trace


def load(seed: int, count: int, seconds: float) -> Trace:
    """Return random requests."""
    generator = np.random.default_rng(seed)
    return build_trace(
        "random",
        "test",
        np.sort(generator.uniform(0, seconds, count)),
        generator.integers(1, 8000, count),
        generator.integers(1, 1500, count),
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(20, 1500), replicas=st.integers(1, 6))
def test_no_run_costs_less_than_the_fluid_bound(seed: int, count: int, replicas: int) -> None:
    setup = dataclasses.replace(single_fleet(), initial_replicas=(replicas,), tail_seconds=0.0)
    trace = load(seed, count, 60.0)
    summary = summarize(simulate(setup, trace, StaticController([replicas]), seed=seed))
    served = summary.slo_attainment.both
    assert summary.cost_usd >= fluid_bound_usd(setup, trace, served_ratio=served)


def test_the_clairvoyant_schedule_is_not_beaten_by_fixed_fleets() -> None:
    setup = dataclasses.replace(single_fleet(), initial_replicas=(2,))
    trace = load(1, 6000, 1200.0)
    runs = [
        gather_evidence(simulate(setup, trace, StaticController([count]), seed=0))
        for count in (1, 2, 3, 4)
    ]
    target = 0.9 * max(run.summary.slo_attainment.both for run in runs)
    search = ClairvoyantSearch(setup, trace, attainment_ratio=target, seed=0)
    for run in runs:
        search.learn(run)
    found = search.run()
    qualified = [run.summary for run in runs if run.summary.slo_attainment.both >= target]
    assert found.is_feasible
    assert found.summary.cost_usd <= min(summary.cost_usd for summary in qualified)
    replayed = summarize(simulate(setup, trace, found.replay(), seed=0))
    assert replayed.cost_usd == found.summary.cost_usd
