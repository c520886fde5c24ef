"""How many replicas the load asks for: independent analyzers, the largest answer counts.

Two thresholds per analyzer, so that the count which satisfies one does not
provoke the other: capacity is added above the high mark and given back only if
the load, put on one replica fewer, would stay below the low mark.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.autoscaling.admission import is_flex_due
from trierarch.autoscaling.decision import Reason
from trierarch.autoscaling.expected_misses import MOST_REPLICAS
from trierarch.autoscaling.load import Load, fresh_latency, fresh_value, hold_after_seconds
from trierarch.autoscaling.signals import Observation
from trierarch.autoscaling.sizing import Sizing
from trierarch.autoscaling.specification import ScalingSpec

FULL_RATIO = 0.9
"""Share of its seats (or of its KV memory) at which a pool is full."""

RELAXED_RATIO = 0.6
"""Share of its seats that a smaller pool may have taken after a removal."""

RELAXED_QUEUE_RATIO = 0.5
"""Share of the queue target that may wait when a replica is given back."""

IDLE_DEMAND = 0.01
"""A lull in traffic that is expected to come back is not the end of it."""

ALARM_RATIO = 5.0
"""So many times the allowed misses tell of too little capacity before anything was learned."""


@dataclasses.dataclass(frozen=True, slots=True)
class Need:
    """One analyzer's answer.

    Attributes:
        replicas: Capacity needed, ready plus starting, over all variants.
        reason: Which analyzer.
        message: With the numbers.
    """

    replicas: int
    reason: Reason
    message: str


def whole_replicas(load: float, load_per_replica: float) -> int:
    """Return how many replicas carry a load, ``MOST_REPLICAS`` at most."""
    if load <= 0:
        return 0
    if load >= MOST_REPLICAS * load_per_replica:
        return MOST_REPLICAS
    # A share that only rounding puts above a whole number takes no further replica.
    return math.ceil(load / load_per_replica - 1e-9)


def analyze_growth(
    observation: Observation, spec: ScalingSpec, load: Load, sizing: Sizing | None
) -> list[Need]:
    """Return what each analyzer asks for that finds the present capacity too small.

    Args:
        observation: The signals.
        spec: The targets.
        load: The signals, read.
        sizing: What the learned model asks for; None while it knows nothing.
    """
    needs = []
    if observation.ready == 0 and (load.waiting_requests > 0 or (load.arrivals_per_second or 0)):
        message = f"{load.waiting_requests:g} requests wait and no replica is ready"
        needs.append(Need(1, Reason.ACTIVATION, message))
    elif observation.ready == 0 and is_flex_due(
        observation, spec, at_least_seconds=_longest_start_seconds(observation, spec)
    ):
        message = "flex requests have little time left and no replica is ready"
        needs.append(Need(1, Reason.ACTIVATION, message))
    if observation.ready > 0:
        needs += _queue_needs(observation, spec, load, sizing)
        needs += _saturation_needs(observation, spec, load)
    if sizing is None:
        needs += _latency_needs(observation, spec) if observation.ready > 0 else []
    elif sizing.replicas > observation.ready:
        needs.append(Need(sizing.replicas, Reason.FORECAST, _word_sizing(sizing, sizing.replicas)))
    return needs


def _longest_start_seconds(observation: Observation, spec: ScalingSpec) -> float:
    """Return the longest cold start that was measured, else that is believed.

    A deadline is missed for good, so the slowest start counts here; what demand is forecast for is
    the usual one (``pipeline.cold_start_seconds``).
    """
    return max(
        max(v.cold_starts_seconds, default=spec.variant(v.name).cold_start_seconds)
        for v in observation.variants
    )


def _word_sizing(sizing: Sizing, replicas: int) -> str:
    expected = sizing.forecast
    return (
        f"{expected.level:.2f} replicas' worth of work arrives and {expected.demand:.2f} is"
        f" expected in {expected.horizon_seconds:.0f} s; at {sizing.load_limit:.3f} per replica,"
        f" where misses stay at {sizing.allowed_ratio:.2%}, that takes {replicas}"
    )


def _queue_needs(
    observation: Observation, spec: ScalingSpec, load: Load, sizing: Sizing | None
) -> list[Need]:
    ready = observation.ready
    depth = load.waiting_requests / ready
    if depth <= spec.target_queue_depth:
        return []
    needs = [
        Need(
            ready + 1,
            Reason.QUEUE_DEPTH,
            f"{depth:.1f} requests wait per ready replica, above the target of"
            f" {spec.target_queue_depth:g}",
        )
    ]
    if sizing is not None:
        work = load.waiting_requests * sizing.workload.request_seconds
        drain_seconds = spec.behavior.backlog_drain_seconds
        replicas = whole_replicas(
            sizing.forecast.level + work / drain_seconds, sizing.greatest_load
        )
        message = (
            f"{sizing.forecast.level:.2f} replicas' worth of work arrives and {work:.0f} s of it"
            f" wait; to be rid of it in {drain_seconds:g} s takes {replicas}"
        )
        return [*needs, Need(replicas, Reason.BACKLOG, message)]
    hold_after = hold_after_seconds(spec)
    completed = fresh_value(
        observation.gateway.completed_per_second,
        now_unix_seconds=observation.now_unix_seconds,
        hold_after=hold_after,
    )
    if completed and load.arrivals_per_second is not None:
        # With requests waiting, what the pool finishes is what it can; while the load still rises
        # fewer have finished than it can, and what runs over how long it stays tells more.
        rate_per_replica = max(completed, _turnover_per_second(observation, spec, load)) / ready
        drain_seconds = spec.behavior.backlog_drain_seconds
        wanted = load.arrivals_per_second + load.waiting_requests / drain_seconds
        replicas = whole_replicas(wanted, rate_per_replica)
        needs.append(
            Need(
                replicas,
                Reason.BACKLOG,
                f"{load.arrivals_per_second:.2f} requests/s arrive and"
                f" {load.waiting_requests:g} wait; to be rid of those in {drain_seconds:g} s at"
                f" {rate_per_replica:.2f} requests/s per replica takes {replicas}",
            )
        )
    return needs


def _turnover_per_second(observation: Observation, spec: ScalingSpec, load: Load) -> float:
    """Return how many of the running requests end per second (Little's law); 0 if unknown."""
    gateway, now = observation.gateway, observation.now_unix_seconds
    hold_after = hold_after_seconds(spec)
    ttft = fresh_latency(gateway.ttft, now_unix_seconds=now, hold_after=hold_after)
    wait = fresh_latency(gateway.queue_wait, now_unix_seconds=now, hold_after=hold_after)
    tpot = fresh_latency(gateway.tpot, now_unix_seconds=now, hold_after=hold_after)
    outputs = fresh_value(gateway.mean_output_tokens, now_unix_seconds=now, hold_after=hold_after)
    if ttft is None or tpot is None or outputs is None or load.running_requests is None:
        return 0.0
    waited = 0.0 if wait is None else wait.mean_seconds
    # Time at the gateway is no time on a replica.
    stay = max(0.0, ttft.mean_seconds - waited) + tpot.mean_seconds * max(0.0, outputs - 1.0)
    return load.running_requests / stay if stay > 0 else 0.0


def _saturation_needs(observation: Observation, spec: ScalingSpec, load: Load) -> list[Need]:
    ready = observation.ready
    needs = []
    seats = mean_seats(observation, spec)
    if seats is not None and load.running_requests is not None:
        replicas = whole_replicas(load.running_requests, FULL_RATIO * seats)
        if replicas > ready:
            needs.append(
                Need(
                    replicas,
                    Reason.SATURATION,
                    f"{load.running_requests:g} requests run on {ready * seats:g} seats",
                )
            )
    for variant in observation.variants:
        used = fresh_value(
            variant.engine.kv_used_ratio,
            now_unix_seconds=observation.now_unix_seconds,
            hold_after=hold_after_seconds(spec),
        )
        if variant.ready and used is not None and used > FULL_RATIO:
            message = f"{used:.0%} of the KV memory of {variant.name} is used"
            needs.append(Need(ready + 1, Reason.SATURATION, message))
    return needs


def _latency_needs(observation: Observation, spec: ScalingSpec) -> list[Need]:
    """Return one more replica if several times the allowed share of requests is too slow.

    At a high percentile a few unlucky requests are no sign of too little capacity.
    """
    if spec.slo is None:
        return []
    needs = []
    percentile = max(50.0, 100.0 - ALARM_RATIO * (100.0 - spec.slo.percentile))
    for name, seconds, limit in measured_latencies(observation, spec, percentile):
        if seconds > limit:
            needs.append(
                Need(
                    observation.ready + 1,
                    Reason.LATENCY,
                    f"{name} is {seconds:.3f} s, above the objective of {limit:g} s",
                )
            )
    return needs


def measured_latencies(
    observation: Observation, spec: ScalingSpec, percentile: float | None = None
) -> list[tuple[str, float, float]]:
    """Return name, measured seconds and promised seconds of what is promised and measured.

    The percentile is the objective's, unless another is asked for.
    """
    if spec.slo is None:
        return []
    found = []
    percentile = spec.slo.percentile if percentile is None else percentile
    gateway = observation.gateway
    for name, signal, limit in (
        ("time to first token", gateway.ttft, spec.slo.ttft_seconds),
        ("time per output token", gateway.tpot, spec.slo.tpot_seconds),
    ):
        summary = fresh_latency(
            signal,
            now_unix_seconds=observation.now_unix_seconds,
            hold_after=hold_after_seconds(spec),
        )
        if limit is not None and summary is not None:
            found.append((f"p{percentile:g} {name}", summary.at_percentile(percentile), limit))
    return found


def mean_seats(observation: Observation, spec: ScalingSpec) -> float | None:
    """Return the seats of one replica, averaged over the ready ones; None if unknown."""
    seats = 0
    for variant in observation.variants:
        limit = spec.variant(variant.name).max_running_requests
        if variant.ready and limit is None:
            return None
        seats += variant.ready * (limit or 0)
    return seats / observation.ready if observation.ready else None


def fewest_safe(
    observation: Observation, spec: ScalingSpec, load: Load, sizing: Sizing | None
) -> Need | None:
    """Return the smallest pool that the present load leaves relaxed; None if nothing can be said.

    This is the N/(N-1) check in general form: the load is put on fewer replicas and must stay
    below the low marks there.
    """
    if not load.is_complete or load.running_requests is None:
        return None
    if load.is_idle and (sizing is None or sizing.forecast.demand < IDLE_DEMAND):
        floor = 0 if spec.behavior.scale_to_zero.enabled else 1
        return Need(floor, Reason.IDLE, "nothing arrives, waits or runs")
    seats = mean_seats(observation, spec)
    if sizing is not None:
        by_seats = 1 if seats is None else whole_replicas(load.running_requests, FULL_RATIO * seats)
        replicas = max(1, sizing.replicas, by_seats)
        while (
            spec.slo is not None
            and replicas < observation.ready
            and not sizing.leaves_relaxed(spec.slo, replicas)
        ):
            replicas += 1
        return Need(replicas, Reason.LOW_LOAD, _word_sizing(sizing, replicas))
    if spec.slo is not None:
        message = "too few requests have ended to tell what fewer replicas would miss"
        return Need(observation.ready, Reason.WARMING_UP, message)
    if seats is None:
        return None
    by_seats = whole_replicas(load.running_requests, RELAXED_RATIO * seats)
    allowed_waiting = RELAXED_QUEUE_RATIO * spec.target_queue_depth
    by_queue = whole_replicas(load.waiting_requests, allowed_waiting)
    replicas = max(1, by_seats, by_queue)
    return Need(
        replicas,
        Reason.LOW_LOAD,
        f"{load.running_requests:g} running and {load.waiting_requests:g} waiting requests leave"
        f" {replicas} {'replica' if replicas == 1 else 'replicas'} relaxed",
    )
