"""When requests start: an arrival law bent along a table of rates.

Gaps are drawn with mean one and mapped through the inverse of the summed rate.
For the Poisson law that is exactly the Poisson process with the table's rate;
the other laws keep their regularity or burstiness and follow the same rates.
"""

import dataclasses
import random
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trierarch_loadtests.shapes.stages import Stage


class ArrivalLaw(BaseModel):
    """How irregular the gaps between requests are, at the same mean rate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    law: Literal["poisson", "constant", "gamma"] = "poisson"
    gap_variation: float = Field(default=1.0, gt=0.0, le=20.0)
    """Coefficient of variation of ``gamma`` gaps: 1 is Poisson, above 1 comes in bunches."""

    def draw_gap(self, generator: random.Random) -> float:
        """Return one gap with mean one."""
        if self.law == "constant":
            return 1.0
        if self.law == "poisson":
            return generator.expovariate(1.0)
        shape = 1.0 / self.gap_variation**2
        return generator.gammavariate(shape, 1.0 / shape)


@dataclasses.dataclass(frozen=True, slots=True)
class Arrival:
    """One planned start, in seconds after the beginning of the run."""

    seconds: float
    stage: Stage


def arrivals(
    law: ArrivalLaw, stages: Sequence[Stage], generator: random.Random
) -> Iterator[Arrival]:
    """Yield every planned start of the table, in order.

    A rate of zero is legal: no arrival falls into that row.
    """
    target = law.draw_gap(generator)
    summed_rate = 0.0
    start_seconds = 0.0
    for stage in stages:
        row_total = stage.rate_per_second * stage.duration_seconds
        while target < summed_rate + row_total:
            offset = (target - summed_rate) / stage.rate_per_second
            yield Arrival(start_seconds + offset, stage)
            target += law.draw_gap(generator)
        summed_rate += row_total
        start_seconds += stage.duration_seconds
