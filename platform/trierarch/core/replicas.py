"""A replica as the outside sees it: where it listens and what it can do now."""

from __future__ import annotations

import dataclasses
from enum import StrEnum

from trierarch.core.identifiers import ModelName, ReplicaId, VariantName

DRAINED_REASON = "Drained"
"""Last word of a replica whose answers are all out: what carried it may go at once."""


class ReplicaState(StrEnum):
    """The four facts an autoscaler and a router must tell apart."""

    STARTING = "starting"
    """Exists and costs money, does not serve yet."""
    READY = "ready"
    """Serves."""
    DRAINING = "draining"
    """Takes nothing new, finishes what runs, still costs money."""
    FAILED = "failed"
    """Cannot serve and will be replaced."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReplicaEndpoint:
    """One expert-parallel group and the HTTP address of its engine's OpenAI server.

    Attributes:
        replica_id: Unique over restarts.
        model: Served model name.
        variant: Which way of running the model this is.
        state: What it can do now.
        host: Address to connect to; empty until the server listens.
        port: TCP port; 0 until the server listens.
        started_unix_seconds: When it began to cost money.
        ready_unix_seconds: When it first served; None until then.
        reason: CamelCase word for the state ("LoadingModel", "EngineDead", ...).
        max_model_tokens: Context length of the engine; 0 until known.
    """

    replica_id: ReplicaId
    model: ModelName
    variant: VariantName
    state: ReplicaState
    host: str = ""
    port: int = 0
    started_unix_seconds: float = 0.0
    ready_unix_seconds: float | None = None
    reason: str = ""
    max_model_tokens: int = 0
