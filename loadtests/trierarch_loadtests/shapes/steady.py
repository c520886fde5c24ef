"""One rate, held."""

from typing import Literal, Self

from pydantic import NonNegativeFloat, PositiveFloat

from trierarch_loadtests.shapes.stages import ShapeModel, Stage, warm_up_stage


class SteadyShape(ShapeModel):
    """A warm-up and then the same rate until the end."""

    kind: Literal["steady"]
    rate_per_second: PositiveFloat
    duration_seconds: PositiveFloat
    warm_up_seconds: NonNegativeFloat = 0.0

    def stages(self) -> list[Stage]:
        """Return the table."""
        return [
            *warm_up_stage(self.warm_up_seconds, self.rate_per_second),
            Stage("steady", self.duration_seconds, self.rate_per_second),
        ]

    def with_peak(self, rate_per_second: float) -> Self:
        """Return the shape at another rate."""
        return self.model_copy(update={"rate_per_second": rate_per_second})
