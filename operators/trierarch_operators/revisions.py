"""What a variant's groups run, told apart from how many there are: pure.

A revision is a hash of the engine's arguments and of the Ray cluster without its counts. Pods
carry it, so that groups of an update and those from before can be told apart, and it is part
of the cluster that KubeRay compares, so that other arguments make a second cluster beside the
first instead of restarting what serves. While an update is on trial the RayService carries what
served before, packed, to go back to.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from trierarch.api.v1alpha1 import GROUP
from trierarch_operators.labels import REVISION_ANNOTATION

PREVIOUS_ANNOTATION = f"{GROUP}/previous-revision"
"""On a RayService: what served before, packed; from the beginning of an update to its end."""

REFUSED_ANNOTATION = f"{GROUP}/refused-revision"
"""On a RayService: the update that was rolled back, and why."""

_COUNTS = ("replicas", "minReplicas", "maxReplicas", "scaleStrategy")


@dataclasses.dataclass(frozen=True, slots=True)
class Previous:
    """What served before an update.

    Attributes:
        revision: Its hash.
        spec: Of the RayService.
        began_unix_seconds: When the update began.
    """

    revision: str
    spec: Mapping[str, Any]
    began_unix_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """An update that was rolled back.

    Attributes:
        revision: Its hash.
        message: Why.
    """

    revision: str
    message: str


def compute_revision(arguments: Mapping[str, Any], cluster: Mapping[str, Any]) -> str:
    """Return the revision of a Serve application's arguments and a Ray cluster's spec."""
    groups = [
        {name: value for name, value in group.items() if name not in _COUNTS}
        for group in cluster["workerGroupSpecs"]
    ]
    basis = {"arguments": arguments, "cluster": {**cluster, "workerGroupSpecs": groups}}
    text = json.dumps(basis, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def mark_pods(cluster: Mapping[str, Any], revision: str) -> None:
    """Write the revision into a cluster's pod templates."""
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        group["template"]["metadata"].setdefault("annotations", {})[REVISION_ANNOTATION] = revision


def _annotation(found: Mapping[str, Any] | None, name: str) -> str:
    annotations = (found or {}).get("metadata", {}).get("annotations") or {}
    return str(annotations.get(name, ""))


def revision_of(found: Mapping[str, Any] | None) -> str:
    """Return the revision of a RayService or a pod; empty where it has none."""
    return _annotation(found, REVISION_ANNOTATION)


def pack_previous(previous: Previous) -> str:
    """Return what served before as the value of an annotation."""
    text = json.dumps(dataclasses.asdict(previous), sort_keys=True, separators=(",", ":"))
    # Without a time inside, the same text packs to the same value.
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")


def read_previous(service: Mapping[str, Any] | None) -> Previous | None:
    """Return what served before an update; None where none is on trial."""
    packed = _annotation(service, PREVIOUS_ANNOTATION)
    if not packed:
        return None
    return Previous(**json.loads(gzip.decompress(base64.b64decode(packed))))


def pack_refused(refused: Refused) -> str:
    """Return a refused update as the value of an annotation."""
    return json.dumps(dataclasses.asdict(refused))


def read_refused(service: Mapping[str, Any] | None) -> Refused | None:
    """Return the update that was rolled back; None where none was."""
    text = _annotation(service, REFUSED_ANNOTATION)
    return Refused(**json.loads(text)) if text else None
