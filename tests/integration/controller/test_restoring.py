"""A controller that starts again goes on with what the last decision in the ledger left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trierarch.adapters.ledger import Ledger
from trierarch.autoscaling.state import SizingState
from trierarch.controller.deciding import restore_state
from trierarch.core.clock import SystemClock
from trierarch.simulation.controllers import PipelineController
from trierarch.simulation.defaults import H200_NODE_SERVICE
from trierarch.simulation.fleet.setup import (
    ColdStart,
    FleetSetup,
    Objective,
    PriceSteps,
    VariantSetup,
)
from trierarch.simulation.fleet.simulator import simulate
from trierarch.simulation.traces.trace import build_trace


@pytest.fixture(scope="module")
def served() -> PipelineController:
    """A pipeline that has served for half an hour and learned from it."""
    variant = VariantSetup(
        "gpu", H200_NODE_SERVICE, PriceSteps.constant(27.0), ColdStart(120.0), maximum_replicas=4
    )
    objective = Objective(ttft_seconds=2.0, tpot_seconds=0.05, percentile=99.0)
    setup = FleetSetup("test", (variant,), objective=objective, initial_replicas=(2,))
    generator = np.random.default_rng(3)
    times = np.sort(generator.uniform(0.0, 1800.0, 9000))
    trace = build_trace("steady", "test", times, np.full(9000, 500), np.full(9000, 200))
    controller = PipelineController(setup, name="trierarch")
    simulate(setup, trace, controller, seed=1)
    return controller


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}", SystemClock())


def test_the_state_after_the_last_decision_is_restored(
    served: PipelineController, ledger: Ledger
) -> None:
    last = served.decisions[-1]
    ledger.record_decision(last.as_record())
    restored = restore_state(ledger, last.deployment)
    assert restored == served.state
    assert restored.sizing.curve.bins, "it had learned"


def test_what_another_policy_learned_is_left_out(
    served: PipelineController, ledger: Ledger
) -> None:
    last = served.decisions[-1]
    ledger.record_decision({**last.as_record(), "policy_version": "trierarch/6"})
    restored = restore_state(ledger, last.deployment)
    assert restored.sizing == SizingState()
    assert restored.recommendations == served.state.recommendations
    assert restored.settled_replicas == served.state.settled_replicas


def test_a_deployment_without_decisions_starts_without_memory(ledger: Ledger) -> None:
    assert not restore_state(ledger, "none").recommendations
