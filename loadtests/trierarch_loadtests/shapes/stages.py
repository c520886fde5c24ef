"""Stages: the table that every shape turns into.

A stage has a rate of *arrivals*, not a number of users: arrivals do not slow
down when the server does. Stages with ``measured`` false (warm-up) are sent and
counted, but stay out of latencies and the error ratio.
"""

import dataclasses
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """One row: a constant rate for some time."""

    name: str
    duration_seconds: float
    rate_per_second: float
    measured: bool = True


class ShapeModel(BaseModel):
    """What the shapes share: immutable, and a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def warm_up_stage(duration_seconds: float, rate_per_second: float) -> list[Stage]:
    """Return the unmeasured first row, or none if it would last no time."""
    if duration_seconds <= 0:
        return []
    return [Stage("warm_up", duration_seconds, rate_per_second, measured=False)]


def total_seconds(stages: Sequence[Stage]) -> float:
    """Return how long the table lasts."""
    return sum(stage.duration_seconds for stage in stages)


def stretch(stages: Sequence[Stage], factor: float) -> list[Stage]:
    """Return the table with every duration multiplied by ``factor``, rates unchanged."""
    return [
        dataclasses.replace(stage, duration_seconds=stage.duration_seconds * factor)
        for stage in stages
    ]
