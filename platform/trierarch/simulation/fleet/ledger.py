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


def replica_hours(lives: list[ReplicaLife]) -> float:
    """Return the integral of the number of replicas over time."""
    seconds = math.fsum(life.released_seconds - life.provisioned_seconds for life in lives)
    return seconds / SECONDS_PER_HOUR


def cost_usd(setup: FleetSetup, lives: list[ReplicaLife]) -> float:
    """Return what all replicas cost, at the prices of their time."""
    return math.fsum(
        setup.variants[life.variant].price.charge_usd(
            life.provisioned_seconds, life.released_seconds
        )
        for life in lives
    )
