"""What a decision means: its cost, its neighbours', and the conditions it leaves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

from trierarch.autoscaling.cost_target import CostMiss, CostOutlook
from trierarch.autoscaling.decision import (
    Alternative,
    Condition,
    ConditionStatus,
    Counterfactual,
    Reason,
)
from trierarch.autoscaling.demand import measured_latencies
from trierarch.autoscaling.load import Freshness, Load
from trierarch.autoscaling.placement import hourly_cost, place
from trierarch.autoscaling.queueing import PoolPrediction, predict_pool, round_steps, rounded
from trierarch.autoscaling.service_learning import Services, expert_share_ratio, learned_model
from trierarch.autoscaling.service_model import RequestShape
from trierarch.autoscaling.signals import Observation, known
from trierarch.autoscaling.sizing import Sizing
from trierarch.autoscaling.specification import ScalingSpec
from trierarch.autoscaling.workload import SEATS_WITHOUT_LIMIT, reference_variant
from trierarch.core.identifiers import VariantName

_TOKENS_PER_MILLION = 1e6


class FeltLimit(Protocol):
    """A limit that was felt."""

    @property
    def reason(self) -> Reason:
        """Which."""
        ...

    @property
    def message(self) -> str:
        """With the numbers."""
        ...


def tokens_per_hour(observation: Observation) -> float | None:
    """Return input plus output tokens per hour of the rolling window; None if unknown."""
    values = (
        known(observation.cost.input_tokens_per_hour),
        known(observation.cost.output_tokens_per_hour),
    )
    if values[0] is None or values[1] is None:
        return None
    return values[0] + values[1]


def unit_cost(observation: Observation) -> float | None:
    """Return dollars per million tokens, unweighted; None without tokens or without prices."""
    spend = known(observation.cost.spend_usd_per_hour)
    served = tokens_per_hour(observation)
    if spend is None or not served:
        return None
    return spend / (served / _TOKENS_PER_MILLION)


@dataclasses.dataclass(frozen=True, slots=True)
class Predictor:
    """What users would see of a mix.

    Attributes:
        spec: Objective and service priors.
        sizing: Learned misses; None predicts nothing.
        services: Learned speeds.
    """

    spec: ScalingSpec
    sizing: Sizing | None
    services: Services = ()

    def alternative(self, observation: Observation, mix: dict[VariantName, int]) -> Alternative:
        """Return a mix with its cost and, where it can be told, whether it keeps the objective."""
        cost = hourly_cost(observation, mix)
        served = tokens_per_hour(observation)
        per_million = cost / (served / _TOKENS_PER_MILLION) if cost is not None and served else None
        replicas = sum(mix.values())
        predicted = self._predict(replicas)
        return Alternative(
            replicas=mix,
            usd_per_hour=cost,
            usd_per_million_tokens=per_million,
            ttft_seconds=None if predicted is None else predicted.ttft_seconds,
            tpot_seconds=None if predicted is None else predicted.step_seconds,
            meets_slo=self._meets(replicas),
        )

    def _meets(self, replicas: int) -> bool | None:
        if self.sizing is None or self.spec.slo is None:
            return None
        return self.sizing.keeps(self.spec.slo, replicas)

    def _predict(self, replicas: int) -> PoolPrediction | None:
        variant = reference_variant(self.spec)
        model = learned_model(variant, self.services)
        if self.sizing is None or self.spec.slo is None or not model.is_usable or replicas < 1:
            return None
        workload = self.sizing.workload
        shape = RequestShape(
            workload.input_tokens,
            workload.input_tokens - workload.computed_input_tokens,
            max(1.0, workload.output_tokens),
        )
        steps = model.steps_of(shape, expert_share_ratio(variant))
        predicted = predict_pool(
            round_steps(steps),
            rate_per_second=rounded(workload.requests_per_second),
            seats=float(variant.max_running_requests or SEATS_WITHOUT_LIMIT),
            replicas=replicas,
            percentile=self.spec.slo.percentile,
            variability=1.0,
        )
        # A pool that cannot keep up has no percentile, and a batch far beyond all that were
        # measured has no step time.
        is_told = predicted.running_per_replica <= model.running_limit
        return predicted if is_told and math.isfinite(predicted.ttft_seconds) else None


def build_counterfactual(
    observation: Observation,
    spec: ScalingSpec,
    mix: dict[VariantName, int],
    sizing: Sizing | None = None,
    services: Services = (),
) -> Counterfactual:
    """Return the choice and its neighbours, with their cost and predicted latency."""
    total = sum(mix.values())
    predictor = Predictor(spec, sizing, services)
    fewer = place(observation, spec, total - 1) if total > 0 else mix
    more = place(observation, spec, total + 1)
    return Counterfactual(
        chosen=predictor.alternative(observation, mix),
        one_fewer=predictor.alternative(observation, fewer)
        if sum(fewer.values()) == total - 1
        else None,
        one_more=predictor.alternative(observation, more)
        if sum(more.values()) == total + 1
        else None,
        cheapest_other=_cheapest_other(observation, spec, mix, predictor),
    )


def _cheapest_other(
    observation: Observation,
    spec: ScalingSpec,
    mix: dict[VariantName, int],
    predictor: Predictor,
) -> Alternative | None:
    """Return the same count on the single cheapest variant that is not all of the mix already."""
    total = sum(mix.values())
    found = [
        predictor.alternative(observation, {name: total if name == v.name else 0 for name in mix})
        for v in observation.variants
        if total and mix[v.name] < total and spec.variant(v.name).max_replicas >= total
    ]
    priced = [(choice.usd_per_hour, choice) for choice in found if choice.usd_per_hour is not None]
    return min(priced, key=lambda pair: pair[0])[1] if priced else None


def build_conditions(
    observation: Observation,
    spec: ScalingSpec,
    load: Load,
    limits: Sequence[FeltLimit],
    outlook: CostOutlook | None = None,
) -> tuple[Condition, ...]:
    """Return the status conditions of the deployment."""
    ready = observation.ready
    starting = observation.current - ready
    limit = limits[-1] if limits else None
    return (
        _condition("Available", ready > 0, "Serving", "NoReadyReplica", f"{ready} ready"),
        _condition("Progressing", starting > 0, "Starting", "Settled", f"{starting} starting"),
        _condition(
            "MetricsFresh",
            load.freshness is Freshness.FRESH,
            "Fresh",
            (load.reason or Reason.METRICS_MISSING).value,
            "signals are fresh" if load.freshness is Freshness.FRESH else "counts are held",
        ),
        Condition("ScalingLimited", ConditionStatus.FALSE, "WithinLimits", "no limit is felt")
        if limit is None
        else Condition("ScalingLimited", ConditionStatus.TRUE, limit.reason.value, limit.message),
        _slo_condition(observation, spec),
        _cost_condition(observation, spec, outlook),
    )


def _condition(kind: str, holds: bool, yes: str, no: str, message: str) -> Condition:
    status = ConditionStatus.TRUE if holds else ConditionStatus.FALSE
    return Condition(kind, status, yes if holds else no, message)


def _slo_condition(observation: Observation, spec: ScalingSpec) -> Condition:
    measured = measured_latencies(observation, spec)
    if not measured:
        reason = "NoObjective" if spec.slo is None else "NoSamples"
        return Condition("SLOMet", ConditionStatus.UNKNOWN, reason, "nothing to compare")
    message = "; ".join(f"{name} {value:.3f} s of {limit:g} s" for name, value, limit in measured)
    holds = all(seconds <= limit for _, seconds, limit in measured)
    return _condition("SLOMet", holds, "WithinObjective", "AboveObjective", message)


def _cost_condition(
    observation: Observation, spec: ScalingSpec, outlook: CostOutlook | None
) -> Condition:
    cost = unit_cost(observation)
    if cost is None:
        return Condition(
            "CostTargetMet", ConditionStatus.UNKNOWN, "NoTokens", "no tokens or no prices yet"
        )
    message = f"{cost:.4f} USD per million tokens"
    if spec.cost is None:
        return Condition("CostTargetMet", ConditionStatus.UNKNOWN, "NoTarget", message)
    target = spec.cost.target_usd_per_million_tokens
    message = f"{message}, target {target:g}"
    if outlook is not None and cost > target:
        message = f"{message}; feasible now {outlook.feasible_usd_per_million_tokens:.4f}"
    miss = CostMiss.DEMAND_TOO_LOW if outlook is None else outlook.miss
    return _condition("CostTargetMet", cost <= target, "AtOrBelowTarget", miss.value, message)
