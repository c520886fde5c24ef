"""A replica list that a test edits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from trierarch.core.errors import Unavailable
from trierarch.core.identifiers import ModelName, ReplicaId, VariantName
from trierarch.core.objectives import LatencyPromise
from trierarch.core.replicas import ReplicaEndpoint, ReplicaState
from trierarch.gateway.replicas import TimedAdmission


class StaticReplicaSource:
    """A ``ReplicaSource`` whose list is an attribute.

    Attributes:
        endpoints: What the next question is answered with.
        is_available: False makes the next question fail.
        models: Models that exist even without a replica.
        admissions: What the autoscaler says of models' lanes.
        promises: Latency objectives of models.
    """

    def __init__(
        self, endpoints: Iterable[ReplicaEndpoint] = (), models: Iterable[str] = ()
    ) -> None:
        self.endpoints = list(endpoints)
        self.is_available = True
        self.models = frozenset(ModelName(model) for model in models)
        self.admissions: dict[ModelName, TimedAdmission] = {}
        self.promises: dict[ModelName, LatencyPromise] = {}

    async def replicas(self) -> Sequence[ReplicaEndpoint]:
        """Return the list.

        Raises:
            Unavailable: If the test says so.
        """
        if not self.is_available:
            raise Unavailable("the test's replica source is switched off")
        return list(self.endpoints)

    def set_state(self, replica_id: str, state: ReplicaState) -> None:
        """Change one replica's state."""
        self.endpoints = [
            dataclasses.replace(endpoint, state=state)
            if endpoint.replica_id == replica_id
            else endpoint
            for endpoint in self.endpoints
        ]


def ready_replica(
    port: int,
    *,
    model: str = "simulated",
    replica_id: str = "",
    variant: str = "cpu",
    host: str = "127.0.0.1",
    state: ReplicaState = ReplicaState.READY,
    max_model_tokens: int = 4096,
) -> ReplicaEndpoint:
    """Return a replica at a local port."""
    return ReplicaEndpoint(
        replica_id=ReplicaId(replica_id or f"replica-{port}"),
        model=ModelName(model),
        variant=VariantName(variant),
        state=state,
        host=host,
        port=port,
        max_model_tokens=max_model_tokens,
    )
