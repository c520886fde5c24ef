"""Removes Ray clusters that others have replaced, once their last answers are out.

KubeRay would do it after a fixed time, whatever still runs and whether or not what has taken
their place has proved itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from trierarch.adapters.kubernetes import KubernetesApi
from trierarch.core.clock import Clock
from trierarch_operators.events import EventRecorder
from trierarch_operators.groups import Group
from trierarch_operators.object_cache import Object, key_of
from trierarch_operators.resources import RAY_CLUSTERS
from trierarch_operators.succession import NOTICE_SECONDS, find_leaving, is_replaced


class ClusterRetirement:
    """Looks after clusters that have to go.

    Args:
        api: For the deletion.
        events: Tells people.
        clock: Time.
    """

    def __init__(self, api: KubernetesApi, events: EventRecorder, clock: Clock) -> None:
        self._api = api
        self._events = events
        self._clock = clock
        self._since_seconds: dict[str, float] = {}

    async def retire(
        self,
        deployment: Object,
        service: Object,
        cluster: Object,
        clusters: Sequence[Object],
        groups: Sequence[Group],
    ) -> bool:
        """Take one step if this cluster has to go; return whether it has.

        Args:
            deployment: For Events.
            service: The RayService.
            cluster: One of its RayClusters.
            clusters: All of them.
            groups: Of all of them.

        Raises:
            Unavailable: If the API server did not answer.
        """
        name, uid = key_of(cluster).name, cluster["metadata"]["uid"]
        if cluster["metadata"].get("deletionTimestamp"):
            self._since_seconds.pop(uid, None)
            return True
        if name not in find_leaving(service, clusters, groups):
            self._since_seconds.pop(uid, None)
            return False
        now_seconds = self._clock.monotonic_seconds()
        since_seconds = self._since_seconds.setdefault(uid, now_seconds)
        busy = sum(group.in_flight for group in groups if group.cluster == name)
        if not is_replaced(service, name) or busy or now_seconds - since_seconds < NOTICE_SECONDS:
            return True
        key = key_of(cluster)
        await self._api.delete(RAY_CLUSTERS, key.namespace, key.name, uid)
        self._events.record(
            deployment, "Delete", "RayClusterReplaced", f"deleted RayCluster {name}: another serves"
        )
        return True
