"""The book of replicas: who existed when, and what that costs.

A replica is charged from provisioning to release; starting and draining time is
paid for like serving time.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.simulation.fleet.setup import SECONDS_PER_HOUR, FleetSetup


@dataclasses.dataclass(slots=True)
class ReplicaLife:
    """One replica from provisioning to release; times not reached are infinite."""

    serial: int
    variant: int
    slot: int
    provisioned_seconds: float
    ready_seconds: float
    serving_seconds: float = math.inf
    drain_seconds: float = math.inf
    released_seconds: float = math.inf
    reclaimed: bool = False
    busy_seconds: float = 0.0
    most_kv_tokens: int = 0


def replica_seconds(lives: list[ReplicaLife], end_seconds: float) -> float:
    """Return the integral of the number of replicas up to ``end_seconds``."""
    return math.fsum(
        max(0.0, min(life.released_seconds, end_seconds) - life.provisioned_seconds)
        for life in lives
    )


def replica_hours(lives: list[ReplicaLife], end_seconds: float) -> float:
    """Return the same in hours."""
    return replica_seconds(lives, end_seconds) / SECONDS_PER_HOUR


def cost_usd(setup: FleetSetup, lives: list[ReplicaLife], end_seconds: float) -> float:
    """Return what all replicas cost up to ``end_seconds``, at the prices of their time."""
    return math.fsum(
        setup.variants[life.variant].price.charge_usd(
            life.provisioned_seconds, min(life.released_seconds, end_seconds)
        )
        for life in lives
    )
