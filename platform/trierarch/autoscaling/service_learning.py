"""Teaches each variant's service model from what its engines report at every decision.

A measurement is the mean time per output token of the requests that ended lately,
beside the mean batch while they ran. Both come from the observation and the lessons
are part of the pipeline's state, so a replayed decision learns the same.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

from trierarch.autoscaling.load import fresh_latency, fresh_value, hold_after_seconds
from trierarch.autoscaling.service_model import (
    CONTEXT_SCALE_TOKENS,
    BatchSample,
    LearnedService,
    RequestShape,
    ServiceModel,
    StepSample,
    initial_model,
    learn_step,
    touched_ratio,
)
from trierarch.autoscaling.signals import Observation, VariantObservation
from trierarch.autoscaling.specification import ScalingSpec, ServicePrior, VariantSpec
from trierarch.autoscaling.workload import cached_ratio, mean_lengths

LESSON_SECONDS = 30.0
"""Between two lessons. Latencies are of the last minute: sooner, a lesson would be the one before
it once more, and be believed twice."""

LATENCY_WINDOW_SECONDS = 60.0
"""The window that latencies are of."""

KEPT_SECONDS = 300.0
"""Batches kept; requests that stay longer are taken to have met the mean of these."""

FRESH_SECONDS = 60.0
"""A replica this new has empty batches and caches: what is seen then is not learned."""

SLOWNESS_RATE = 0.1
"""Weight of the newest measurement in the mean slowness."""

_PRIOR_SECONDS = (
    "step_seconds",
    "expert_seconds",
    "prefill_token_seconds",
    "decode_token_seconds",
    "context_token_seconds",
)

LEAST_SAMPLES = 5
"""Requests in a latency window that is learned from."""

Services = tuple[LearnedService, ...]
"""One per variant that has served."""


def teach_services(observation: Observation, spec: ScalingSpec, services: Services) -> Services:
    """Return the models after this observation.

    Args:
        observation: Fresh; what is stale or missing in it teaches nothing.
        spec: For what is believed of a variant seen for the first time.
        services: What the last decision left.
    """
    known = {service.variant: service for service in services}
    shape = _mean_request(observation, spec)
    for variant in observation.variants:
        before = known.get(variant.name)
        running = fresh_value(
            variant.engine.running_requests,
            now_unix_seconds=observation.now_unix_seconds,
            hold_after=hold_after_seconds(spec),
        )
        if before is None and (running is None or not variant.ready):
            continue
        if before is None:
            before = LearnedService(variant.name, initial_model(spec.variant(variant.name)))
        known[variant.name] = _teach(observation, spec, variant, before, shape, running)
    return tuple(known[v.name] for v in observation.variants if v.name in known)


def learned_model(variant: VariantSpec, services: Services) -> ServiceModel:
    """Return a variant's model: the learned one once it can be trusted, else what is believed."""
    for service in services:
        if service.variant == variant.name and service.model.is_learned:
            return service.model
    return initial_model(variant)


def believed_service(variant: VariantSpec, services: Services) -> ServicePrior | None:
    """Return how fast a variant's replicas are believed to be now; None if nothing is known.

    What was written down is scaled as a whole by how much slower steps were measured: how a step
    divides into its parts is seen only if batches and lengths differ much, and a wrong division
    would promise a capacity far from any that was seen. Where nothing was written down the learned
    parts have to do.
    """
    service = next((found for found in services if found.variant == variant.name), None)
    if service is None or not service.model.is_learned or service.model.coefficients is None:
        return variant.service_prior
    prior = variant.service_prior
    if prior is not None:
        slower = service.slowness_ratio
        return prior.model_copy(
            update={name: slower * getattr(prior, name) for name in _PRIOR_SECONDS}
        )
    base, computed, context, experts = service.model.coefficients
    return ServicePrior(
        step_seconds=base,
        expert_seconds=experts,
        prefill_token_seconds=computed,
        decode_token_seconds=computed,
        context_token_seconds=context / CONTEXT_SCALE_TOKENS,
    )


def expert_share_ratio(variant: VariantSpec) -> float:
    """Return the share of the experts that a token touches; a fact of the model, not learned."""
    return 0.0 if variant.service_prior is None else variant.service_prior.expert_share_ratio


def _mean_request(observation: Observation, spec: ScalingSpec) -> RequestShape | None:
    lengths = mean_lengths(observation, spec)
    if lengths is None:
        return None
    inputs, outputs = lengths
    return RequestShape(inputs, inputs * cached_ratio(observation, spec), max(1.0, outputs))


def _teach(
    observation: Observation,
    spec: ScalingSpec,
    variant: VariantObservation,
    service: LearnedService,
    shape: RequestShape | None,
    running: float | None,
) -> LearnedService:
    now = observation.now_unix_seconds
    batches = tuple(b for b in service.batches if 0 < now - b.at_unix_seconds <= KEPT_SECONDS)
    if running is not None:
        batches = (*batches, BatchSample(now, variant.ready, running))
    service = dataclasses.replace(service, batches=batches)
    taught = service.taught_unix_seconds
    if running is None or shape is None or (taught is not None and now - taught < LESSON_SECONDS):
        return service
    tpot = fresh_latency(
        variant.engine.tpot, now_unix_seconds=now, hold_after=hold_after_seconds(spec)
    )
    if tpot is None or tpot.samples < LEAST_SAMPLES or _has_grown(batches, now):
        return service
    stay_seconds = LATENCY_WINDOW_SECONDS + tpot.mean_seconds * shape.output_tokens
    batch = _mean_batch(batches, now - stay_seconds)
    if batch is None:
        return service
    sample = StepSample(batch, tpot.mean_seconds, shape)
    share = expert_share_ratio(spec.variant(variant.name))
    slowness = service.slowness_ratio
    prior = spec.variant(variant.name).service_prior
    believed = 0.0 if prior is None else _believed_step_seconds(prior, batch, shape)
    if batch > 0 and believed > 0:
        slowness += SLOWNESS_RATE * (tpot.mean_seconds / believed - slowness)
    return dataclasses.replace(
        service,
        model=learn_step(service.model, sample, share),
        taught_unix_seconds=now,
        slowness_ratio=slowness,
    )


def _believed_step_seconds(prior: ServicePrior, batch: float, shape: RequestShape) -> float:
    """Return the step time of a batch as it was written down, prefills spread over all."""
    prefill = prior.prefill_token_seconds * shape.computed_input_tokens / shape.output_tokens
    own = prior.decode_token_seconds + prior.context_token_seconds * shape.context_tokens + prefill
    experts = prior.expert_seconds * touched_ratio(prior.expert_share_ratio, batch)
    return prior.step_seconds + experts + batch * own


def _has_grown(batches: tuple[BatchSample, ...], now_unix_seconds: float) -> bool:
    """Tell whether a replica has begun to serve lately."""
    return any(
        later.ready > earlier.ready and now_unix_seconds - later.at_unix_seconds < FRESH_SECONDS
        for earlier, later in itertools.pairwise(batches)
    )


def _mean_batch(batches: tuple[BatchSample, ...], since_unix_seconds: float) -> float | None:
    """Return the mean batch of one replica; None if none served."""
    found = [b for b in batches if b.at_unix_seconds >= since_unix_seconds and b.ready]
    replicas = sum(b.ready for b in found)
    return math.fsum(b.running_requests for b in found) / replicas if replicas else None
