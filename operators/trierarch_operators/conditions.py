"""Status conditions and the question whether a status has to be written at all. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from trierarch.core.clock import utc_datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """A condition without its times."""

    type: str
    status: str
    reason: str
    message: str


def timestamp(unix_seconds: float) -> str:
    """Return a time as Kubernetes writes it."""
    return utc_datetime(unix_seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def build_conditions(
    findings: Sequence[Finding],
    existing: Sequence[Mapping[str, Any]],
    generation: int,
    now_unix_seconds: float,
) -> list[dict[str, Any]]:
    """Return conditions with their times: a transition is a change of the status only."""
    before = {condition["type"]: condition for condition in existing}
    built = []
    for finding in findings:
        known = before.get(finding.type)
        is_same = known is not None and known["status"] == finding.status
        built.append(
            {
                **dataclasses.asdict(finding),
                "observedGeneration": generation,
                "lastTransitionTime": known["lastTransitionTime"]
                if is_same and known is not None
                else timestamp(now_unix_seconds),
            }
        )
    return built


def holds(wanted: Any, found: Any, *, keys: Sequence[str] = ("name", "type")) -> bool:
    """Return whether everything that is wanted is there; more may be there.

    Entries of lists are compared by their ``name`` or ``type`` where all have one, else by
    position and number.
    """
    if isinstance(wanted, Mapping):
        if not isinstance(found, Mapping):
            return False
        return all(name in found and holds(value, found[name]) for name, value in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(found, list):
            return False
        for key in keys:
            entries = [*wanted, *found]
            if wanted and all(isinstance(e, Mapping) and key in e for e in entries):
                known = {entry[key]: entry for entry in found}
                return all(e[key] in known and holds(e, known[e[key]]) for e in wanted)
        return len(wanted) == len(found) and all(map(holds, wanted, found))
    return bool(wanted == found)
