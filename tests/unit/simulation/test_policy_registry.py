"""Policies by name: their options, their sweeps, and that each of them moves at all."""

from __future__ import annotations

import json

import numpy as np
import pytest

from trierarch.autoscaling.decision import ScalingDecision
from trierarch.autoscaling.policies.hpa import HpaPolicy
from trierarch.autoscaling.replay import replay
from trierarch.core.errors import InvalidInput
from trierarch.simulation.defaults import mixed_fleet, single_fleet
from trierarch.simulation.fleet.setup import FleetSetup
from trierarch.simulation.fleet.simulator import RunResult, simulate
from trierarch.simulation.peers import PEERS
from trierarch.simulation.policies import OURS, build_controller, parse_options, registry
from trierarch.simulation.policy_options import apply_options, option_names
from trierarch.simulation.scenarios import MIXED, SINGLE, Scenario, spot_recording
from trierarch.simulation.traces import Trace

SURGE_SECONDS, END_SECONDS = 120.0, 1100.0
PEER_NAMES = [peer.name for peer in PEERS]


def surge() -> Trace:
    """Return two minutes of 4 requests per second, then 40, of which a replica does about 10."""
    arrivals = np.concatenate(
        (np.arange(0, SURGE_SECONDS, 0.25), np.arange(SURGE_SECONDS, END_SECONDS, 0.025))
    )
    count = len(arrivals)
    return Trace(
        name="surge",
        source_format="test",
        arrival_seconds=arrivals,
        input_tokens=np.full(count, 1500, dtype=np.int64),
        output_tokens=np.full(count, 800, dtype=np.int64),
        tiers=np.ones(count, dtype=np.int8),
        prefix_block_ids=np.zeros(0, dtype=np.int64),
        prefix_block_offsets=np.zeros(count + 1, dtype=np.int64),
    )


def fleet(name: str) -> FleetSetup:
    if name == SINGLE:
        return single_fleet()
    return mixed_fleet(spot_recording("gcp"), pool_replicas=4, duration_seconds=END_SECONDS)


@pytest.fixture(scope="module")
def scenarios() -> dict[str, Scenario]:
    return {name: Scenario(fleet(name), surge(), 1.0) for name in (SINGLE, MIXED)}


def run(scenario: Scenario, name: str, options: dict[str, str] | None = None) -> RunResult:
    controller = build_controller(name, scenario, options or {}, 0)
    return simulate(scenario.setup, scenario.trace, controller, seed=0)


@pytest.mark.parametrize("name", PEER_NAMES)
def test_every_peer_answers_a_surge(scenarios, name: str) -> None:
    result = run(scenarios[SINGLE], name)
    assert result.policy == name
    most = max(moment.desired[0] for moment in result.moments)
    assert most > 1


@pytest.mark.parametrize("name", ["hpa", "skyserve", "wva-queue-model"])
def test_peers_buy_spot_where_there_is_some(scenarios, name: str) -> None:
    result = run(scenarios[MIXED], name)
    assert max(moment.ready[1] for moment in result.moments) > 0


@pytest.mark.parametrize("fleet_name", [SINGLE, MIXED])
@pytest.mark.parametrize("name", PEER_NAMES)
def test_every_setting_of_a_sweep_can_be_built(scenarios, name: str, fleet_name: str) -> None:
    scenario = scenarios[fleet_name]
    settings = registry()[name].sweep(scenario)
    assert len(settings) == len(set(settings)) <= 30
    assert settings or name == "dynamo"
    for setting in settings:
        controller = build_controller(name, scenario, dict(setting), 0)
        assert controller.name == name


def test_settings_are_read_as_what_they_are() -> None:
    policy = apply_options(
        HpaPolicy(target=1.0),
        {
            "target": "40",
            "counts_flex": "true",
            "minimum_replicas": "3",
            "interval_seconds": "none",
            "behavior.down_window_seconds": "900",
            "behavior.up_replicas": "none",
        },
    )
    assert (policy.target, policy.counts_flex, policy.minimum_replicas) == (40.0, True, 3)
    assert policy.interval_seconds is None
    assert (policy.behavior.down_window_seconds, policy.behavior.up_replicas) == (900.0, None)
    assert policy.behavior.up_percent == 100.0
    assert set(option_names(policy)) >= {"target", "mix", "behavior.up_percent"}
    assert "name" not in option_names(policy)


def test_settings_that_need_one_another_are_set_at_once(scenarios) -> None:
    options = {"up_ratio": "0.1", "down_ratio": "0.05"}
    assert build_controller("dynamo-load", scenarios[SINGLE], options, 0).name == "dynamo-load"


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("hpa", "targt=3", "no option 'targt'"),
        ("hpa", "target=three", "must be a number"),
        ("hpa", "minimum_replicas=1.5", "must be a whole number"),
        ("hpa", "counts_flex=yes", "must be true or false"),
        ("hpa", "target=-1", "not negative"),
        ("hpa", "target=0", "must be positive"),
        ("hpa", "behavior.window=3", "no option 'behavior.window'"),
        ("hpa", "behavior=3", "no option 'behavior'"),
        ("dynamo", "profile.alpha_seconds=1", "no option 'profile.alpha_seconds'"),
        ("trierarch", "behavior.window=3", "behavior.window"),
        ("trierarch", "nothing.at_all=3", "nothing.at_all"),
        ("trierarch", "target_queue_depth=-1", "target_queue_depth"),
        ("static", "target=3", "no option 'target'"),
        ("nobody", "target=3", "no policy 'nobody'"),
    ],
)
def test_wrong_options_are_named(scenarios, name: str, option: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        build_controller(name, scenarios[SINGLE], parse_options([option]), 0)


def test_our_pipeline_runs_and_leaves_decisions_that_replay(scenarios) -> None:
    scenario = scenarios[SINGLE]
    options = {"behavior.interval_seconds": "20", "target_queue_depth": "2"}
    controller = build_controller(OURS, scenario, options, 0)
    result = simulate(scenario.setup, scenario.trace, controller, seed=0)
    assert max(moment.desired[0] for moment in result.moments) > 1
    records = controller.decision_records
    assert len(records) == len(result.moments)
    assert [record["time"] for record in records[:3]] == [0.0, 20.0, 40.0]
    assert records[0]["inputs"]["spec"]["target_queue_depth"] == 2.0
    grown = next(record for record in records if record["replicas"] != record["previous"])
    written = json.loads(json.dumps(grown))
    assert replay(written) == ScalingDecision.from_record(written)
