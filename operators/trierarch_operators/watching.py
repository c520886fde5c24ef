"""kopf's watches fill the cache, and full lists repair what a broken watch has missed.

Handlers of kopf that keep progress write annotations into every object they handle;
ours are of the other kind, which write nothing, so that a restart writes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import kopf

from trierarch.adapters.kubernetes import PAGE_OBJECTS, KubernetesApi, Refused, Resource
from trierarch.core.errors import Unavailable
from trierarch_operators.labels import DEPLOYMENT_LABEL
from trierarch_operators.object_cache import Key, Object, ObjectCache, key_of, version_of
from trierarch_operators.resources import LABELLED, WATCHED

_logger = logging.getLogger(__name__)

_WAIT_FOR_KINDS_SECONDS = 5.0
_IDLE_SECONDS = 0.5


def owner_of(found: Object) -> Key | None:
    """Return the model deployment that an object was made for; None if for none."""
    metadata = found["metadata"]
    name = (metadata.get("labels") or {}).get(DEPLOYMENT_LABEL)
    return Key(metadata.get("namespace", ""), name) if name else None


def build_registry(cache: ObjectCache) -> kopf.OperatorRegistry:
    """Return kopf's handlers: each puts what it hears into the cache."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(kopf.login_via_client)
    for resource in WATCHED:
        _watch(registry, cache, resource)
    return registry


def _watch(registry: kopf.OperatorRegistry, cache: ObjectCache, resource: Resource) -> None:
    async def take(event: kopf.RawEvent, **_: Any) -> None:
        found: Any = event["object"]
        if event["type"] == "DELETED":
            known = cache.get(resource, key_of(found))
            # A new object of the same name may have been heard of already.
            if known is None or known["metadata"]["uid"] == found["metadata"]["uid"]:
                cache.remove(resource, key_of(found), owner_of(found))
        else:
            cache.put(resource, _complete(resource, found), owner_of(found))

    kopf.on.event(
        resource.group,
        resource.version,
        resource.plural,
        registry=registry,
        id=f"watch-{resource.plural}",
    )(take)


def _complete(resource: Resource, found: Any) -> dict[str, Any]:
    """Return an object with its kind's words, which lists leave out."""
    return {"apiVersion": resource.api_version, **found}


class _NoComparison(kopf.DiffBaseStorage):
    """Keeps nothing of objects to compare them with.

    kopf copies every object it hears of to find what has changed, for handlers of a kind that
    we have none of; with a thousand objects that took more time than all else.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        """Nothing is there to be stored."""


def build_settings() -> kopf.OperatorSettings:
    """Return kopf's settings."""
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = _NoComparison()
    settings.posting.enabled = False
    settings.peering.standalone = True
    # Watching for new kinds and namespaces would need rights over the whole cluster.
    settings.scanning.disabled = True
    settings.watching.chunk_size = PAGE_OBJECTS
    # A worker of kopf keeps the whole of its object for so long after the last event.
    settings.queueing.idle_timeout = _IDLE_SECONDS
    for resource in LABELLED:
        selector = (resource.group, resource.version, resource.plural)
        settings.watching.label_selectors[selector] = DEPLOYMENT_LABEL
    return settings


async def wait_for_kinds(api: KubernetesApi) -> None:
    """Wait until the API server knows every watched kind."""
    told = ""
    while True:
        missing = [r for r in WATCHED if not await _is_served(api, r)]
        if not missing:
            return
        names = ", ".join(f"{r.plural}.{r.group}" for r in missing)
        if names != told:
            _logger.warning("waiting for these kinds to be installed: %s", names)
            told = names
        await asyncio.sleep(_WAIT_FOR_KINDS_SECONDS)


async def _is_served(api: KubernetesApi, resource: Resource) -> bool:
    root = resource.path().rpartition("/")[0]
    try:
        served = await api.ask("GET", root)
    except (Refused, Unavailable):
        return False
    return any(found["name"] == resource.plural for found in served.get("resources", ()))


class Resync:
    """Compares the cache with full lists.

    Args:
        api: For lists.
        cache: What is compared.
        namespaces: To list; empty for all.
    """

    def __init__(self, api: KubernetesApi, cache: ObjectCache, namespaces: Sequence[str]) -> None:
        self._api = api
        self._cache = cache
        self._namespaces = tuple(namespaces)

    async def run(self, interval_seconds: float) -> None:
        """Compare at every interval, for ever."""
        while True:
            await asyncio.sleep(interval_seconds)
            try:
                await self.once()
            except (Unavailable, Refused) as error:
                _logger.warning("the cache was not compared with the cluster: %s", error)

    async def once(self) -> None:
        """Compare once.

        Raises:
            Unavailable: If the API server does not answer.
            Refused: If a list is not allowed.
        """
        for resource in WATCHED:
            before = {key: self._version(resource, key) for key in self._cache.keys(resource)}
            selector = DEPLOYMENT_LABEL if resource in LABELLED else ""
            places = self._namespaces if resource.is_namespaced and self._namespaces else ("",)
            listed: set[Key] = set()
            kind = _kind(resource)
            for place in places:
                async for found in self._api.list(resource, place, selector):
                    whole = {"kind": kind, **_complete(resource, found)}
                    self._cache.put(resource, whole, owner_of(whole))
                    listed.add(key_of(whole))
            for key, version in before.items():
                # What came or changed while the list was made is for the next one.
                if key not in listed and self._version(resource, key) == version:
                    gone = self._cache.get(resource, key)
                    if gone is not None:
                        self._cache.remove(resource, key, owner_of(gone))

    def _version(self, resource: Resource, key: Key) -> int:
        found = self._cache.get(resource, key)
        return 0 if found is None else version_of(found)


_KINDS = {
    "modeldeployments": "ModelDeployment",
    "acceleratorclasses": "AcceleratorClass",
    "pricebooks": "PriceBook",
    "tenants": "Tenant",
    "rayservices": "RayService",
    "rayclusters": "RayCluster",
    "pods": "Pod",
}


def _kind(resource: Resource) -> str:
    return _KINDS[resource.plural]
