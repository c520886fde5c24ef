"""Demand in one unit: replicas' worth of work that arrives, long prompts counting as such.

The unit is fixed by the spec, so that what was learned of it stays comparable: a
replica that is full all the time does one unit. Where the spec says nothing of
speed, a unit is a thousand output tokens a second, and only ratios matter.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from trierarch.autoscaling.lengths import MATURE_SECONDS, Lengths
from trierarch.autoscaling.load import Load, fresh_value, hold_after_seconds
from trierarch.autoscaling.signals import Observation, Signal
from trierarch.autoscaling.specification import ScalingSpec, ServicePrior, VariantSpec

_NO_LENGTHS = Lengths()

SEATS_WITHOUT_LIMIT = 128
INPUT_TOKEN_SECONDS = 1e-4
OUTPUT_TOKEN_SECONDS = 1e-3
"""Work of a token where nothing is known; output is dearer by what providers charge for it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Workload:
    """What arrives.

    Attributes:
        requests_per_second: Interactive lanes.
        request_seconds: Share of a replica's time that the mean request takes.
        computed_input_tokens: Of the mean request, cached ones excluded.
        input_tokens: Of the mean request.
        output_tokens: Of the mean request.
        flex_ratio: Flex requests' share of all that arrive; they take time from the others.
    """

    requests_per_second: float
    request_seconds: float
    input_tokens: float
    computed_input_tokens: float
    output_tokens: float
    flex_ratio: float = 0.0

    @property
    def demand(self) -> float:
        """Replicas' worth of work per second."""
        return self.requests_per_second * self.request_seconds


def measure_workload(
    observation: Observation,
    spec: ScalingSpec,
    load: Load,
    known: Lengths = _NO_LENGTHS,
    *,
    served_seconds: float = math.inf,
) -> Workload | None:
    """Return what arrives; None while arrivals or lengths are not known.

    Args:
        observation: Signals.
        spec: Says how fast a replica is.
        load: The same signals, read.
        known: What is remembered of lengths.
        served_seconds: Since requests began to arrive.
    """
    arrivals = load.arrivals_per_second
    if arrivals is None:
        return None
    lengths = mean_lengths(observation, spec)
    if lengths is None:
        return None
    inputs, outputs = lengths
    outputs = known.output_tokens(outputs, served_seconds)
    computed = inputs * (1.0 - cached_ratio(observation, spec))
    seconds = request_seconds(reference_variant(spec), inputs, computed, outputs)
    flex = fresh_value(
        observation.gateway.arrivals_per_second.flex,
        now_unix_seconds=observation.now_unix_seconds,
        hold_after=hold_after_seconds(spec),
    )
    flex_ratio = flex / (flex + arrivals) if flex else 0.0
    return Workload(arrivals, seconds, inputs, computed, outputs, flex_ratio)


def mean_lengths(observation: Observation, spec: ScalingSpec) -> tuple[float, float] | None:
    """Return prompt and output tokens of the mean request; None while they are not known."""
    gateway, now = observation.gateway, observation.now_unix_seconds
    hold_after = hold_after_seconds(spec)
    inputs = fresh_value(gateway.mean_input_tokens, now_unix_seconds=now, hold_after=hold_after)
    outputs = fresh_value(gateway.mean_output_tokens, now_unix_seconds=now, hold_after=hold_after)
    return None if inputs is None or outputs is None else (inputs, outputs)


def learn_lengths(
    lengths: Lengths,
    observation: Observation,
    spec: ScalingSpec,
    *,
    elapsed_seconds: float,
    served_seconds: float,
) -> Lengths:
    """Return what is remembered of lengths after an interval.

    Args:
        lengths: Until now.
        observation: Signals.
        spec: For the ages that matter.
        elapsed_seconds: Length of the interval.
        served_seconds: Since requests began to arrive.
    """
    ended = mean_lengths(observation, spec) if served_seconds >= MATURE_SECONDS else None
    return lengths.learned(
        elapsed_seconds,
        generated_per_second=_generated_per_second(observation, spec),
        arrivals_per_second=_arrivals_per_second(observation, spec),
        measured=None if ended is None else ended[1],
    )


def _generated_per_second(observation: Observation, spec: ScalingSpec) -> float | None:
    """Return the tokens that all serving engines generate; None if one does not tell."""
    serving = [v.engine.output_tokens_per_second for v in observation.variants if v.ready]
    known = _fresh_values(serving, observation, spec)
    return math.fsum(known) if known and len(known) == len(serving) else None


def _arrivals_per_second(observation: Observation, spec: ScalingSpec) -> float | None:
    """Return the requests of all lanes that report; None if none does."""
    tiers = observation.gateway.arrivals_per_second
    known = _fresh_values((tiers.priority, tiers.default, tiers.flex), observation, spec)
    return math.fsum(known) if known else None


def _fresh_values(
    signals: Sequence[Signal], observation: Observation, spec: ScalingSpec
) -> list[float]:
    now, hold_after = observation.now_unix_seconds, hold_after_seconds(spec)
    values = [fresh_value(found, now_unix_seconds=now, hold_after=hold_after) for found in signals]
    return [value for value in values if value is not None]


def reference_variant(spec: ScalingSpec) -> VariantSpec:
    """Return the variant whose replicas are the unit: the first that says how fast it is."""
    return next((v for v in spec.variants if v.service_prior is not None), spec.variants[0])


def request_seconds(
    variant: VariantSpec, input_tokens: float, computed_input_tokens: float, output_tokens: float
) -> float:
    """Return the share of a full replica's time that one request takes."""
    prior = variant.service_prior
    steps = max(1.0, output_tokens)
    if prior is None:
        return INPUT_TOKEN_SECONDS * computed_input_tokens + OUTPUT_TOKEN_SECONDS * steps
    context = prior.context_token_seconds * (input_tokens + output_tokens / 2.0)
    return computed_input_tokens * prior.prefill_token_seconds + steps * (
        _fixed_step_share(prior, variant.max_running_requests) + context
    )


def saturated_load(
    spec: ScalingSpec, workload: Workload, service: ServicePrior | None
) -> float | None:
    """Return the load per replica beyond which the mean request misses; None without a service.

    Token capacity is bound by seats, by KV memory or by compute, whichever ends first: a step
    that holds n requests takes ``(base + n x own) / (1 - share that prefills take)``, and n
    follows from how long requests stay. At the limit a step takes what the objective allows, or
    every seat is taken.

    Args:
        spec: Seats, memory and objective.
        workload: The mean request.
        service: How fast a replica of the reference variant is believed to be now.
    """
    variant = reference_variant(spec)
    if service is None or workload.request_seconds <= 0:
        return None
    outputs = max(1.0, workload.output_tokens)
    context = workload.input_tokens + outputs / 2.0
    own = service.decode_token_seconds + service.context_token_seconds * context
    base = service.step_seconds + service.expert_seconds
    prefill = workload.computed_input_tokens * service.prefill_token_seconds
    seats = float(variant.max_running_requests or math.inf)
    if variant.kv_capacity_tokens is not None:
        seats = min(seats, variant.kv_capacity_tokens / context)
    # Every seat taken: seats = rate x outputs x step, with the share of prefills in the step.
    rate = math.inf
    if math.isfinite(seats) and (busy := outputs * (base / seats + own) + prefill) > 0:
        rate = 1.0 / busy
    limit = None if spec.slo is None else spec.slo.tpot_seconds
    if limit is not None:
        # A step as long as the objective: the rest of the time is for the requests' own work.
        work = prefill + outputs * own
        rate = min(rate, max(0.0, 1.0 - base / limit) / work) if work > 0 else rate
    if not math.isfinite(rate) or rate <= 0:
        return None
    return rate * workload.request_seconds * (1.0 - workload.flex_ratio)


def _fixed_step_share(prior: ServicePrior, seats: int | None) -> float:
    """Return one request's share of what a full batch's step costs beside its own context."""
    shared = prior.step_seconds + prior.expert_seconds
    return shared / (seats or SEATS_WITHOUT_LIMIT) + prior.decode_token_seconds


def cached_ratio(observation: Observation, spec: ScalingSpec) -> float:
    """Return the share of the prompt tokens that prefix caches hold; 0 if nothing tells."""
    hold_after = hold_after_seconds(spec)
    now = observation.now_unix_seconds
    computed = cached = 0.0
    for variant in observation.variants:
        engine = variant.engine
        mine = fresh_value(
            engine.input_tokens_per_second, now_unix_seconds=now, hold_after=hold_after
        )
        hits = fresh_value(
            engine.cached_tokens_per_second, now_unix_seconds=now, hold_after=hold_after
        )
        computed += mine or 0.0
        cached += hits or 0.0
    return cached / (computed + cached) if computed + cached > 0 else 0.0
