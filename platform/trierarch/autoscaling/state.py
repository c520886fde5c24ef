"""What the pipeline remembers between two decisions, as plain immutable values.

The state before a decision is written with its record; deciding again from the
record gives the state after it, so a new leader goes on where the old one stopped.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import TypeAdapter


@dataclasses.dataclass(frozen=True, slots=True)
class Recommendation:
    """What the load asked for at one earlier decision, before anything held it back."""

    at_unix_seconds: float
    replicas: int


@dataclasses.dataclass(frozen=True, slots=True)
class PipelineState:
    """The memory of one model deployment's pipeline.

    Attributes:
        last_decision_unix_seconds: Time of the last decision; None before the first.
        last_fresh_unix_seconds: When signals were last fresh; before the first, when they were
            first missed.
        last_addition_unix_seconds: When capacity was last asked for; None if it never was.
        recommendations: Of the longest window, oldest first.
    """

    last_decision_unix_seconds: float | None = None
    last_fresh_unix_seconds: float | None = None
    last_addition_unix_seconds: float | None = None
    recommendations: tuple[Recommendation, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        record: dict[str, Any] = _STATE.dump_python(self, mode="json")
        return record

    @staticmethod
    def from_record(record: object) -> PipelineState:
        """Return the state that ``as_record`` wrote.

        Raises:
            ValueError: If the record is not one.
        """
        return _STATE.validate_python(record)


_STATE = TypeAdapter(PipelineState)
