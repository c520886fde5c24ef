"""What the pipeline remembers between two decisions, as plain immutable values.

The state is written with every decision record and read back after a restart,
so a new leader goes on where the old one stopped.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import TypeAdapter


@dataclasses.dataclass(frozen=True, slots=True)
class PipelineState:
    """The memory of one model deployment's pipeline.

    Attributes:
        last_decision_unix_seconds: Time of the last decision; None before the first.
    """

    last_decision_unix_seconds: float | None = None

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
