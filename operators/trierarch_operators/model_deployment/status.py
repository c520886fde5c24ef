"""The status that this controller owns: counts, and the conditions Available and Progressing.

Pure. What the autoscaler and the cost controller own is in other fields of the same status,
with field managers of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from trierarch_operators.conditions import Finding, build_conditions
from trierarch_operators.labels import DEPLOYMENT_LABEL, ROLE_LABEL
from trierarch_operators.model_deployment.failures import Failure

_MOST_WAITING_LENGTH = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class VariantState:
    """What is known of one variant after a reconciliation.

    Attributes:
        desired: Whole groups decided on.
        ready: Whole groups that serve.
        starting: Whole groups on their way.
        draining: Whole groups that finish what they have.
        is_updating: Whether a second cluster is made for a changed engine, or is on trial.
        is_replacing: Whether a cluster that another has replaced is still there.
        rolled_back: Why an update was taken back; empty if none was.
        problem: Why it cannot be run as it is written; empty if it can.
        problem_reason: CamelCase word for that.
        waiting: What is missing for a group that cannot be placed; empty if nothing is.
        failure: What keeps a group from serving that has its place; None if nothing is known to.
    """

    name: str
    ray_service: str = ""
    layout: str = ""
    desired: int = 0
    ready: int = 0
    starting: int = 0
    draining: int = 0
    is_updating: bool = False
    is_replacing: bool = False
    rolled_back: str = ""
    problem: str = ""
    problem_reason: str = ""
    waiting: str = ""
    failure: Failure | None = None


def find_conditions(
    variants: Sequence[VariantState], *, is_paused: bool, is_suspended: bool, is_deleting: bool
) -> tuple[Finding, ...]:
    """Return Available and Progressing."""
    return (
        _available(variants, is_suspended),
        _progressing(variants, is_paused, is_suspended, is_deleting),
    )


def _available(variants: Sequence[VariantState], is_suspended: bool) -> Finding:
    ready = sum(variant.ready for variant in variants)
    desired = sum(variant.desired for variant in variants)
    if ready:
        return Finding("Available", "True", "Serving", f"{ready} of {desired} groups serve")
    if is_suspended:
        return Finding("Available", "False", "Suspended", "spec.suspend is true")
    if not desired:
        return Finding("Available", "False", "ScaledToZero", "no group is asked for")
    return Finding("Available", "False", "NoReadyReplica", f"none of {desired} groups serves")


def _progressing(
    variants: Sequence[VariantState], is_paused: bool, is_suspended: bool, is_deleting: bool
) -> Finding:
    def finding(status: str, reason: str, message: str) -> Finding:
        return Finding("Progressing", status, reason, message)

    if is_deleting:
        return finding("True", "Deleting", "answers that run are finished, then all is removed")
    for variant in variants:
        if variant.problem:
            return finding("False", variant.problem_reason, variant.problem)
    if is_paused:
        return finding("False", "Paused", "spec.paused is true: nothing in the cluster is changed")
    for variant in variants:
        if variant.waiting:
            message = f"variant {variant.name}: {variant.waiting}"
            return finding("False", "InsufficientCapacity", message[:1000])
    for variant in variants:
        if variant.rolled_back:
            message = f"variant {variant.name}: {variant.rolled_back}"
            return finding("False", "RolledBack", message)
    for variant in variants:
        if variant.failure is not None:
            message = f"variant {variant.name}: {variant.failure.message}"
            return finding("False", variant.failure.reason, message)
    updating = [variant.name for variant in variants if variant.is_updating]
    if updating:
        message = f"{', '.join(updating)}: an update is on trial beside what served before"
        return finding("True", "Updating", message)
    missing = sum(max(0, variant.desired - variant.ready) for variant in variants)
    draining = sum(variant.draining for variant in variants)
    if missing:
        return finding("True", "Starting", f"{missing} groups are on their way")
    if draining:
        return finding("True", "Draining", f"{draining} groups finish what they have")
    if is_suspended:
        return finding("False", "Suspended", "spec.suspend is true")
    return finding("False", "Settled", "everything is as it was decided")


def build_status(
    name: str,
    generation: int,
    existing: Mapping[str, Any],
    variants: Sequence[VariantState],
    findings: Sequence[Finding],
    now_unix_seconds: float,
) -> dict[str, Any]:
    """Return the fields of the status that are this controller's."""
    return {
        "observedGeneration": generation,
        "replicas": sum(v.ready + v.starting for v in variants),
        "readyReplicas": sum(v.ready for v in variants),
        "desiredReplicas": sum(v.desired for v in variants),
        "selector": f"{DEPLOYMENT_LABEL}={name},{ROLE_LABEL}=engine",
        "variants": [
            {
                "name": v.name,
                "readyReplicas": v.ready,
                "startingReplicas": v.starting,
                "rayService": v.ray_service,
                "layout": v.layout,
                "waitingFor": v.waiting[:_MOST_WAITING_LENGTH],
            }
            for v in variants
        ],
        "conditions": build_conditions(
            findings, existing.get("conditions", ()), generation, now_unix_seconds
        ),
    }
