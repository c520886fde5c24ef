"""An update is tried beside what serves, and taken back when its requests fail.

The API server is real; KubeRay and the engines are played, because what is looked at here is
what the operator makes of a second cluster, and no engine runs on simulated nodes.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from trierarch_operators.labels import REVISION_ANNOTATION
from trierarch_operators.model_deployment.manifests import SERVE_REPLICAS_ANNOTATION

from .conftest import Cluster, StartOperator, wait_for
from .played_updates import Play

pytestmark = pytest.mark.cluster


@pytest.fixture
def play(
    cluster: Cluster,
    namespace: str,
    start_operator: StartOperator,
    request: pytest.FixtureRequest,
) -> Iterator[Play]:
    """Yield a deployment that serves with 8,000 tokens; its parameter is the time of a trial."""
    name = f"x{secrets.token_hex(3)}"
    cluster.apply(
        {
            "apiVersion": "trierarch.dev/v1alpha1",
            "kind": "AcceleratorClass",
            "metadata": {"name": name},
            "spec": {"priceKey": name, "resourceName": "nvidia.com/gpu", "memory": "141Gi"},
        }
    )
    operator = start_operator(
        UPDATE_OBSERVATION_SECONDS=request.param, ANNOUNCE_URL="http://operator/announcements"
    )
    operator.wait_until_it_leads()
    found = Play(cluster, namespace, operator, name)
    try:
        found.deploy(8000)
        found.wait_for_tokens(8000)
        found.make_cluster("old")
        found.promote("old")
        wait_for(lambda: found.states() == {"old": "ready"}, "the first group to serve")
        yield found
    finally:
        for engine in found.engines.values():
            engine.server.shutdown()
            engine.server.server_close()
        with contextlib.suppress(Exception):
            cluster.ask("DELETE", f"/apis/trierarch.dev/v1alpha1/acceleratorclasses/{name}")


def revision(found: dict[str, Any]) -> str:
    return str(found["metadata"]["annotations"][REVISION_ANNOTATION])


def update(play: Play, failed: int = 0) -> None:
    """Change the engine's arguments and have a second cluster serve beside the first."""
    before = revision(play.service())
    play.deploy(16000)
    play.wait_for_tokens(16000)
    assert revision(play.service()) != before
    play.make_cluster("new")
    play.engines["new"].failed = failed
    play.promote("new")


@pytest.mark.parametrize("play", ["5"], indirect=True)
def test_an_update_that_serves_replaces_what_was(play: Play) -> None:
    update(play)
    wait_for(
        lambda: play.states().get("old") == "draining Superseded", "the old group to be drained"
    )
    wait_for(
        lambda: play.cluster.get("RayCluster", play.namespace, "old") is None,
        "the old cluster to go",
    )
    assert play.cluster.get("RayCluster", play.namespace, "new") is not None


@pytest.mark.parametrize("play", ["600"], indirect=True)
def test_an_update_whose_requests_fail_is_taken_back(play: Play) -> None:
    before = revision(play.service())
    update(play, failed=50)
    wait_for(lambda: play.states() and play.reason() == "RolledBack", "the roll-back to be told")
    play.wait_for_tokens(8000)
    assert revision(play.service()) == before
    assert play.states() == {"old": "ready", "new": "draining RolledBack"}
    events = {e["reason"]: e["note"] for e in play.cluster.list("Event", play.namespace)}
    assert "50 of 150 requests to the update failed" in events["RolledBack"]
    # The twin that KubeRay makes takes over, then both others go.
    play.make_cluster("twin")
    play.promote("new", "twin")
    wait_for(lambda: play.states().get("twin") == "ready", "the twin to serve")
    play.promote("twin")

    def only_the_twin() -> bool:
        play.announce()
        return [
            one["metadata"]["name"] for one in play.cluster.list("RayCluster", play.namespace)
        ] == ["twin"]

    wait_for(only_the_twin, "the other clusters to go")
    assert play.reason() == "RolledBack"


@pytest.mark.parametrize("play", ["600"], indirect=True)
def test_a_deletion_during_an_update_waits_for_answers_and_no_longer(play: Play) -> None:
    """KubeRay tells only its newest cluster's Serve to drain: the old replica says ready on."""
    update(play)
    wait_for(lambda: play.states().get("new") == "ready", "the update to serve")
    play.engines["old"].in_flight = 1
    path = f"/apis/trierarch.dev/v1alpha1/namespaces/{play.namespace}/modeldeployments/chat"
    play.cluster.ask("DELETE", path)
    wait_for(
        lambda: set(play.states().values()) == {"draining Deleting"},
        "gateways to be told to send nothing more",
    )
    wait_for(
        lambda: play.service()["metadata"]["annotations"][SERVE_REPLICAS_ANNOTATION] == "0",
        "Serve to be told to drain",
    )
    assert play.cluster.get("ModelDeployment", play.namespace, "chat") is not None
    play.engines["old"].in_flight = 0

    def is_gone() -> bool:
        play.announce()
        return play.cluster.get("ModelDeployment", play.namespace, "chat") is None

    wait_for(is_gone, "the end, long before the longest drain")
    assert play.service() == {}
