"""What keeps a group from serving is said in the words of who met it."""

from __future__ import annotations

from typing import Any

import pytest

from trierarch.controller.replica_records import Announcement
from trierarch.core.identifiers import ModelName, ReplicaId, VariantName
from trierarch.core.replicas import ReplicaEndpoint, ReplicaState
from trierarch_operators.announced import FAILURE_SECONDS, AnnouncementBook
from trierarch_operators.groups import Group
from trierarch_operators.model_deployment.failures import Failure, find_failure

SERVE_TRACEBACK = """\
The deployment failed to start 3 times in a row. Error:
ray::ServeReplica:pocket:replica.initialize_and_get_metadata() (pid=7, ip=10.0.0.1)
  File "/usr/lib/python3.11/site-packages/ray/serve/replica.py", line 12, in initialize
    raise RuntimeError(traceback.format_exc()) from None
RuntimeError: Traceback (most recent call last):
  File "/usr/lib/python3.11/site-packages/vllm/config/model.py", line 99, in check
    raise ValueError(message)
ValueError: To serve at least one request with the model's max seq len (131072),
17.18 GiB KV cache is needed
"""


def container(name: str = "ray", **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "registry.example/engine:1", "state": {}, **fields}


def pod(*containers: dict[str, Any], ready: bool = False, **status: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {"name": "p"},
        "spec": {"nodeName": "n"},
        "status": {"containerStatuses": list(containers), "conditions": conditions, **status},
    }


def failed(
    reason: str = "StartFailed", message: str = "ValueError: no such option"
) -> Announcement:
    endpoint = ReplicaEndpoint(
        ReplicaId("r"), ModelName("m"), VariantName("v"), ReplicaState.FAILED, reason=reason
    )
    return Announcement(endpoint, 0, 1, message, heard_seconds=0.0, address="10.0.0.1")


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


@pytest.mark.parametrize(
    ("found", "reason", "words"),
    [
        (
            pod(container(state=waiting("ImagePullBackOff", "Back-off pulling image"))),
            "ImagePullFailed",
            "container ray of pod p, image registry.example/engine:1: Back-off pulling image",
        ),
        (
            pod(container(state=waiting("CreateContainerConfigError", 'secret "x" not found'))),
            "ContainerFailed",
            'container ray of pod p: secret "x" not found',
        ),
        (
            pod(
                container(
                    state=waiting("CrashLoopBackOff"),
                    lastState={"terminated": {"reason": "OOMKilled", "exitCode": 137}},
                )
            ),
            "OutOfMemory",
            "container ray of pod p was killed at its memory limit",
        ),
        (
            pod(
                initContainerStatuses=[
                    container(
                        "download",
                        state={"terminated": {"exitCode": 1, "message": "401 Unauthorized\n"}},
                    )
                ]
            ),
            "ContainerFailed",
            "container download of pod p ended with status 1: 401 Unauthorized",
        ),
    ],
    ids=["image", "secret", "memory", "download"],
)
def test_a_pod_that_does_not_come_up_tells_why(
    found: dict[str, Any], reason: str, words: str
) -> None:
    assert find_failure([Group("g", "c", (found,), 1)], [], None) == Failure(reason, words)
    assert find_failure([], [found], None) == Failure(reason, words)


def test_a_container_that_came_up_again_is_no_failure() -> None:
    ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    up = pod(container(state={"running": {}}, lastState=ended), ready=True)
    assert find_failure([Group("g", "c", (up,), 1)], [], None) is None


@pytest.mark.parametrize(
    ("said", "reason", "words"),
    [
        (failed(), "EngineFailed", "group g: ValueError: no such option"),
        (failed("RankLost", "rank 3 ended"), "RankLost", "group g: rank 3 ended"),
        (failed("EngineDead", ""), "EngineFailed", "group g: EngineDead"),
    ],
)
def test_the_last_words_of_a_replica_are_told(said: Announcement, reason: str, words: str) -> None:
    group = Group("g", "c", (pod(ready=True),), 1, failure=said)
    assert find_failure([group], [], None) == Failure(reason, words)


@pytest.mark.parametrize("part", ["pendingServiceStatus", "activeServiceStatus"])
def test_ray_serves_traceback_becomes_its_error(part: str) -> None:
    application = {
        "status": "DEPLOYING",
        "serveDeploymentStatuses": {
            "replica": {"status": "DEPLOY_FAILED", "message": SERVE_TRACEBACK}
        },
    }
    service = {"status": {part: {"applicationStatuses": {"pocket": application}}}}
    group = Group("g", "c", (pod(ready=True),), 1)
    assert find_failure([group], [], service) == Failure(
        "EngineFailed",
        "Ray Serve: ValueError: To serve at least one request with the model's max seq len"
        " (131072), 17.18 GiB KV cache is needed",
    )
    # All groups serve: what Serve once said is over.
    assert find_failure([], [], service) is None


def test_what_happens_first_is_told_first() -> None:
    group = Group("g", "c", (pod(container(state=waiting("ErrImagePull", "no"))),), 1)
    other = Group("h", "c", (pod(ready=True),), 1, failure=failed())
    found = find_failure([other, group], [], None)
    assert found is not None
    assert found.reason == "ImagePullFailed"


def test_a_long_error_keeps_its_beginning_and_its_end() -> None:
    text = "begin " + "x" * 5000 + " end"
    found = find_failure([Group("g", "c", (), 1, failure=failed(message=text))], [], None)
    assert found is not None
    assert len(found.message) < 900
    assert found.message.startswith("group g: begin")
    assert found.message.endswith("end")


def test_a_failure_is_told_until_a_replica_serves_there() -> None:
    book = AnnouncementBook()
    book.add(failed())

    def said(state: ReplicaState) -> Announcement:
        endpoint = ReplicaEndpoint(ReplicaId("s"), ModelName("m"), VariantName("v"), state)
        return Announcement(endpoint, 0, 1, "", heard_seconds=1.0, address="10.0.0.1")

    book.add(said(ReplicaState.STARTING))
    assert [one.message for one in book.failures_at(["10.0.0.1"])] == ["ValueError: no such option"]
    book.forget(FAILURE_SECONDS - 1)
    assert book.failures_at(["10.0.0.1"])
    book.add(said(ReplicaState.READY))
    assert book.failures_at(["10.0.0.1"]) == []
