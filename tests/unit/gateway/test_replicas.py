"""The gateway's picture of the replicas."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from trierarch.core.admission import OPEN, Admission
from trierarch.core.clock import ManualClock
from trierarch.core.errors import InvalidInput
from trierarch.core.identifiers import ModelName
from trierarch.core.objectives import LatencyPromise
from trierarch.core.replicas import ReplicaEndpoint, ReplicaState
from trierarch.core.usage import ServiceTier
from trierarch.gateway.admission.dispatch import ModelDispatcher
from trierarch.gateway.replicas import (
    FixedReplicas,
    HttpReplicaSource,
    ReplicaDirectory,
    TimedAdmission,
    parse_admission,
    parse_promise,
    parse_replica,
)
from trierarch.gateway.wire.pool import UpstreamPool
from trierarch.settings.gateway import StaticReplica
from trierarch.testing.replica_source import StaticReplicaSource, ready_replica

CLOCK = ManualClock(50.0)


def directory(source: StaticReplicaSource, clock: ManualClock = CLOCK) -> ReplicaDirectory:
    return ReplicaDirectory(
        source,
        clock,
        lambda _model: ModelDispatcher(
            clock.monotonic_seconds, max_ongoing_requests=4, max_queued_requests=4
        ),
    )


def test_every_field_survives_the_wire() -> None:
    replica = ReplicaEndpoint(
        *("id", "m", "v"),
        ReplicaState.READY,
        "h",
        5,
        1.5,
        2.5,
        "Why",
        99,  # type: ignore[arg-type]
    )
    assert parse_replica(dataclasses.asdict(replica)) == replica


def test_an_objective_is_read_as_custom_resources_write_it() -> None:
    promise = parse_promise({"ttft_seconds": "2.0", "tpot_seconds": None})
    assert promise == LatencyPromise(ttft_seconds=2.0)
    with pytest.raises(ValueError, match="soon"):
        parse_promise({"ttft_seconds": "soon"})


def test_a_replica_without_an_address_yet() -> None:
    replica = parse_replica(
        {"replica_id": "a", "model": "m", "variant": "v", "state": "starting", "host": None}
    )
    assert (replica.host, replica.port, replica.ready_unix_seconds) == ("", 0, None)


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"replica_id": "a", "model": "m", "variant": "v"},
        {"replica_id": "a", "model": "m", "variant": "v", "state": "happy"},
        {"replica_id": "a", "model": "m", "variant": "v", "state": "ready", "port": "x"},
    ],
)
def test_what_is_no_replica_is_an_error(entry: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError)):
        parse_replica(entry)


@pytest.mark.parametrize("url", ["", "host:80/x", "https://h/x", "ftp://h", "http://"])
def test_the_address_of_a_list_is_http(url: str) -> None:
    pool = UpstreamPool(
        CLOCK.monotonic_seconds, connect_timeout_seconds=1, silence_timeout_seconds=1
    )
    with pytest.raises(InvalidInput, match="http"):
        HttpReplicaSource(url, pool)


@pytest.mark.asyncio
async def test_fixed_replicas_are_ready() -> None:
    [replica] = await FixedReplicas([StaticReplica(model="m", port=80)]).replicas()
    assert (replica.model, replica.state, replica.port) == ("m", ReplicaState.READY, 80)


@pytest.mark.asyncio
async def test_the_last_list_holds_while_the_source_is_away() -> None:
    clock = ManualClock(0.0)
    source = StaticReplicaSource([ready_replica(1)])
    known = directory(source, clock)
    assert not known.is_loaded
    await known.refresh()
    source.is_available = False
    source.endpoints = []
    clock.advance(7.0)
    await known.refresh()
    assert known.has_ready_replica
    assert known.age_seconds == 7.0
    source.is_available = True
    await known.refresh()
    assert not known.has_ready_replica
    assert known.age_seconds == 0.0


CLOSED = Admission(flex_open=False, shed_tiers=(ServiceTier.FLEX,))


def test_what_is_said_of_lanes_is_read() -> None:
    said = {"flex_open": False, "shed_tiers": ["flex"], "valid_seconds": 45}
    assert parse_admission(said) == TimedAdmission(CLOSED, 45.0)
    for wrong in ({}, {**said, "shed_tiers": ["vip"]}, {**said, "valid_seconds": None}):
        with pytest.raises((KeyError, ValueError, TypeError)):
            parse_admission(wrong)


@pytest.mark.asyncio
async def test_the_autoscalers_word_on_lanes_holds_for_its_time_and_not_longer() -> None:
    clock = ManualClock(0.0)
    source = StaticReplicaSource([ready_replica(1)])
    known = directory(source, clock)
    model = source.endpoints[0].model
    source.admissions = {
        model: TimedAdmission(CLOSED, 45.0),
        ModelName("x"): TimedAdmission(OPEN, 1.0),
    }
    await known.refresh()
    dispatcher = known.dispatchers[model]
    assert dispatcher.admission == CLOSED
    # Another process answers, which decides nothing: the last word holds on.
    source.admissions = {}
    clock.advance(44.0)
    await known.refresh()
    assert dispatcher.admission == CLOSED
    # The controller is gone altogether.
    source.is_available = False
    clock.advance(1.0)
    await known.refresh()
    assert dispatcher.admission == OPEN


@pytest.mark.asyncio
async def test_objectives_are_handed_on_with_every_list() -> None:
    source = StaticReplicaSource([ready_replica(1)])
    heard: list[object] = []
    known = ReplicaDirectory(
        source, CLOCK, lambda _model: pytest.fail("no model is named"), (), heard.append
    )
    source.endpoints = []
    source.promises = {ModelName("m"): LatencyPromise(ttft_seconds=1.0)}
    await known.refresh()
    assert heard == [{"m": LatencyPromise(ttft_seconds=1.0)}]


@pytest.mark.asyncio
async def test_the_queue_of_a_model_knows_its_objective_from_the_first_list_on() -> None:
    source = StaticReplicaSource([ready_replica(1, model="m")])
    source.promises = {ModelName("m"): LatencyPromise(ttft_seconds=1.0)}
    known = directory(source)
    await known.refresh()
    dispatcher = known.dispatcher_of(ModelName("m"))
    assert dispatcher is not None
    assert dispatcher.promise == LatencyPromise(ttft_seconds=1.0)
    source.promises = {}
    await known.refresh()
    assert dispatcher.promise is None


@pytest.mark.asyncio
async def test_load_and_health_stay_with_a_replica_over_lists() -> None:
    source = StaticReplicaSource([ready_replica(1), ready_replica(2)])
    known = directory(source)
    await known.refresh()
    load = known.loads[source.endpoints[0].replica_id]
    load.take(5)
    source.set_state("replica-1", ReplicaState.DRAINING)
    await known.refresh()
    again = known.loads[source.endpoints[0].replica_id]
    assert again is load
    assert again.endpoint.state is ReplicaState.DRAINING


@pytest.mark.asyncio
async def test_a_model_stays_known_without_replicas_and_a_declared_one_needs_none() -> None:
    source = StaticReplicaSource([ready_replica(1, model="seen")], models=["declared"])
    known = directory(source)
    await known.refresh()
    source.endpoints = []
    await known.refresh()
    assert [model.name for model in known.served_models()] == ["declared", "seen"]
    assert known.served_models()[1].max_model_tokens == 4096
    assert known.dispatcher_of(ModelName("other")) is None
