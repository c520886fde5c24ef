"""Two half-truths joined: Ray Serve knows which replicas exist, a replica knows what it can do.

Pure: announcements and Serve's list go in, endpoints come out. A replica that
Serve no longer lists is gone, whatever it said; one that has never announced
itself is starting, however alive its process is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from trierarch.adapters.ray_serve import ServeReplica
from trierarch.core.identifiers import ModelName, ReplicaId, VariantName
from trierarch.core.replicas import ReplicaEndpoint, ReplicaState

SILENCE_SECONDS = 15.0
"""A replica that has served and is not heard of for so long is not called ready. Much longer
than the second between announcements: on a machine without a free core threads wait."""

_FORGET_SECONDS = 120.0


@dataclasses.dataclass(frozen=True, slots=True)
class Announcement:
    """What a replica last said of itself.

    Attributes:
        endpoint: Where it listens and what it can do.
        in_flight: Requests it is working on.
        pid: Of its process.
        message: Why it is in its state, for people.
        heard_seconds: Monotonic time.
        address: Of the machine or pod it runs in, from its first word on; the endpoint has none
            until the server listens.
    """

    endpoint: ReplicaEndpoint
    in_flight: int
    pid: int
    message: str
    heard_seconds: float
    address: str = ""


def parse_announcement(document: Mapping[str, Any], heard_seconds: float) -> Announcement:
    """Return an announcement from its JSON.

    Raises:
        KeyError: If a member is missing.
        TypeError: If a member has a wrong type.
        ValueError: If a member has a wrong value.
    """
    ready_at = document["ready_unix_seconds"]
    endpoint = ReplicaEndpoint(
        replica_id=ReplicaId(str(document["replica_id"])),
        model=ModelName(str(document["model"])),
        variant=VariantName(str(document["variant"])),
        state=ReplicaState(document["state"]),
        host=str(document["host"]),
        port=int(document["port"]),
        started_unix_seconds=float(document["started_unix_seconds"]),
        ready_unix_seconds=None if ready_at is None else float(ready_at),
        reason=str(document["reason"]),
        max_model_tokens=int(document["max_model_tokens"]),
    )
    return Announcement(
        endpoint,
        in_flight=int(document["in_flight"]),
        pid=int(document["pid"]),
        message=str(document["message"]),
        heard_seconds=heard_seconds,
        address=str(document.get("address") or document["host"]),
    )


class Announcements:
    """The last words of every replica."""

    def __init__(self) -> None:
        self._by_replica: dict[ReplicaId, Announcement] = {}

    def add(self, announcement: Announcement) -> None:
        """Keep an announcement in the place of the replica's earlier one."""
        self._by_replica[announcement.endpoint.replica_id] = announcement

    def get(self, replica_id: str) -> Announcement | None:
        """Return what a replica last said; None if it has said nothing."""
        return self._by_replica.get(ReplicaId(replica_id))

    def forget(self, living: Iterable[str], now_seconds: float) -> None:
        """Drop what replicas said that do not exist any more."""
        kept = set(living)
        for replica_id, announcement in list(self._by_replica.items()):
            is_old = now_seconds - announcement.heard_seconds > _FORGET_SECONDS
            if replica_id not in kept and is_old:
                del self._by_replica[replica_id]


def join_replica(
    replica: ServeReplica,
    announcement: Announcement | None,
    model: ModelName,
    variant: VariantName,
    now_seconds: float,
) -> ReplicaEndpoint:
    """Return one replica's endpoint.

    Args:
        replica: As Serve sees it.
        announcement: What it last said.
        model: Served model name, for a replica that has said nothing.
        variant: Its variant.
        now_seconds: Monotonic time.
    """
    if announcement is None:
        is_leaving = replica.state is ReplicaState.DRAINING
        return ReplicaEndpoint(
            replica_id=ReplicaId(replica.replica_id),
            model=model,
            variant=variant,
            state=ReplicaState.DRAINING if is_leaving else ReplicaState.STARTING,
            started_unix_seconds=replica.started_unix_seconds,
            reason="Stopping" if is_leaving else "StartingProcess",
        )
    said = dataclasses.replace(
        announcement.endpoint, started_unix_seconds=replica.started_unix_seconds
    )
    if replica.state is ReplicaState.DRAINING and said.state is not ReplicaState.FAILED:
        return dataclasses.replace(said, state=ReplicaState.DRAINING, reason="Stopping")
    silence_seconds = now_seconds - announcement.heard_seconds
    if said.state is ReplicaState.READY and silence_seconds > SILENCE_SECONDS:
        return dataclasses.replace(said, state=ReplicaState.FAILED, reason="NotHeardOf")
    return said
