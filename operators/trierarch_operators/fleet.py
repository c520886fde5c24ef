"""What gateways and people are told of all model deployments of this cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from trierarch.controller.replica_records import Announcement
from trierarch.core.clock import Clock
from trierarch.core.replicas import ReplicaEndpoint, ReplicaState
from trierarch_operators.model_deployment.announced import AnnouncementBook
from trierarch_operators.model_deployment.groups import replica_endpoints
from trierarch_operators.model_deployment.reconcile import Reconciler
from trierarch_operators.object_cache import Key, Object, ObjectCache, key_of
from trierarch_operators.resources import MODEL_DEPLOYMENTS


class ClusterFleet:
    """Every replica of every model deployment, from pods and announcements.

    Args:
        cache: What the cluster looks like.
        reconciler: Knows groups.
        announced: What replicas say.
        clock: Time.
        on_announcement: Called with the address of a replica whose state is a new one.

    Attributes:
        is_known: Whether the cluster has been looked at.
    """

    def __init__(
        self,
        cache: ObjectCache,
        reconciler: Reconciler,
        announced: AnnouncementBook,
        clock: Clock,
        on_announcement: Callable[[str], None],
    ) -> None:
        self.is_known = False
        self._cache = cache
        self._reconciler = reconciler
        self._announced = announced
        self._clock = clock
        self._on_announcement = on_announcement

    def add(self, announcement: Announcement) -> None:
        """Take what a replica says of itself."""
        if self._announced.add(announcement):
            self._on_announcement(announcement.endpoint.host)

    def endpoints(self, found: Object) -> list[ReplicaEndpoint]:
        """Return the replicas of one model deployment."""
        key, spec = key_of(found), found["spec"]
        now_seconds = self._clock.monotonic_seconds()
        return [
            endpoint
            for variant in spec["variants"]
            for endpoint in replica_endpoints(
                self._reconciler.known_groups(key, variant["name"]),
                spec["model"]["name"],
                variant["name"],
                now_seconds,
            )
        ]

    def replicas_document(self) -> dict[str, Any]:
        """Return the list that gateways read."""
        deployments = self._cache.all(MODEL_DEPLOYMENTS)
        return {
            "replicas": [
                {**dataclasses.asdict(endpoint), "state": endpoint.state.value}
                for found in deployments
                for endpoint in self.endpoints(found)
            ],
            "models": sorted({found["spec"]["model"]["name"] for found in deployments}),
        }

    def status_document(self) -> dict[str, Any]:
        """Return what people want to know."""
        models = [self._describe(found) for found in self._cache.all(MODEL_DEPLOYMENTS)]
        waits = any(model["ready"] < model["desired"] for model in models)
        return {
            "phase": "starting replicas" if waits else "serving",
            "models": sorted(models, key=lambda model: str(model["deployment"])),
            "failed": None,
        }

    def _describe(self, found: Object) -> Mapping[str, Any]:
        endpoints = self.endpoints(found)
        counts = {s: sum(e.state is s for e in endpoints) for s in ReplicaState}
        key: Key = key_of(found)
        return {
            "name": found["spec"]["model"]["name"],
            "deployment": str(key),
            "desired": (found.get("status") or {}).get("desiredReplicas", 0),
            "ready": counts[ReplicaState.READY],
            "starting": counts[ReplicaState.STARTING],
            "draining": counts[ReplicaState.DRAINING],
        }
