"""Controllers that do not look at the load: a fixed fleet, and a schedule made beforehand."""

from __future__ import annotations

from collections.abc import Sequence

from trierarch.core.admission import OPEN
from trierarch.simulation.fleet.replicas import ReplicaPool
from trierarch.simulation.fleet.setup import FleetSetup
from trierarch.simulation.fleet.snapshot import FleetSnapshot


class StaticController:
    """Holds a fixed number of replicas per variant."""

    admission = OPEN

    def __init__(self, replicas: Sequence[int], *, name: str = "static") -> None:
        self._replicas = tuple(replicas)
        self.name = name
        self.tick_seconds: float | None = None

    def begin(self, setup: FleetSetup, pool: ReplicaPool) -> None:
        """Check that there is one number per variant."""
        if len(self._replicas) != len(setup.variants):
            raise ValueError(f"static needs {len(setup.variants)} counts, got {self._replicas}")

    def decide(self, snapshot: FleetSnapshot) -> Sequence[int]:
        """Return the fixed numbers."""
        return self._replicas
