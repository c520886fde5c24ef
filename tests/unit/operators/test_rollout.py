"""An update is on trial beside what served before, and goes back if it fails."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest

from trierarch.controller.outcomes import Outcome
from trierarch.controller.replica_records import Announcement
from trierarch.core.identifiers import ModelName, ReplicaId, VariantName
from trierarch.core.replicas import ReplicaEndpoint, ReplicaState
from trierarch_operators.conditions import holds
from trierarch_operators.groups import Group
from trierarch_operators.labels import REVISION_ANNOTATION
from trierarch_operators.model_deployment.manifests import Counts
from trierarch_operators.model_deployment.rollout import (
    LEAST_REQUESTS,
    Rollout,
    TrialSettings,
    plan_rollout,
)
from trierarch_operators.revisions import (
    PREVIOUS_ANNOTATION,
    read_previous,
    read_refused,
    revision_of,
)
from trierarch_operators.succession import find_leaving, send_away

from .deployments import DEPLOYMENTS, build_ray_services

NOW = 1_000_000.0
SETTINGS = TrialSettings(observation_seconds=120.0, deadline_seconds=1800.0)
NAME = "one-node-h200-ep8"


def service(
    monkeypatch: pytest.MonkeyPatch, tokens: int = 32768, counts: Counts | None = None
) -> dict[str, Any]:
    changed = copy.deepcopy(DEPLOYMENTS[NAME])
    changed["variants"][0]["engineArgs"]["max-model-len"] = tokens
    monkeypatch.setitem(DEPLOYMENTS, NAME, changed)
    (found,) = build_ray_services(NAME, counts)
    return found


def group(
    cluster: str, revision: str, *, ready_unix_seconds: float | None = None, name: str = "g"
) -> Group:
    pod = {
        "metadata": {
            "name": f"{cluster}-{name}",
            "namespace": "models",
            "annotations": {REVISION_ANNOTATION: revision},
        },
        "spec": {"nodeName": "n"},
    }
    replica = None
    if ready_unix_seconds is not None:
        endpoint = ReplicaEndpoint(
            ReplicaId("r"),
            ModelName("m"),
            VariantName("v"),
            ReplicaState.READY,
            ready_unix_seconds=ready_unix_seconds,
        )
        replica = Announcement(endpoint, 0, 1, "", heard_seconds=0.0)
    return Group(name, cluster, (pod,), 1, replica)


def outcome_of(one: Group, requests: int, errors: int) -> dict[str, Outcome]:
    return {str(one.replica_id): Outcome(requests, errors)}


@dataclasses.dataclass
class Story:
    """One RayService, what it was and what is wanted of it."""

    old: dict[str, Any]
    new: dict[str, Any]
    live: dict[str, Any]

    def step(
        self,
        wanted: dict[str, Any],
        groups: list[Group],
        outcomes: dict[str, Outcome] | None = None,
        after_seconds: float = 0.0,
        counts: Counts | None = None,
    ) -> Rollout:
        """Plan, and apply what was planned."""
        found = plan_rollout(
            wanted,
            self.live,
            groups,
            outcomes or {},
            counts or Counts(1, 1),
            NOW + after_seconds,
            SETTINGS,
        )
        self.live = found.manifest
        return found

    @property
    def before(self) -> Group:
        return group("a", revision_of(self.old), ready_unix_seconds=NOW - 5000)

    def update(self, ready_unix_seconds: float | None = None) -> Group:
        return group("b", revision_of(self.new), ready_unix_seconds=ready_unix_seconds)


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Story:
    old, new = service(monkeypatch), service(monkeypatch, 16384)
    return Story(old, new, old)


def test_other_arguments_are_another_cluster_and_other_counts_are_not(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert revision_of(story.old) != revision_of(story.new)
    more = service(monkeypatch, 32768, Counts(3, 2))
    assert revision_of(more) == revision_of(story.old)
    template = story.new["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]
    assert revision_of(template) == revision_of(story.new)


def test_an_update_stays_on_trial_until_it_has_served_long_enough(story: Story) -> None:
    assert story.step(story.new, [story.before]).is_on_trial
    previous = read_previous(story.live)
    assert previous is not None
    assert (previous.revision, previous.spec) == (revision_of(story.old), story.old["spec"])
    groups = [story.before, story.update(NOW + 300)]
    assert story.step(story.new, groups, after_seconds=419).is_on_trial
    assert holds(story.step(story.new, groups, after_seconds=419).manifest, story.live)
    ended = story.step(story.new, groups, after_seconds=420)
    assert not ended.is_on_trial
    assert ended.manifest == story.new


def test_an_update_whose_requests_fail_goes_back_and_is_not_tried_again(story: Story) -> None:
    story.step(story.new, [story.before])
    update = story.update(NOW + 60)
    outcomes = outcome_of(update, LEAST_REQUESTS, 2) | outcome_of(story.before, 1000, 1)
    found = story.step(story.new, [story.before, update], outcomes, after_seconds=75)
    assert found.is_turning
    assert found.refused is not None
    assert found.refused.message == (
        "2 of 20 requests to the update failed, and 1 of 1000 to what served before"
    )
    assert found.manifest["spec"] == story.old["spec"]
    assert revision_of(found.manifest) == revision_of(story.old)
    # The same wish again changes nothing, and other counts are followed.
    again = story.step(story.new, [story.before, update], outcomes, after_seconds=80)
    assert not again.is_turning
    assert holds(again.manifest, found.manifest)
    grown = story.step(
        story.new, [story.before], after_seconds=90, counts=Counts(groups=3, serve_replicas=2)
    )
    (workers,) = grown.manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    (application,) = json.loads(grown.manifest["spec"]["serveConfigV2"])["applications"]
    assert workers["replicas"] == 3
    assert application["deployments"][0]["num_replicas"] == 2


@pytest.mark.parametrize(
    ("requests", "errors", "before"),
    [
        (LEAST_REQUESTS - 1, LEAST_REQUESTS - 1, Outcome(1000, 0)),
        (100, 5, Outcome(1000, 0)),
        (100, 30, Outcome(1000, 100)),
    ],
    ids=["too few", "few errors", "as many as before"],
)
def test_some_errors_are_no_reason_to_go_back(
    story: Story, requests: int, errors: int, before: Outcome
) -> None:
    story.step(story.new, [story.before])
    update = story.update(NOW + 60)
    outcomes = outcome_of(update, requests, errors) | {str(story.before.replica_id): before}
    assert story.step(story.new, [story.before, update], outcomes, after_seconds=75).is_on_trial


def test_an_update_that_never_serves_goes_back_with_its_error(story: Story) -> None:
    story.step(story.new, [story.before])
    said = Announcement(
        ReplicaEndpoint(ReplicaId("r"), ModelName("m"), VariantName("v"), ReplicaState.FAILED),
        0,
        1,
        "ValueError: no such option",
        heard_seconds=0.0,
    )
    update = dataclasses.replace(story.update(), failure=said)
    groups = [story.before, update]
    assert story.step(story.new, groups, after_seconds=1799).is_on_trial
    found = story.step(story.new, groups, after_seconds=1800)
    assert found.refused is not None
    assert "within 1800 s: ValueError: no such option" in found.refused.message


def given_up(one: dict[str, Any], pending: str, status: str) -> dict[str, Any]:
    """Return a RayService with what KubeRay has heard of Ray Serve on the cluster to come."""
    application = {"status": status, "message": "a replica failed 3 times: no such option"}
    heard = {"rayClusterName": pending, "applicationStatuses": {"m": application}}
    return {**one, "status": {"pendingServiceStatus": heard}}


def test_an_update_that_ray_serve_gives_up_goes_back_at_once(story: Story) -> None:
    story.step(story.new, [story.before])
    groups = [story.before, story.update()]
    tried = story.live
    story.live = given_up(tried, "b", "DEPLOYING")
    assert story.step(story.new, groups, after_seconds=90).is_on_trial
    # What is said of another cluster, or of an earlier update, says nothing about this one.
    story.live = given_up(tried, "a", "DEPLOY_FAILED")
    assert story.step(story.new, groups, after_seconds=90).is_on_trial
    story.live = given_up(tried, "b", "DEPLOY_FAILED")
    assert story.step(
        story.new, [story.before, story.update(NOW + 60)], after_seconds=90
    ).is_on_trial
    story.live = given_up(tried, "b", "DEPLOY_FAILED")
    found = story.step(story.new, groups, after_seconds=90)
    assert found.is_turning
    assert found.refused is not None
    assert found.refused.message == (
        "the update does not start: Ray Serve: a replica failed 3 times: no such option"
    )
    assert found.manifest["spec"] == story.old["spec"]


def refuse(story: Story) -> None:
    story.step(story.new, [story.before])
    assert story.step(story.new, [story.before], after_seconds=1800).is_turning


def test_the_old_spec_or_another_one_ends_a_refusal(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(story)
    refused = story.live
    assert story.step(story.old, [story.before], after_seconds=1900).manifest == story.old
    story.live = refused
    third = service(monkeypatch, 8192)
    found = story.step(third, [story.before], after_seconds=1900)
    assert found.is_on_trial
    assert read_refused(found.manifest) is None
    previous = read_previous(found.manifest)
    assert previous is not None
    assert previous.revision == revision_of(story.old)
    assert previous.began_unix_seconds == NOW + 1900


def test_what_never_served_is_nothing_to_go_back_to(story: Story) -> None:
    found = story.step(story.new, [group("a", revision_of(story.old))])
    assert not found.is_on_trial
    assert found.manifest == story.new


def cluster(name: str, one: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "models"},
        "spec": one["spec"]["rayClusterConfig"],
    }


def with_status(one: dict[str, Any], active: str, pending: str = "") -> dict[str, Any]:
    status = {
        "activeServiceStatus": {"rayClusterName": active},
        "pendingServiceStatus": {"rayClusterName": pending},
    }
    return {**one, "status": status}


def test_the_old_cluster_goes_when_the_trial_is_over(story: Story) -> None:
    clusters = [cluster("a", story.old), cluster("b", story.new)]
    groups = [story.before, story.update(NOW + 60)]
    story.step(story.new, groups)
    assert PREVIOUS_ANNOTATION in story.live["metadata"]["annotations"]
    assert find_leaving(with_status(story.live, "b"), clusters, groups) == {}
    story.step(story.new, groups, after_seconds=1000)
    leaving = find_leaving(with_status(story.live, "b"), clusters, groups)
    assert leaving == {"a": "Superseded"}
    old, new = send_away(groups, leaving)
    assert old.replica is not None
    assert new.replica is not None
    assert (old.replica.endpoint.state, old.replica.endpoint.reason) == ("draining", "Superseded")
    assert new.replica.endpoint.state == "ready"


def test_a_refused_cluster_gets_no_requests_while_another_serves(story: Story) -> None:
    refuse(story)
    clusters = [cluster("a", story.old), cluster("b", story.new), cluster("c", story.old)]
    bad = story.update(NOW + 60)
    # KubeRay took the update for good and makes what served before once more.
    turning = with_status(story.live, "b", "c")
    assert find_leaving(turning, clusters, [story.before, bad]) == {"b": "RolledBack"}
    assert find_leaving(turning, clusters, [bad]) == {}
    done = with_status(story.live, "c")
    twin = group("c", revision_of(story.old), ready_unix_seconds=NOW + 900)
    assert find_leaving(done, clusters, [story.before, bad, twin]) == {
        "a": "Superseded",
        "b": "RolledBack",
    }
