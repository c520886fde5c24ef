"""Adds and removes whole groups of one Ray cluster.

KubeRay takes the size of a running cluster from the RayCluster and not from its
RayService, as it does from Ray's own autoscaler: a number, and the pods to remove.
Without names it would remove any pods, whatever they do.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from trierarch.adapters.kubernetes import KubernetesApi
from trierarch.core.clock import Clock
from trierarch_operators.events import EventRecorder
from trierarch_operators.groups import Group, choose_victims, stuck_groups
from trierarch_operators.labels import DEPLOYMENT_LABEL
from trierarch_operators.model_deployment.backoff import PlacementBackoff
from trierarch_operators.model_deployment.manifests import WORKER_GROUP
from trierarch_operators.object_cache import Key, Object, ObjectCache, key_of
from trierarch_operators.resources import RAY_CLUSTERS

_logger = logging.getLogger(__name__)

LISTEN_SECONDS = 15.0
"""After a start: until then silence is no sign that a group does not work."""


class ClusterScaler:
    """Brings a Ray cluster to a number of groups.

    Args:
        api: For writes.
        cache: Is told of them.
        events: Tells people.
        clock: Time.
        grace_seconds: How long a group may be placed in part.
        pause_seconds: Until a group that was given back is tried again; doubles each time.
        hears_replicas: Whether replicas announce themselves; without that no placed group goes.
    """

    def __init__(
        self,
        api: KubernetesApi,
        cache: ObjectCache,
        events: EventRecorder,
        clock: Clock,
        grace_seconds: float,
        pause_seconds: float,
        *,
        hears_replicas: bool,
    ) -> None:
        self._api = api
        self._cache = cache
        self._events = events
        self._clock = clock
        self._grace_seconds = grace_seconds
        self._pause_seconds = pause_seconds
        self._hears_replicas = hears_replicas
        self._listening_since_seconds = clock.monotonic_seconds()
        self._backoffs: dict[Key, PlacementBackoff] = {}

    def begin(self) -> None:
        """Begin to listen: what was heard before may be out of date."""
        self._listening_since_seconds = self._clock.monotonic_seconds()

    async def scale(
        self, deployment: Object, cluster: Object, groups: Sequence[Group], desired: int
    ) -> str:
        """Take one step towards ``desired`` groups; return what is missing, if anything is.

        Args:
            deployment: For Events.
            cluster: The RayCluster.
            groups: Of the variant; those of other clusters are left alone.
            desired: Whole groups.
        """
        key = key_of(cluster)
        if cluster["metadata"].get("deletionTimestamp"):
            self._backoffs.pop(key, None)
            return ""
        own = [group for group in groups if group.cluster == key.name]
        now_unix_seconds = self._clock.unix_seconds()
        backoff = self._backoffs.get(key, PlacementBackoff())
        current = _replicas(cluster)
        stuck = stuck_groups(own, now_unix_seconds, self._grace_seconds)
        if stuck:
            placed = sum(group.is_placed for group in own)
            message = _describe_stuck(stuck[0])
            self._backoffs[key] = backoff.fail(
                placed, now_unix_seconds, message, self._pause_seconds
            )
            await self._resize(cluster, max(placed, current - len(stuck)), stuck)
            self._events.record(
                deployment, "Release", "InsufficientCapacity", message, kind="Warning"
            )
            return message
        if backoff.failures and sum(group.is_placed for group in own) >= desired:
            del self._backoffs[key]
            backoff = PlacementBackoff()
        allowed = backoff.allowed(desired, now_unix_seconds)
        if allowed > current:
            await self._resize(cluster, allowed, ())
        elif allowed < current:
            await self._shrink(cluster, own, current, allowed)
        if not backoff.is_over(now_unix_seconds):
            return backoff.message
        return _waiting(own, now_unix_seconds, self._grace_seconds)

    async def _shrink(
        self, cluster: Object, groups: Sequence[Group], current: int, allowed: int
    ) -> None:
        unborn = max(0, current - len(groups))
        too_many = current - allowed
        victims = choose_victims(groups, max(0, too_many - unborn))
        listened_seconds = self._clock.monotonic_seconds() - self._listening_since_seconds
        if not self._hears_replicas or listened_seconds < LISTEN_SECONDS:
            victims = [group for group in victims if not group.placed_pods]
        gone = min(too_many, unborn) + len(victims)
        if gone:
            await self._resize(cluster, current - gone, victims)

    async def _resize(self, cluster: Object, replicas: int, victims: Sequence[Group]) -> None:
        names = [pod["metadata"]["name"] for group in victims for pod in group.pods]
        key = key_of(cluster)
        root = "/spec/workerGroupSpecs/0"
        patched = await self._api.patch(
            RAY_CLUSTERS,
            key.namespace,
            key.name,
            [
                {"op": "test", "path": "/metadata/uid", "value": cluster["metadata"]["uid"]},
                {"op": "test", "path": f"{root}/groupName", "value": WORKER_GROUP},
                {"op": "add", "path": f"{root}/replicas", "value": replicas},
                {"op": "add", "path": f"{root}/scaleStrategy", "value": {"workersToDelete": names}},
            ],
        )
        owner = cluster["metadata"]["labels"][DEPLOYMENT_LABEL]
        self._cache.put(RAY_CLUSTERS, patched, Key(key.namespace, owner))
        _logger.info("%s: %d groups, removing %s", key, replicas, names or "none")


def _replicas(cluster: Object) -> int:
    return int(cluster["spec"]["workerGroupSpecs"][0].get("replicas") or 0)


def _describe_stuck(group: Group) -> str:
    reason = group.unplaced_reason or "nothing was heard of a node for the others"
    return (
        f"only {group.placed_pods} of {group.hosts} pods of a group could be placed, so all were"
        f" given back: {reason}"
    )


def _waiting(groups: Sequence[Group], now_unix_seconds: float, grace_seconds: float) -> str:
    for group in groups:
        is_late = now_unix_seconds - group.started_unix_seconds >= grace_seconds
        if not group.placed_pods and group.unplaced_reason and is_late:
            return f"no node for a group of {group.hosts} pods: {group.unplaced_reason}"
    return ""
