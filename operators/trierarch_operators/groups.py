"""Which whole groups there are: pods joined with what replicas say of themselves. Pure.

A pod tells that capacity is taken, an announcement that it serves. A group is placed when
all its pods have a node; one with only some of them holds accelerators and serves nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from trierarch.controller.replica_records import SILENCE_SECONDS, Announcement
from trierarch.core.identifiers import ModelName, ReplicaId, VariantName
from trierarch.core.replicas import DRAINED_REASON, ReplicaEndpoint, ReplicaState
from trierarch_operators.labels import CLUSTER_LABEL, GROUP_LABEL, REVISION_ANNOTATION

Pod = Mapping[str, Any]

SILENT_SCHEDULER_GRACES = 3
"""Graces that a group placed in part has while nothing has refused its other pods."""


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """One expert-parallel group of one variant.

    Attributes:
        name: KubeRay's name of the replica, or the only pod's.
        cluster: RayCluster it belongs to.
        pods: Those that exist and are not being deleted.
        hosts: How many there should be.
        replica: What the replica on it says; None while it says nothing.
        failure: The last words of a replica that failed on it, where none has served since.
    """

    name: str
    cluster: str
    pods: tuple[Pod, ...]
    hosts: int
    replica: Announcement | None = None
    failure: Announcement | None = None

    @property
    def replica_id(self) -> ReplicaId:
        """Of the replica on it: the same from the first pod to the last, so that it is paid once.

        What a replica calls itself is known late, and is another after a crash.
        """
        namespace = self.pods[0]["metadata"].get("namespace", "") if self.pods else ""
        return ReplicaId(f"{namespace}.{self.cluster}.{self.name}")

    @property
    def revision(self) -> str:
        """What runs on it, as its pods were told; empty where they were not."""
        annotations = self.pods[0]["metadata"].get("annotations") or {} if self.pods else {}
        return str(annotations.get(REVISION_ANNOTATION, ""))

    @property
    def is_working(self) -> bool:
        """Whether there is a replica on it that may have answers to finish."""
        if self.replica is None:
            return False
        said = self.replica.endpoint
        return said.state is not ReplicaState.STARTING and said.reason != DRAINED_REASON

    @property
    def in_flight(self) -> int:
        """Answers that its replica has begun and not finished."""
        return 0 if self.replica is None else self.replica.in_flight

    @property
    def placed_pods(self) -> int:
        """Pods that hold a node's accelerators."""
        return sum(bool(pod["spec"].get("nodeName")) for pod in self.pods)

    @property
    def is_placed(self) -> bool:
        """Whether every pod has a node."""
        return self.placed_pods >= self.hosts

    @property
    def is_partial(self) -> bool:
        """Whether some pods hold accelerators that are of no use without the others."""
        return 0 < self.placed_pods < self.hosts

    @property
    def started_unix_seconds(self) -> float:
        """When its first pod was made."""
        return min(map(_created_unix_seconds, self.pods), default=0.0)

    @property
    def completed_unix_seconds(self) -> float:
        """When the last of the pods that it has was made."""
        return max(map(_created_unix_seconds, self.pods), default=0.0)

    @property
    def unplaced_reason(self) -> str:
        """The scheduler's words for a pod without a node; empty if it has said nothing."""
        for pod in self.pods:
            for condition in pod.get("status", {}).get("conditions", ()):
                if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                    return str(condition.get("message") or condition.get("reason") or "")
        return ""


def group_pods(
    pods: Iterable[Pod],
    hosts: int,
    announced: Iterable[Announcement],
    failures: Iterable[Announcement] = (),
) -> list[Group]:
    """Return the groups that engine pods form, oldest first.

    Args:
        pods: Engine pods of one variant; those being deleted are left out.
        hosts: Pods of a whole group.
        announced: What replicas of the variant say.
        failures: Last words of replicas that failed.
    """
    found: dict[str, list[Pod]] = {}
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp") or _has_ended(pod):
            continue
        labels = pod["metadata"].get("labels", {})
        found.setdefault(labels.get(GROUP_LABEL) or pod["metadata"]["name"], []).append(pod)
    said = {one.address: one for one in announced}
    failed = {one.address: one for one in failures}
    groups = []
    for name, members in found.items():
        addresses = [pod.get("status", {}).get("podIP", "") for pod in members]
        cluster = str(members[0]["metadata"].get("labels", {}).get(CLUSTER_LABEL, ""))
        replica, failure = _newest(said, addresses), _newest(failed, addresses)
        groups.append(Group(name, cluster, tuple(members), hosts, replica, failure))
    return sorted(groups, key=lambda group: (group.started_unix_seconds, group.name))


def _newest(said: Mapping[str, Announcement], addresses: Sequence[str]) -> Announcement | None:
    """Return the newest word from any pod of a group: a replica made again may be in another."""
    found = [said[address] for address in addresses if address in said]
    return max(found, key=lambda one: one.heard_seconds, default=None)


def replica_endpoints(
    groups: Sequence[Group], model: str, variant: str, now_seconds: float
) -> list[ReplicaEndpoint]:
    """Return one endpoint per group, as gateways and the autoscaler read them."""
    return [_endpoint(group, model, variant, now_seconds) for group in groups]


def _endpoint(group: Group, model: str, variant: str, now_seconds: float) -> ReplicaEndpoint:
    said = group.replica
    if said is None:
        return ReplicaEndpoint(
            replica_id=group.replica_id,
            model=ModelName(model),
            variant=VariantName(variant),
            state=ReplicaState.STARTING,
            started_unix_seconds=group.started_unix_seconds,
            reason="StartingProcess" if group.is_placed else "WaitingForAccelerators",
        )
    endpoint = dataclasses.replace(
        said.endpoint,
        replica_id=group.replica_id,
        variant=VariantName(variant) if variant else said.endpoint.variant,
        started_unix_seconds=group.started_unix_seconds,
    )
    is_silent = now_seconds - said.heard_seconds > SILENCE_SECONDS
    if endpoint.state is ReplicaState.READY and is_silent:
        return dataclasses.replace(endpoint, state=ReplicaState.FAILED, reason="NotHeardOf")
    return endpoint


def is_coming(group: Group) -> bool:
    """Return whether a group has still to serve, for the first time or again."""
    said = group.replica
    return said is None or said.endpoint.state in (ReplicaState.STARTING, ReplicaState.FAILED)


def choose_victims(groups: Sequence[Group], too_many: int) -> list[Group]:
    """Return the groups that may go now: at most ``too_many``, and none that still works.

    A group whose replica serves or drains is never among them: Serve chooses which replica
    stops, and its group follows when its last answer is out. Unplaced ones go first.
    """
    idle = [group for group in groups if not group.is_working]
    idle.sort(key=lambda group: (group.is_placed, -group.started_unix_seconds, group.name))
    return idle[:too_many]


def stuck_groups(
    groups: Sequence[Group], now_unix_seconds: float, grace_seconds: float
) -> list[Group]:
    """Return the groups that have held some of their accelerators for longer than the grace.

    A scheduler that has not yet refused the other pods may be about to place them, and one that
    is down would place no other group either: its silence is borne for longer than its refusal.
    """
    return [
        group
        for group in groups
        if group.is_partial
        and now_unix_seconds - group.completed_unix_seconds
        >= grace_seconds * (1 if group.unplaced_reason else SILENT_SCHEDULER_GRACES)
    ]


def _created_unix_seconds(pod: Pod) -> float:
    created = str(pod["metadata"].get("creationTimestamp", "1970-01-01T00:00:00Z"))
    return datetime.fromisoformat(created).timestamp()


def _has_ended(pod: Pod) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
