"""Which Ray clusters of a variant have to go because another has taken their place: pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from trierarch.core.replicas import ReplicaState
from trierarch_operators.groups import Group
from trierarch_operators.object_cache import Object, key_of
from trierarch_operators.revisions import (
    read_previous,
    read_refused,
    revision_of,
)

SUPERSEDED = "Superseded"
ROLLED_BACK = "RolledBack"
DELETING = "Deleting"

NOTICE_SECONDS = 5.0
"""From the word that a group drains until no gateway sends to it any more."""


def find_leaving(
    service: Object | None, clusters: Sequence[Object], groups: Sequence[Group]
) -> dict[str, str]:
    """Return the clusters that shall take no new request, and why.

    One whose place nobody has taken serves on, whatever is wrong with it.

    Args:
        service: The RayService.
        clusters: Its RayClusters.
        groups: Of all of them.
    """
    if service is None or len(clusters) < 2:
        return {}
    status = service.get("status") or {}
    active, pending = (
        str((status.get(part) or {}).get("rayClusterName", ""))
        for part in ("activeServiceStatus", "pendingServiceStatus")
    )
    revisions = {key_of(one).name: cluster_revision(one) for one in clusters}
    refused = read_refused(service)
    is_on_trial = refused is None and read_previous(service) is not None
    has_taken_over = revisions.get(active) == revision_of(service) and not is_on_trial
    leaving = {}
    for name, revision in revisions.items():
        if refused is not None and revision == refused.revision:
            leaving[name] = ROLLED_BACK
        elif has_taken_over and name not in (active, pending):
            leaving[name] = SUPERSEDED
    staying_serve = any(_serves(group) for group in groups if group.cluster not in leaving)
    if not staying_serve and any(_serves(group) for group in groups):
        return {}
    return leaving


def is_replaced(service: Object, cluster: str) -> bool:
    """Return whether KubeRay works with other clusters than this one."""
    status = service.get("status") or {}
    parts = (status.get("activeServiceStatus") or {}, status.get("pendingServiceStatus") or {})
    names = [part.get("rayClusterName", "") for part in parts]
    return bool(names[0]) and cluster not in names


def cluster_revision(cluster: Object) -> str:
    """Return the revision of a RayCluster; empty where it has none."""
    return revision_of(cluster["spec"].get("headGroupSpec", {}).get("template"))


def send_away(groups: Sequence[Group], leaving: Mapping[str, str]) -> list[Group]:
    """Return the groups with those of leaving clusters as draining."""
    return [
        _drain(group, leaving[group.cluster]) if group.cluster in leaving else group
        for group in groups
    ]


def _drain(group: Group, reason: str) -> Group:
    if group.replica is None or not _serves(group):
        return group
    endpoint = dataclasses.replace(
        group.replica.endpoint, state=ReplicaState.DRAINING, reason=reason
    )
    return dataclasses.replace(group, replica=dataclasses.replace(group.replica, endpoint=endpoint))


def _serves(group: Group) -> bool:
    return group.replica is not None and group.replica.endpoint.state is ReplicaState.READY
