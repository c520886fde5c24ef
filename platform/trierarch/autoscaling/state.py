"""What the pipeline remembers between two decisions, as plain immutable values.

The state before a decision is written with its record; deciding again from the
record gives the state after it, so a new leader goes on where the old one stopped.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import TypeAdapter

from trierarch.autoscaling.expected_misses import USUAL_CAUTION, Deviations
from trierarch.autoscaling.forecasting import SLOW_SECONDS, ForecastState
from trierarch.autoscaling.lengths import Lengths
from trierarch.autoscaling.miss_curve import MissCurve
from trierarch.autoscaling.service_model import LearnedService
from trierarch.core.identifiers import VariantName


@dataclasses.dataclass(frozen=True, slots=True)
class Recommendation:
    """What the load asked for at one earlier decision, before anything held it back."""

    at_unix_seconds: float
    replicas: int


@dataclasses.dataclass(frozen=True, slots=True)
class ServedSample:
    """How many replicas served at a decision."""

    at_unix_seconds: float
    ready: int


_NO_CURVE = MissCurve()
_NO_FORECAST = ForecastState()
_NO_DEVIATIONS = Deviations()
_NO_LENGTHS = Lengths()


@dataclasses.dataclass(frozen=True, slots=True)
class SizingState:
    """Memory of the sizing.

    Attributes:
        curve: Misses by load.
        forecast: Of the demand.
        deviations: Of loads from plans.
        lengths: Of requests.
        caution: Price of a miss, as a multiple of what a steep curve needs.
        served: Ready replicas of the last minutes, oldest first.
        added_unix_seconds: When the pool last grew.
        began_unix_seconds: When requests first arrived.
    """

    curve: MissCurve = _NO_CURVE
    forecast: ForecastState = _NO_FORECAST
    deviations: Deviations = _NO_DEVIATIONS
    lengths: Lengths = _NO_LENGTHS
    caution: float = USUAL_CAUTION
    served: tuple[ServedSample, ...] = ()
    added_unix_seconds: float | None = None
    began_unix_seconds: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Scarcity:
    """A variant that was asked for and not given."""

    variant: VariantName
    at_unix_seconds: float


_NO_SIZING = SizingState()


@dataclasses.dataclass(frozen=True, slots=True)
class PipelineState:
    """The memory of one model deployment's pipeline.

    Attributes:
        last_decision_unix_seconds: Time of the last decision; None before the first.
        last_fresh_unix_seconds: When signals were last fresh; before the first, when they were
            first missed.
        last_addition_unix_seconds: When capacity was last asked for; None if it never was.
        recommendations: Of the longest window, oldest first.
        sizing: What was learned of misses, demand and forecasts.
        scarce: What lately could not be had.
        settled_replicas: How many should serve by the last decision; None before it.
        services: What was learned of each variant's speed.
    """

    last_decision_unix_seconds: float | None = None
    last_fresh_unix_seconds: float | None = None
    last_addition_unix_seconds: float | None = None
    recommendations: tuple[Recommendation, ...] = ()
    sizing: SizingState = _NO_SIZING
    scarce: tuple[Scarcity, ...] = ()
    settled_replicas: int | None = None
    services: tuple[LearnedService, ...] = ()

    def learned(self, at_unix_seconds: float) -> PipelineState:
        """Return what stays true when serving begins anew: how traffic and replicas behave.

        Times, counts of replicas and the error budget belong to the run that ended. Learned
        misses keep their weight, however long it ended ago, until new ones are counted.
        """
        forecast = ForecastState(
            losses=self.sizing.forecast.losses,
            judged=self.sizing.forecast.judged,
            slow=self.sizing.forecast.slow,
            began_unix_seconds=at_unix_seconds - SLOW_SECONDS,
            regression=self.sizing.forecast.regression,
        )
        curve = MissCurve(self.sizing.curve.bins)
        services = tuple(
            dataclasses.replace(service, batches=(), taught_unix_seconds=None)
            for service in self.services
        )
        return PipelineState(
            sizing=SizingState(
                curve=curve,
                forecast=forecast,
                deviations=dataclasses.replace(self.sizing.deviations, pending=()),
                lengths=Lengths(usual_output_tokens=self.sizing.lengths.usual_output_tokens),
            ),
            services=services,
        )

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
