"""What Ray Serve says and what replicas say, joined."""

from __future__ import annotations

from typing import Any

import pytest

from trierarch.adapters.ray_serve import ServeApplication, parse_application
from trierarch.controller.deploying import count_replicas, is_same
from trierarch.controller.deployment import ModelDeployment
from trierarch.controller.fleet import Fleet
from trierarch.controller.replica_records import SILENCE_SECONDS, parse_announcement
from trierarch.core.clock import ManualClock
from trierarch.core.replicas import ReplicaState

MODEL = ModelDeployment.model_validate(
    {
        "engine": {"model_path": "/models/pocket", "served_name": "pocket"},
        "scaling": {"minReplicas": 1, "maxReplicas": 3},
    }
)


def application(*replicas: tuple[str, str], **fields: Any) -> ServeApplication:
    return parse_application(
        "pocket",
        {
            "status": "RUNNING",
            "message": "",
            "deployments": {
                "replica": {
                    "target_num_replicas": 2,
                    "replicas": [
                        {"replica_id": name, "state": state, "start_time_s": 50.0}
                        for name, state in replicas
                    ],
                }
            },
            **fields,
        },
    )


def announcement(replica_id: str, state: str, **fields: Any) -> dict[str, Any]:
    return {
        "replica_id": replica_id,
        "model": "pocket",
        "variant": "cpu",
        "state": state,
        "host": "127.0.0.1",
        "port": 4000,
        "pid": 7,
        "started_unix_seconds": 51.0,
        "ready_unix_seconds": 60.0 if state == "ready" else None,
        "reason": "Serving",
        "message": "",
        "max_model_tokens": 2048,
        "in_flight": 0,
        **fields,
    }


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


@pytest.fixture
def fleet(clock: ManualClock) -> Fleet:
    return Fleet((MODEL,), clock)


def announce(fleet: Fleet, clock: ManualClock, replica_id: str, state: str, **fields: Any) -> None:
    document = announcement(replica_id, state, **fields)
    fleet.announcements.add(parse_announcement(document, clock.monotonic_seconds()))


def states(fleet: Fleet) -> dict[str, ReplicaState]:
    return {str(r.replica_id): r.state for r in fleet.replicas(MODEL)}


def test_a_live_process_that_said_nothing_is_starting(fleet: Fleet) -> None:
    fleet.update({"pocket": application(("a", "RUNNING"), ("b", "STARTING"), ("c", "STOPPING"))})
    assert states(fleet) == {
        "a": ReplicaState.STARTING,
        "b": ReplicaState.STARTING,
        "c": ReplicaState.DRAINING,
    }


def test_a_replica_is_what_it_says_until_serve_ends_it(fleet: Fleet, clock: ManualClock) -> None:
    fleet.update({"pocket": application(("a", "RUNNING"))})
    announce(fleet, clock, "a", "ready")
    [replica] = fleet.replicas(MODEL)
    assert (replica.state, replica.port, replica.started_unix_seconds) == ("ready", 4000, 50.0)
    fleet.update({"pocket": application(("a", "STOPPING"))})
    assert states(fleet) == {"a": ReplicaState.DRAINING}
    fleet.update({"pocket": application()})
    assert states(fleet) == {}


def test_a_silent_replica_is_not_called_ready(fleet: Fleet, clock: ManualClock) -> None:
    fleet.update({"pocket": application(("a", "RUNNING"))})
    announce(fleet, clock, "a", "ready")
    clock.advance(SILENCE_SECONDS + 1)
    assert states(fleet) == {"a": ReplicaState.FAILED}
    announce(fleet, clock, "a", "ready")
    assert states(fleet) == {"a": ReplicaState.READY}


def test_an_announcement_of_a_replica_that_serve_does_not_know_is_no_replica(
    fleet: Fleet, clock: ManualClock
) -> None:
    fleet.update({"pocket": application()})
    announce(fleet, clock, "ghost", "ready")
    assert fleet.replicas_document() == {
        "replicas": [],
        "models": ["pocket"],
        "admissions": {},
    }


def test_status_tells_why_a_model_cannot_start(fleet: Fleet, clock: ManualClock) -> None:
    assert fleet.status_document()["phase"] == "waiting for Ray Serve"
    fleet.update({"pocket": application(("a", "STARTING"))})
    assert fleet.status_document()["failed"] is None
    announce(fleet, clock, "a", "failed", message="ValueError: no such file", reason="StartFailed")
    fleet.update({"pocket": application(("a", "STARTING"), status="DEPLOY_FAILED")})
    assert fleet.status_document()["failed"] == "pocket cannot start: ValueError: no such file"
    fleet.update(
        {"pocket": application(status="DEPLOY_FAILED", message="Traceback\nKeyError: x\n")}
    )
    assert fleet.status_document()["failed"] == "pocket cannot start: KeyError: x"


@pytest.mark.parametrize(
    "change",
    [{"state": "well"}, {"port": "x"}, {"started_unix_seconds": None}, {"in_flight": None}],
)
def test_what_is_no_announcement_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        parse_announcement(announcement("a", "ready") | change, 0.0)


def test_a_restarted_controller_keeps_the_number_of_replicas() -> None:
    assert count_replicas(MODEL, None) == 1
    assert count_replicas(MODEL, application()) == 2


def test_only_what_runs_counts_as_a_difference() -> None:
    def wanted(replicas: int, name: str = "pocket") -> dict[str, Any]:
        engine = MODEL.engine.model_copy(update={"served_name": name})
        model = MODEL.model_copy(update={"engine": engine})
        from pathlib import Path

        return model.build_application(replicas, "http://x/announcements", Path("/token"), "")

    found = application(deployed_app_config=wanted(2))
    assert is_same(found, wanted(1))
    assert not is_same(found, wanted(1, "other"))
    assert not is_same(application(), wanted(1))
