"""How fast one replica is, learned while it serves.

A step that runs n requests takes

    T(n) = a + n (b t_c + g t_m) + e (1 - (1 - s)^n)

with t_c the tokens computed per request and step (its share of the prompt and
one output token), t_m the tokens of context it reads, and s the share of the
experts one token touches, so that the last term is the time to read the
distinct experts of a batch. The four coefficients are tracked by a Kalman
filter, which is recursive least squares whose memory fades. Samples from
replicas that have just started are left out: an empty cache is not the model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from trierarch.autoscaling.specification import ServicePrior, VariantSpec
from trierarch.core.identifiers import VariantName

Vector = tuple[float, float, float, float]

RELATIVE_NOISE = 0.05
"""Standard deviation of one measured time per output token, relative to it."""

RELATIVE_DRIFT = 0.002
"""How far a coefficient may move between two samples, relative to a step's time."""

PRIOR_SPREAD_RATIO = 0.4
"""Standard deviation of a prior coefficient, relative to it."""

FIRST_SPREAD_RATIO = 1.0
"""The same for coefficients guessed from the first sample."""

MINIMUM_SAMPLES = 10
"""Before this many, the model is what was believed, not what was learned."""

RESIDUAL_RATE = 0.1
"""Weight of the newest residual in the mean that decides whether the model is trusted."""

TRUSTED_RESIDUAL_RATIO = 0.3
"""A model that misses by more than this is not used."""

EXTRAPOLATION_RATIO = 3.0
"""Batches up to this many times the largest one seen are predicted without a prior."""

CONTEXT_SCALE_TOKENS = 1000.0
"""Brings the context feature to the size of the others, for a well-conditioned filter."""


@dataclasses.dataclass(frozen=True, slots=True)
class RequestShape:
    """The mean request.

    Attributes:
        input_tokens: Prompt, cached part included.
        cached_tokens: The part found in a prefix cache.
        output_tokens: Generated, at least 1.
    """

    input_tokens: float
    cached_tokens: float
    output_tokens: float

    @property
    def computed_input_tokens(self) -> float:
        """Prompt tokens that have to be computed."""
        return max(0.0, self.input_tokens - self.cached_tokens)

    @property
    def computed_per_step_tokens(self) -> float:
        """Tokens computed per request and step, its prompt spread over its steps."""
        return (self.computed_input_tokens + self.output_tokens) / (self.output_tokens + 1.0)

    @property
    def context_tokens(self) -> float:
        """Mean context while it decodes."""
        return self.input_tokens + self.output_tokens / 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class StepSample:
    """One measurement: what a replica ran and how long a step took.

    Attributes:
        running_requests: Mean batch of one replica over the life of the requests measured.
        step_seconds: Mean time per output token.
        shape: The mean request then.
    """

    running_requests: float
    step_seconds: float
    shape: RequestShape


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceModel:
    """What is known of one variant's speed.

    Attributes:
        coefficients: a, b, g (per thousand tokens of context), e; None before anything is known.
        covariance: Four rows of four, of the coefficients.
        samples: How many measurements were taken in.
        residual_ratio: Mean relative miss of the prediction before each measurement.
        largest_running_requests: Largest batch a measurement was taken at.
        has_prior: Whether the first coefficients came from the spec.
    """

    coefficients: Vector | None = None
    covariance: tuple[Vector, Vector, Vector, Vector] | None = None
    samples: int = 0
    residual_ratio: float = 1.0
    largest_running_requests: float = 0.0
    has_prior: bool = False

    @property
    def is_usable(self) -> bool:
        """Whether predictions may steer: by a prior, or by enough samples that fit."""
        if self.coefficients is None:
            return False
        if self.samples < MINIMUM_SAMPLES:
            return self.has_prior
        return self.residual_ratio <= TRUSTED_RESIDUAL_RATIO

    @property
    def is_learned(self) -> bool:
        """Whether what was measured may replace what was believed."""
        return self.samples >= MINIMUM_SAMPLES and self.is_usable

    @property
    def running_limit(self) -> float:
        """Largest batch that may be predicted; infinite with a prior."""
        if self.has_prior:
            return math.inf
        return max(1.0, EXTRAPOLATION_RATIO * self.largest_running_requests)

    def steps_of(self, shape: RequestShape, expert_share_ratio: float) -> StepTime:
        """Return the step time of batches of such requests.

        Raises:
            ValueError: If nothing is known yet.
        """
        if self.coefficients is None:
            raise ValueError("a service model without coefficients predicts nothing")
        base, computed, context, experts = self.coefficients
        context_seconds = context * shape.context_tokens / CONTEXT_SCALE_TOKENS
        return StepTime(
            base_seconds=base,
            request_seconds=computed * shape.computed_per_step_tokens + context_seconds,
            expert_seconds=experts,
            expert_share_ratio=expert_share_ratio,
            prefill_seconds=computed * shape.computed_input_tokens,
            output_tokens=shape.output_tokens,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class BatchSample:
    """What the ready replicas of a variant ran at one decision.

    Attributes:
        at_unix_seconds: When.
        ready: Replicas.
        running_requests: In all their batches together.
    """

    at_unix_seconds: float
    ready: int
    running_requests: float


@dataclasses.dataclass(frozen=True, slots=True)
class LearnedService:
    """What one variant's metrics have taught, and what the next lesson needs.

    Attributes:
        variant: Whose.
        model: Of its replicas.
        batches: Of the last minutes, oldest first.
        taught_unix_seconds: When a measurement was last taken in; None before the first.
        slowness_ratio: Mean of measured over believed step times; 1 without a belief.
    """

    variant: VariantName
    model: ServiceModel
    batches: tuple[BatchSample, ...] = ()
    taught_unix_seconds: float | None = None
    slowness_ratio: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class StepTime:
    """T(n) for one mix of requests.

    Attributes:
        base_seconds: Of an empty step.
        request_seconds: Per request in the batch.
        expert_seconds: To read every expert.
        expert_share_ratio: Share one token touches.
        prefill_seconds: Own prefill of one request on top of the step it runs in.
        output_tokens: Per request.
    """

    base_seconds: float
    request_seconds: float
    expert_seconds: float
    expert_share_ratio: float
    prefill_seconds: float
    output_tokens: float

    def step_seconds(self, running_requests: float) -> float:
        """Return T(n)."""
        return (
            self.base_seconds
            + self.request_seconds * running_requests
            + self.expert_seconds * touched_ratio(self.expert_share_ratio, running_requests)
        )

    def first_token_seconds(self, running_requests: float) -> float:
        """Return the time to the first token once a request is in the batch."""
        return self.step_seconds(running_requests) + self.prefill_seconds

    def residence_seconds(self, running_requests: float) -> float:
        """Return how long a request stays in a batch of n."""
        return self.first_token_seconds(running_requests) + self.step_seconds(
            running_requests
        ) * max(0.0, self.output_tokens - 1.0)

    def throughput_per_second(self, running_requests: float) -> float:
        """Return requests finished per second by a replica that holds n."""
        residence = self.residence_seconds(running_requests)
        return running_requests / residence if residence > 0 else 0.0


def touched_ratio(expert_share_ratio: float, running_requests: float) -> float:
    """Return the share of the experts that a batch touches."""
    if expert_share_ratio <= 0 or running_requests <= 0:
        return 0.0
    if expert_share_ratio >= 1:
        return 1.0
    return -math.expm1(running_requests * math.log1p(-expert_share_ratio))


def initial_model(variant: VariantSpec) -> ServiceModel:
    """Return what is believed before the first measurement."""
    prior = variant.service_prior
    if prior is None:
        return ServiceModel()
    coefficients = _prior_coefficients(prior)
    step = max(prior.step_seconds, 1e-6)
    return ServiceModel(
        coefficients=coefficients,
        covariance=_diagonal(PRIOR_SPREAD_RATIO * v + 0.01 * step for v in coefficients),
        residual_ratio=RELATIVE_NOISE,
        has_prior=True,
    )


def _prior_coefficients(prior: ServicePrior) -> Vector:
    return (
        prior.step_seconds,
        max(prior.prefill_token_seconds, prior.decode_token_seconds),
        prior.context_token_seconds * CONTEXT_SCALE_TOKENS,
        prior.expert_seconds,
    )


def learn_step(model: ServiceModel, sample: StepSample, expert_share_ratio: float) -> ServiceModel:
    """Return the model after one measurement; implausible ones change nothing."""
    running, measured = sample.running_requests, sample.step_seconds
    if not (math.isfinite(running) and math.isfinite(measured) and running > 0 and measured > 0):
        return model
    features: Vector = (
        1.0,
        running * sample.shape.computed_per_step_tokens,
        running * sample.shape.context_tokens / CONTEXT_SCALE_TOKENS,
        touched_ratio(expert_share_ratio, running),
    )
    coefficients, covariance = model.coefficients, model.covariance
    if coefficients is None or covariance is None:
        coefficients, covariance = _first_guess(features, measured, expert_share_ratio)
    miss = measured - _dot(coefficients, features)
    rows = [list(row) for row in covariance]
    for index, (value, feature) in enumerate(zip(coefficients, features, strict=True)):
        least = 0.01 * measured / feature if feature > 0 else 0.0
        rows[index][index] += (RELATIVE_DRIFT * max(value, least)) ** 2
    gains = [_dot(row, features) for row in rows]
    variance = _dot(gains, features) + (RELATIVE_NOISE * measured) ** 2
    learned = [v + gain * miss / variance for v, gain in zip(coefficients, gains, strict=True)]
    reduced = [
        [value - gain * other / variance for value, other in zip(row, gains, strict=True)]
        for row, gain in zip(rows, gains, strict=True)
    ]
    return dataclasses.replace(
        model,
        # A negative coefficient would let a larger batch look faster.
        coefficients=_vector(max(0.0, value) for value in learned),
        covariance=(
            _vector(reduced[0]),
            _vector(reduced[1]),
            _vector(reduced[2]),
            _vector(reduced[3]),
        ),
        samples=model.samples + 1,
        residual_ratio=_mean_residual(model, abs(miss) / measured),
        largest_running_requests=max(model.largest_running_requests, running),
    )


def _mean_residual(model: ServiceModel, newest_ratio: float) -> float:
    """Return the mean miss; the first samples count fully, so that a bad start is forgotten."""
    rate = max(RESIDUAL_RATE, 1.0 / (model.samples + 1))
    return (1.0 - rate) * model.residual_ratio + rate * newest_ratio


def _first_guess(
    features: Vector, measured: float, expert_share_ratio: float
) -> tuple[Vector, tuple[Vector, Vector, Vector, Vector]]:
    """Return coefficients that explain one measurement, with little trust in each."""
    shares = (0.6, 0.2, 0.1, 0.1) if expert_share_ratio > 0 else (0.7, 0.2, 0.1, 0.0)
    guess = _vector(
        share * measured / feature if feature > 0 else 0.0
        for share, feature in zip(shares, features, strict=True)
    )
    return guess, _diagonal(FIRST_SPREAD_RATIO * value for value in guess)


def _dot(left: Iterable[float], right: Iterable[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def _vector(values: Iterable[float]) -> Vector:
    first, second, third, fourth = values
    return first, second, third, fourth


def _diagonal(spreads: Iterable[float]) -> tuple[Vector, Vector, Vector, Vector]:
    first, second, third, fourth = (spread * spread for spread in spreads)
    return (
        (first, 0.0, 0.0, 0.0),
        (0.0, second, 0.0, 0.0),
        (0.0, 0.0, third, 0.0),
        (0.0, 0.0, 0.0, fourth),
    )
