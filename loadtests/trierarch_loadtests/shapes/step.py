"""A step: gentle, then suddenly more than one replica can serve, then quiet.

The step lasts through a replica's cold start and beyond it, in two rows of the
same rate: ``overload``, while the new replica starts, and ``scaled``, when it
should be there. The quiet end is long enough to see the replica go again.
"""

from typing import Literal, Self

from pydantic import NonNegativeFloat, PositiveFloat

from trierarch_loadtests.shapes.stages import ShapeModel, Stage, warm_up_stage


class StepShape(ShapeModel):
    """Base rate, step rate, base rate."""

    kind: Literal["step"]
    base_rate_per_second: PositiveFloat
    step_rate_per_second: PositiveFloat
    warm_up_seconds: NonNegativeFloat = 0.0
    overload_seconds: PositiveFloat
    scaled_seconds: PositiveFloat
    quiet_seconds: PositiveFloat

    def stages(self) -> list[Stage]:
        """Return the table."""
        return [
            *warm_up_stage(self.warm_up_seconds, self.base_rate_per_second),
            Stage("overload", self.overload_seconds, self.step_rate_per_second),
            Stage("scaled", self.scaled_seconds, self.step_rate_per_second),
            Stage("quiet", self.quiet_seconds, self.base_rate_per_second),
        ]

    def with_peak(self, rate_per_second: float) -> Self:
        """Return the shape with another step rate; the base rate stays."""
        return self.model_copy(update={"step_rate_per_second": rate_per_second})
