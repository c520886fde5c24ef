"""Groups are whole or they are not: what pods and announcements say together."""

from __future__ import annotations

from typing import Any

import pytest

from trierarch.controller.replica_records import Announcement
from trierarch.core.identifiers import ModelName, ReplicaId, VariantName
from trierarch.core.replicas import DRAINED_REASON, ReplicaEndpoint, ReplicaState
from trierarch_operators.groups import (
    Group,
    choose_victims,
    group_pods,
    replica_endpoints,
    stuck_groups,
)
from trierarch_operators.labels import GROUP_LABEL
from trierarch_operators.model_deployment.backoff import PlacementBackoff

NOW = 1_000_000.0


def pod(
    name: str, *, group: str = "", node: str = "", address: str = "", **metadata: Any
) -> dict[str, Any]:
    labels = {"ray.io/cluster": "c"} | ({GROUP_LABEL: group} if group else {})
    return {
        "metadata": {
            "name": name,
            "labels": labels,
            "creationTimestamp": "1970-01-12T13:46:40Z",
            **metadata,
        },
        "spec": {"nodeName": node} if node else {},
        "status": {"phase": "Running", "podIP": address},
    }


def announcement(
    host: str,
    state: ReplicaState = ReplicaState.READY,
    heard_seconds: float = NOW,
    reason: str = "",
) -> Announcement:
    endpoint = ReplicaEndpoint(
        ReplicaId(f"r-{host}"),
        ModelName("m"),
        VariantName("v"),
        state,
        host=host,
        port=8000,
        reason=reason,
    )
    return Announcement(
        endpoint, in_flight=0, pid=1, message="", heard_seconds=heard_seconds, address=host
    )


def test_pods_of_one_replica_form_one_group() -> None:
    pods = [pod("a", group="g1", node="n1"), pod("b", group="g1", node="n2"), pod("c", group="g2")]
    first, second = group_pods(pods, 2, [])
    assert (first.name, first.is_placed, first.is_partial) == ("g1", True, False)
    assert (second.name, second.is_placed, second.is_partial) == ("g2", False, False)


def test_a_group_with_some_pods_placed_holds_accelerators_for_nothing() -> None:
    (group,) = group_pods([pod("a", group="g", node="n1"), pod("b", group="g")], 2, [])
    assert group.is_partial
    assert stuck_groups([group], group.started_unix_seconds + 89, 30) == []
    assert stuck_groups([group], group.started_unix_seconds + 90, 30) == [group]


def test_a_refused_group_is_stuck_sooner_and_counted_from_its_last_pod() -> None:
    refused = pod("b", group="g", creationTimestamp="1970-01-12T13:46:50Z")
    refused["status"] = {
        "conditions": [{"type": "PodScheduled", "status": "False", "message": "no gpu"}]
    }
    (group,) = group_pods([pod("a", group="g", node="n1"), refused], 2, [])
    assert stuck_groups([group], NOW + 39, 30) == []
    assert stuck_groups([group], NOW + 40, 30) == [group]


def test_a_group_whose_other_pod_was_not_made_yet_is_partial_too() -> None:
    (group,) = group_pods([pod("a", group="g", node="n1")], 2, [])
    assert group.is_partial


@pytest.mark.parametrize(
    "gone",
    [
        pod("a", node="n", deletionTimestamp="1970-01-12T13:46:40Z"),
        {**pod("a", node="n"), "status": {"phase": "Failed"}},
    ],
    ids=["being deleted", "ended"],
)
def test_pods_that_are_going_form_no_group(gone: dict[str, Any]) -> None:
    assert group_pods([gone], 1, []) == []


@pytest.mark.parametrize(
    ("said", "state", "reason"),
    [
        ([], ReplicaState.STARTING, "StartingProcess"),
        ([announcement("10.0.0.1")], ReplicaState.READY, ""),
        ([announcement("10.0.0.1", ReplicaState.DRAINING)], ReplicaState.DRAINING, ""),
        ([announcement("10.0.0.1", heard_seconds=NOW - 60)], ReplicaState.FAILED, "NotHeardOf"),
        ([announcement("10.0.0.9")], ReplicaState.STARTING, "StartingProcess"),
    ],
    ids=["silent", "ready", "draining", "not heard of", "another pod's"],
)
def test_a_replica_is_what_it_says_while_it_is_heard(
    said: list[Announcement], state: ReplicaState, reason: str
) -> None:
    groups = group_pods([pod("a", node="n", address="10.0.0.1")], 1, said)
    (endpoint,) = replica_endpoints(groups, "m", "v", NOW)
    assert (endpoint.state, endpoint.reason) == (state, reason)


def test_a_group_without_a_node_waits_for_accelerators() -> None:
    (endpoint,) = replica_endpoints(group_pods([pod("a")], 1, []), "m", "v", NOW)
    assert endpoint.reason == "WaitingForAccelerators"


def test_only_groups_that_do_not_work_are_victims_and_unplaced_ones_first() -> None:
    groups = group_pods(
        [
            pod("serving", node="n1", address="1"),
            pod("draining", node="n2", address="2"),
            pod("idle", node="n3", address="3"),
            pod("drained", node="n4", address="4"),
            pod("unplaced"),
        ],
        1,
        [
            announcement("1"),
            announcement("2", ReplicaState.DRAINING, reason="ScaledDown"),
            announcement("4", ReplicaState.DRAINING, reason=DRAINED_REASON),
        ],
    )
    assert [group.name for group in choose_victims(groups, 9)] == ["unplaced", "drained", "idle"]
    assert [group.name for group in choose_victims(groups, 1)] == ["unplaced"]
    assert choose_victims(groups, 0) == []


def test_the_scheduler_s_words_are_kept() -> None:
    waiting = pod("a")
    waiting["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}
    ]
    assert Group("g", "c", (waiting,), 1).unplaced_reason == "0/2 nodes are available"


def test_pauses_double_up_to_a_limit_and_what_is_placed_stays() -> None:
    backoff, now = PlacementBackoff(), NOW
    pauses = []
    for _ in range(7):
        backoff = backoff.fail(2, now, "nothing free")
        pauses.append(backoff.until_unix_seconds - now)
        assert backoff.allowed(5, now) == 2
        assert backoff.allowed(1, now) == 1
        now = backoff.until_unix_seconds
        assert backoff.allowed(5, now) == 5
    assert pauses == [30, 60, 120, 240, 480, 600, 600]
