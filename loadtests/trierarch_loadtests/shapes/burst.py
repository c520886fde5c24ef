"""Bursts: short peaks over a low floor, too short for a scale-up to be worth it."""

from typing import Literal, Self

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from trierarch_loadtests.shapes.stages import ShapeModel, Stage, warm_up_stage


class BurstShape(ShapeModel):
    """The same burst several times, each followed by a lull."""

    kind: Literal["burst"]
    base_rate_per_second: PositiveFloat
    burst_rate_per_second: PositiveFloat
    burst_seconds: PositiveFloat
    lull_seconds: PositiveFloat
    bursts: PositiveInt
    warm_up_seconds: NonNegativeFloat = 0.0

    def stages(self) -> list[Stage]:
        """Return the table; all bursts share a name, and so do all lulls."""
        table = warm_up_stage(self.warm_up_seconds, self.base_rate_per_second)
        for _ in range(self.bursts):
            table.append(Stage("burst", self.burst_seconds, self.burst_rate_per_second))
            table.append(Stage("lull", self.lull_seconds, self.base_rate_per_second))
        return table

    def with_peak(self, rate_per_second: float) -> Self:
        """Return the shape with another burst rate; the floor stays."""
        return self.model_copy(update={"burst_rate_per_second": rate_per_second})
