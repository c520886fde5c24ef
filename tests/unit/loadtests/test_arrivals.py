import itertools
import math
import statistics

import pytest

from trierarch_loadtests.arrivals import ArrivalLaw, arrivals
from trierarch_loadtests.shapes.stages import Stage
from trierarch_loadtests.workloads.seeds import stream


def times(law, stages, seed=1):
    return [arrival.seconds for arrival in arrivals(law, stages, stream(seed, "arrivals"))]


def gaps(instants):
    return [later - earlier for earlier, later in itertools.pairwise(instants)]


def test_constant_arrivals_are_a_metronome():
    assert times(ArrivalLaw(law="constant"), [Stage("a", 2.0, 2.0)]) == [0.5, 1.0, 1.5]


@pytest.mark.parametrize("law", [ArrivalLaw(), ArrivalLaw(law="gamma", gap_variation=2.0)])
def test_each_stage_gets_its_own_rate(law):
    stages = [Stage("low", 500.0, 2.0), Stage("none", 100.0, 0.0), Stage("high", 500.0, 20.0)]
    counts = {stage.name: 0 for stage in stages}
    for arrival in arrivals(law, stages, stream(4, "arrivals")):
        counts[arrival.stage.name] += 1
    assert counts["none"] == 0
    # Five standard deviations of the count, for gaps with twice Poisson's variation.
    assert counts["low"] == pytest.approx(1000, abs=5 * 2 * math.sqrt(1000))
    assert counts["high"] == pytest.approx(10000, abs=5 * 2 * math.sqrt(10000))


@pytest.mark.parametrize(
    ("law", "variation"),
    [
        pytest.param(ArrivalLaw(law="poisson"), 1.0, id="poisson"),
        pytest.param(ArrivalLaw(law="gamma", gap_variation=0.5), 0.5, id="regular-gamma"),
        pytest.param(ArrivalLaw(law="gamma", gap_variation=2.0), 2.0, id="bursty-gamma"),
    ],
)
def test_the_law_sets_how_irregular_the_gaps_are(law, variation):
    found = gaps(times(law, [Stage("a", 20000.0, 1.0)]))
    assert statistics.mean(found) == pytest.approx(1.0, rel=0.06)
    assert statistics.stdev(found) / statistics.mean(found) == pytest.approx(variation, rel=0.06)


def test_arrivals_are_in_order_and_inside_their_stage():
    stages = [Stage("a", 10.0, 5.0), Stage("b", 10.0, 50.0), Stage("c", 10.0, 1.0)]
    found = list(arrivals(ArrivalLaw(), stages, stream(9, "arrivals")))
    assert [a.seconds for a in found] == sorted(a.seconds for a in found)
    starts = {"a": 0.0, "b": 10.0, "c": 20.0}
    assert all(starts[a.stage.name] <= a.seconds < starts[a.stage.name] + 10.0 for a in found)


def test_the_seed_decides_and_another_seed_differs():
    stages = [Stage("a", 10.0, 5.0)]
    assert times(ArrivalLaw(), stages, seed=1) == times(ArrivalLaw(), stages, seed=1)
    assert times(ArrivalLaw(), stages, seed=1) != times(ArrivalLaw(), stages, seed=2)
