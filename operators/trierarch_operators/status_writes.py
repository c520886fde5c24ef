"""Writes to a model deployment: each controller applies its own fields with its own manager."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trierarch.adapters.kubernetes import KubernetesApi
from trierarch.api.v1alpha1 import API_VERSION
from trierarch_operators.object_cache import Object, ObjectCache
from trierarch_operators.resources import MODEL_DEPLOYMENTS


def _manifest(found: Object, **metadata: Any) -> dict[str, Any]:
    """Return what says which object is meant.

    Without the uid the API server would make an object that was deleted in between.
    """
    known = found["metadata"]
    names = {name: known[name] for name in ("name", "namespace", "uid")}
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {**names, **metadata},
    }


async def apply_status(
    api: KubernetesApi,
    cache: ObjectCache,
    found: Object,
    status: Mapping[str, Any],
    field_manager: str,
) -> None:
    """Write a controller's part of the status.

    Raises:
        Refused: If the API server will not take it.
        Unavailable: If it did not answer.
    """
    manifest = {**_manifest(found), "status": dict(status)}
    written = await api.apply(
        MODEL_DEPLOYMENTS, manifest, subresource="status", field_manager=field_manager
    )
    cache.put(MODEL_DEPLOYMENTS, written)


async def apply_finalizers(
    api: KubernetesApi,
    cache: ObjectCache,
    found: Object,
    finalizers: Sequence[str],
    field_manager: str,
) -> None:
    """Write a controller's finalizers; none lets the object go.

    Raises:
        Refused: If the API server will not take it.
        Unavailable: If it did not answer.
    """
    manifest = _manifest(found, finalizers=list(finalizers))
    applied = await api.apply(MODEL_DEPLOYMENTS, manifest, field_manager=field_manager)
    if finalizers:
        cache.put(MODEL_DEPLOYMENTS, applied)
