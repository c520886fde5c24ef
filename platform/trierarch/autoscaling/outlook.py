"""What a decision means: its cost, its neighbours', and the conditions it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

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
from trierarch.autoscaling.signals import Observation, known
from trierarch.autoscaling.specification import ScalingSpec
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


def _alternative(observation: Observation, mix: dict[VariantName, int]) -> Alternative:
    cost = hourly_cost(observation, mix)
    served = tokens_per_hour(observation)
    per_million = cost / (served / _TOKENS_PER_MILLION) if cost is not None and served else None
    return Alternative(replicas=mix, usd_per_hour=cost, usd_per_million_tokens=per_million)


def build_counterfactual(
    observation: Observation, spec: ScalingSpec, mix: dict[VariantName, int]
) -> Counterfactual:
    """Return the choice and its neighbours; their latency is left open, nothing predicts it yet."""
    total = sum(mix.values())
    fewer = place(observation, spec, total - 1) if total > 0 else mix
    more = place(observation, spec, total + 1)
    return Counterfactual(
        chosen=_alternative(observation, mix),
        one_fewer=_alternative(observation, fewer) if sum(fewer.values()) == total - 1 else None,
        one_more=_alternative(observation, more) if sum(more.values()) == total + 1 else None,
    )


def build_conditions(
    observation: Observation, spec: ScalingSpec, load: Load, limits: Sequence[FeltLimit]
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
        _cost_condition(observation, spec),
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


def _cost_condition(observation: Observation, spec: ScalingSpec) -> Condition:
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
    return _condition("CostTargetMet", cost <= target, "AtOrBelowTarget", "DemandTooLow", message)
