"""Whether an update stays: it is on trial beside what served before, and goes back if it fails.

Pure. The manifest that is wanted, what is there and how the groups do, in; the manifest to
apply, out. What is remembered stands in the RayService's annotations, so a restart of the
operator changes nothing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from trierarch.controller.outcomes import Outcome, add_outcomes
from trierarch.core.replicas import ReplicaState
from trierarch_operators.groups import Group
from trierarch_operators.labels import REVISION_ANNOTATION
from trierarch_operators.model_deployment.failures import find_failure
from trierarch_operators.model_deployment.manifests import (
    FINGERPRINT_ANNOTATION,
    Counts,
    fingerprint,
)
from trierarch_operators.object_cache import Object
from trierarch_operators.revisions import (
    PREVIOUS_ANNOTATION,
    REFUSED_ANNOTATION,
    Previous,
    Refused,
    pack_previous,
    pack_refused,
    read_previous,
    read_refused,
    revision_of,
)

LEAST_REQUESTS = 20
"""Of the new groups, before their error rate says anything."""

ERROR_RATIO = 0.05
"""Of requests, above which an update is refused; more where the old groups fail as well."""

_GIVEN_UP = "DEPLOY_FAILED"
"""Status of a Ray Serve application."""

TIMES_AS_MANY = 3.0
"""As many errors as before are the requests' fault, or the world's."""


@dataclasses.dataclass(frozen=True, slots=True)
class TrialSettings:
    """How long an update is looked at.

    Attributes:
        observation_seconds: From its first ready group until it stays.
        deadline_seconds: From its beginning until its first group has to be ready.
    """

    observation_seconds: float
    deadline_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Rollout:
    """What to apply.

    Attributes:
        manifest: The RayService.
        is_on_trial: Whether an update is looked at.
        refused: The update that this manifest goes back from; None where there is none.
        is_turning: Whether it goes back now, and not since an earlier look.
    """

    manifest: dict[str, Any]
    is_on_trial: bool = False
    refused: Refused | None = None
    is_turning: bool = False


def plan_rollout(
    wanted: dict[str, Any],
    live: Object | None,
    groups: Sequence[Group],
    outcomes: Mapping[str, Outcome],
    counts: Counts,
    now_unix_seconds: float,
    settings: TrialSettings,
) -> Rollout:
    """Return the RayService to apply.

    Args:
        wanted: As the model deployment asks for it.
        live: The RayService as it is; None if there is none.
        groups: Of the variant, of all its clusters.
        outcomes: How the requests of replicas ended, by replica.
        counts: Groups and Serve replicas that are wanted.
        now_unix_seconds: Time.
        settings: How long an update is looked at.
    """
    new, old = revision_of(wanted), revision_of(live)
    previous, refused = read_previous(live), read_refused(live)
    if not old or (previous is not None and previous.revision == new):
        return Rollout(wanted)
    if refused is not None and previous is not None and refused.revision == new:
        return Rollout(_go_back(wanted, previous, refused, counts), refused=refused)
    if new != old:
        if previous is not None:
            previous = dataclasses.replace(previous, began_unix_seconds=now_unix_seconds)
        elif live is not None and _serves(live, groups, old):
            previous = Previous(old, live["spec"], now_unix_seconds)
        return _try(wanted, previous)
    if previous is None:
        return Rollout(wanted)
    problem = find_surrender(groups, new, live) or find_problem(
        groups, new, previous, outcomes, now_unix_seconds, settings
    )
    if problem:
        refused = Refused(new, problem)
        manifest = _go_back(wanted, previous, refused, counts)
        return Rollout(manifest, refused=refused, is_turning=True)
    if _is_over(groups, new, now_unix_seconds, settings):
        return Rollout(wanted)
    return _try(wanted, previous)


def find_surrender(groups: Sequence[Group], new: str, live: Object | None) -> str:
    """Return what Ray Serve met when it gave up the start of an update; empty if it has not.

    It gives up after three replicas in a row have failed to start. It would go on trying, but what
    serves beside it is whole, and the accelerators of the attempt cost money.

    Args:
        groups: Of the variant, of all its clusters.
        new: Revision of the update.
        live: The RayService with what KubeRay has heard of Ray Serve.
    """
    pending = ((live or {}).get("status") or {}).get("pendingServiceStatus") or {}
    ours = [
        group
        for group in groups
        if group.revision == new and group.cluster == pending.get("rayClusterName")
    ]
    applications = (pending.get("applicationStatuses") or {}).values()
    has_given_up = any(one.get("status") == _GIVEN_UP for one in applications)
    if not ours or not has_given_up or any(_is_ready(group) for group in ours):
        return ""
    failure = find_failure(ours, (), live)
    return "the update does not start" + (f": {failure.message}" if failure else "")


def find_problem(
    groups: Sequence[Group],
    new: str,
    previous: Previous,
    outcomes: Mapping[str, Outcome],
    now_unix_seconds: float,
    settings: TrialSettings,
) -> str:
    """Return why an update has to go back; empty while nothing speaks against it."""
    ready = [group for group in groups if group.revision == new and _is_ready(group)]
    waited_seconds = now_unix_seconds - previous.began_unix_seconds
    if not ready:
        if waited_seconds < settings.deadline_seconds:
            return ""
        words = next((g.failure.message for g in groups if g.revision == new and g.failure), "")
        return f"no group of the update served within {settings.deadline_seconds:.0f} s" + (
            f": {words}" if words else ""
        )
    ours = _outcome(ready, outcomes)
    before = _outcome([g for g in groups if g.revision == previous.revision], outcomes)
    if ours.requests < LEAST_REQUESTS:
        return ""
    if ours.error_ratio <= max(ERROR_RATIO, TIMES_AS_MANY * before.error_ratio):
        return ""
    return (
        f"{ours.errors} of {ours.requests} requests to the update failed, and"
        f" {before.errors} of {before.requests} to what served before"
    )


def _is_ready(group: Group) -> bool:
    return group.replica is not None and group.replica.endpoint.state is ReplicaState.READY


def _outcome(groups: Sequence[Group], outcomes: Mapping[str, Outcome]) -> Outcome:
    ids = [str(group.replica_id) for group in groups]
    return add_outcomes(outcomes[one] for one in ids if one in outcomes)


def _is_over(
    groups: Sequence[Group], new: str, now_unix_seconds: float, settings: TrialSettings
) -> bool:
    ready = [
        group.replica.endpoint.ready_unix_seconds or now_unix_seconds
        for group in groups
        if group.revision == new and group.replica is not None and _is_ready(group)
    ]
    return bool(ready) and now_unix_seconds - min(ready) >= settings.observation_seconds


def _serves(live: Object, groups: Sequence[Group], revision: str) -> bool:
    """Return whether there is something to go back to: groups that serve, and their arguments."""
    applications = json.loads(live["spec"]["serveConfigV2"])["applications"]
    return bool(applications) and any(
        group.revision == revision and _is_ready(group) for group in groups
    )


def _try(wanted: dict[str, Any], previous: Previous | None) -> Rollout:
    if previous is None:
        return Rollout(wanted)
    return Rollout(
        _annotate(wanted, {PREVIOUS_ANNOTATION: pack_previous(previous)}), is_on_trial=True
    )


def _go_back(
    wanted: Mapping[str, Any], previous: Previous, refused: Refused, counts: Counts
) -> dict[str, Any]:
    """Return the RayService with what served before, and the counts of now."""
    cluster = previous.spec["rayClusterConfig"]
    (group,) = cluster["workerGroupSpecs"]
    most = max(int(group.get("maxReplicas") or 0), counts.groups)
    group = {**group, "replicas": counts.groups, "maxReplicas": most}
    group.pop("scaleStrategy", None)
    serve = json.loads(previous.spec["serveConfigV2"])
    (application,) = serve["applications"]
    (deployment,) = application["deployments"]
    deployment = {**deployment, "num_replicas": counts.serve_replicas}
    serve["applications"] = (
        [{**application, "deployments": [deployment]}] if counts.serve_replicas else []
    )
    spec = {
        **previous.spec,
        "serveConfigV2": json.dumps(serve, indent=1),
        "rayClusterConfig": {**cluster, "workerGroupSpecs": [group]},
    }
    return _annotate(
        {**wanted, "spec": spec},
        {
            REVISION_ANNOTATION: previous.revision,
            PREVIOUS_ANNOTATION: pack_previous(previous),
            REFUSED_ANNOTATION: pack_refused(refused),
        },
    )


def _annotate(manifest: Mapping[str, Any], annotations: Mapping[str, str]) -> dict[str, Any]:
    metadata = manifest["metadata"]
    kept = {k: v for k, v in metadata["annotations"].items() if k != FINGERPRINT_ANNOTATION}
    changed = {**manifest, "metadata": {**metadata, "annotations": {**kept, **annotations}}}
    changed["metadata"]["annotations"][FINGERPRINT_ANNOTATION] = fingerprint(changed)
    return changed
