"""A day, squeezed into a test: an hourly profile played at any speed."""

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat

from trierarch_loadtests.shapes.stages import ShapeModel, Stage, warm_up_stage

DEEPSEEK_R1_HOURLY = (
    19.0, 22.0, 33.0, 29.0, 17.0, 14.0, 12.0, 9.0, 9.0, 11.0, 13.0, 13.0,
    7.0, 9.0, 11.0, 11.0, 14.0, 9.0, 12.0, 9.0, 20.0, 26.0, 35.0, 19.0,
)  # fmt: skip
"""Requests per second by hour of a day of DeepSeek-R1 (ServeGen, arXiv 2505.09999).

Only the ratios matter here.
"""


class DiurnalShape(ShapeModel):
    """Equal rows, one for each entry of the profile, scaled so that the highest is the peak."""

    kind: Literal["diurnal"]
    peak_rate_per_second: PositiveFloat
    day_seconds: PositiveFloat
    hourly_profile: tuple[PositiveFloat, ...] = Field(default=DEEPSEEK_R1_HOURLY, min_length=2)
    warm_up_seconds: NonNegativeFloat = 0.0

    def stages(self) -> list[Stage]:
        """Return the table."""
        row_seconds = self.day_seconds / len(self.hourly_profile)
        scale = self.peak_rate_per_second / max(self.hourly_profile)
        rates = [weight * scale for weight in self.hourly_profile]
        return [
            *warm_up_stage(self.warm_up_seconds, rates[0]),
            *(Stage(f"hour_{hour:02d}", row_seconds, rate) for hour, rate in enumerate(rates)),
        ]

    def with_peak(self, rate_per_second: float) -> Self:
        """Return the day with another peak, every hour scaled alike."""
        return self.model_copy(update={"peak_rate_per_second": rate_per_second})
