"""Demand in one unit: replicas' worth of work that arrives, long prompts counting as such.

One unit is what a replica of the spec's speed serves at its limit: as many requests
of the mean kind as its seats and the objective bear. So a load means about the same
whatever the requests are like, and what was learned at one mix serves at another.
Where the spec says nothing of speed, a unit is a thousand output tokens a second,
and only ratios matter.
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
        request_seconds: Time of a replica at its limit that the mean request takes.
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
    seconds = request_seconds(spec, inputs, computed, outputs)
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
    spec: ScalingSpec, input_tokens: float, computed_input_tokens: float, output_tokens: float
) -> float:
    """Return the time of a replica at its limit that one request takes.

    An objective that no step is short enough for sets no limit: then it is the time in a full
    replica.
    """
    variant = reference_variant(spec)
    service = variant.service_prior
    if service is None:
        steps = max(1.0, output_tokens)
        return INPUT_TOKEN_SECONDS * computed_input_tokens + OUTPUT_TOKEN_SECONDS * steps
    request = _Request.of(service, input_tokens, computed_input_tokens, output_tokens)
    limits = [
        request.full_seconds(_seats(variant, request) or SEATS_WITHOUT_LIMIT),
        request.in_time_seconds(spec),
    ]
    return max(seconds for seconds in limits if seconds is not None and math.isfinite(seconds))


def saturated_load(
    spec: ScalingSpec, workload: Workload, service: ServicePrior | None
) -> float | None:
    """Return the load per replica beyond which the mean request misses; None without a service.

    It is 1 where a replica is as fast as the spec says.

    Args:
        spec: Seats, memory and objective.
        workload: The mean request.
        service: How fast a replica of the reference variant is believed to be now.
    """
    if service is None or workload.request_seconds <= 0:
        return None
    request = _Request.of(
        service, workload.input_tokens, workload.computed_input_tokens, workload.output_tokens
    )
    seats = _seats(reference_variant(spec), request)
    limits = [None if seats is None else request.full_seconds(seats), request.in_time_seconds(spec)]
    seconds = max((found for found in limits if found is not None), default=0.0)
    if seconds <= 0 or not math.isfinite(seconds):
        return None
    return workload.request_seconds / seconds * (1.0 - workload.flex_ratio)


@dataclasses.dataclass(frozen=True, slots=True)
class _Request:
    """What the mean request takes of a replica.

    A step that holds n requests takes ``(base + n x own) / (1 - share that prefills take)``, and n
    follows from how long requests stay. Token capacity is bound by seats, by KV memory or by
    compute, whichever ends first.

    Attributes:
        base_seconds: Of a step, whatever it holds.
        own_seconds: Of a step, for each request in it.
        prefill_seconds: Of the prompt.
        outputs: Tokens, one a step.
        context_tokens: Held on average.
    """

    base_seconds: float
    own_seconds: float
    prefill_seconds: float
    outputs: float
    context_tokens: float

    @staticmethod
    def of(
        service: ServicePrior,
        input_tokens: float,
        computed_input_tokens: float,
        output_tokens: float,
    ) -> _Request:
        outputs = max(1.0, output_tokens)
        context = input_tokens + outputs / 2.0
        return _Request(
            base_seconds=service.step_seconds + service.expert_seconds,
            own_seconds=service.decode_token_seconds + service.context_token_seconds * context,
            prefill_seconds=computed_input_tokens * service.prefill_token_seconds,
            outputs=outputs,
            context_tokens=context,
        )

    def full_seconds(self, seats: float) -> float:
        """Return its share of a replica's time with every seat taken."""
        return self.outputs * (self.base_seconds / seats + self.own_seconds) + self.prefill_seconds

    def in_time_seconds(self, spec: ScalingSpec) -> float | None:
        """Return its share where steps take as long as the objective allows; None without one."""
        limit = None if spec.slo is None else spec.slo.tpot_seconds
        if limit is None:
            return None
        # The rest of the time is for the requests' own work.
        left = 1.0 - self.base_seconds / limit
        work = self.prefill_seconds + self.outputs * self.own_seconds
        return work / left if left > 0 else math.inf


def _seats(variant: VariantSpec, request: _Request) -> float | None:
    """Return how many requests a replica holds at once; None if nothing limits them."""
    limits: list[float] = []
    if variant.max_running_requests is not None:
        limits.append(variant.max_running_requests)
    if variant.kv_capacity_tokens is not None:
        limits.append(max(1.0, variant.kv_capacity_tokens / request.context_tokens))
    return min(limits, default=None)


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
