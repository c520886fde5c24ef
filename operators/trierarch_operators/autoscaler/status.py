"""The part of the status that is the autoscaler's: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trierarch.autoscaling.decision import ScalingDecision
from trierarch_operators.conditions import Finding, build_conditions, timestamp

OWN_CONDITIONS = ("SLOMet", "CostTargetMet", "ScalingLimited", "MetricsFresh")
"""Available and Progressing are told by who sees the pods."""

_MOST_MESSAGE_LENGTH = 1024


def build_status(
    decision: ScalingDecision, existing: Mapping[str, Any], generation: int
) -> dict[str, Any]:
    """Return the fields that a decision sets."""
    now_unix_seconds = decision.at_unix_seconds
    findings = [
        Finding(kind, condition.status.value, condition.reason, condition.message)
        for kind in OWN_CONDITIONS
        for condition in (decision.condition(kind),)
    ]
    return {
        "variants": [
            {"name": name, "desiredReplicas": count} for name, count in decision.replicas.items()
        ],
        "lastDecision": {
            "id": decision.id,
            "reason": decision.reason.value,
            "message": decision.message[:_MOST_MESSAGE_LENGTH],
            "time": timestamp(now_unix_seconds),
        },
        "conditions": build_conditions(
            findings, existing.get("conditions", ()), generation, now_unix_seconds
        ),
    }


def says_something_new(wanted: Mapping[str, Any], existing: Mapping[str, Any]) -> bool:
    """Return whether a status has to be written.

    Numbers in sentences change at every decision; they alone are no news.
    """
    return _gist(wanted) != _gist(_own_part(wanted, existing))


def wants_other_counts(wanted: Mapping[str, Any], existing: Mapping[str, Any]) -> bool:
    """Return whether a status asks for other numbers of groups: that is what people are told."""
    return _counts(wanted) != _counts(_own_part(wanted, existing))


def _counts(status: Mapping[str, Any]) -> dict[str, int | None]:
    return {entry["name"]: entry.get("desiredReplicas") for entry in status["variants"]}


def _own_part(wanted: Mapping[str, Any], existing: Mapping[str, Any]) -> dict[str, Any]:
    names = {entry["name"] for entry in wanted["variants"]}
    return {
        "variants": [v for v in existing.get("variants", ()) if v["name"] in names],
        "lastDecision": existing.get("lastDecision") or {},
        "conditions": [c for c in existing.get("conditions", ()) if c["type"] in OWN_CONDITIONS],
    }


def _gist(status: Mapping[str, Any]) -> tuple[object, ...]:
    conditions: Sequence[Mapping[str, Any]] = status["conditions"]
    return (
        _counts(status),
        status["lastDecision"].get("reason"),
        {c["type"]: (c["status"], c["reason"], c.get("observedGeneration")) for c in conditions},
    )
