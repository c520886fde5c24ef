"""Why a cost target is missed, and the lowest one that could be met now."""

from __future__ import annotations

import dataclasses
import math
from enum import StrEnum

from trierarch.autoscaling.placement import bounded_ceilings, cheapest_mix, hourly_cost, price_of
from trierarch.autoscaling.signals import Observation
from trierarch.autoscaling.sizing import Sizing
from trierarch.autoscaling.specification import ScalingSpec
from trierarch.core.identifiers import VariantName

TOKENS_PER_MILLION = 1e6
_SECONDS_PER_HOUR = 3600.0


class CostMiss(StrEnum):
    """What keeps the unit cost above its target."""

    MIN_REPLICAS = "MinReplicas"
    PRICES_TOO_HIGH = "PricesTooHigh"
    SLO_TOO_TIGHT = "SLOTooTight"
    NO_CHEAPER_VARIANT = "NoCheaperVariant"
    DEMAND_TOO_LOW = "DemandTooLow"


@dataclasses.dataclass(frozen=True, slots=True)
class CostOutlook:
    """What the unit cost could be.

    Attributes:
        feasible_usd_per_million_tokens: Lowest that keeps the objective at the present demand.
        miss: What binds if that is above the target.
    """

    feasible_usd_per_million_tokens: float
    miss: CostMiss


def look_at_cost(
    observation: Observation,
    spec: ScalingSpec,
    mix: dict[VariantName, int],
    sizing: Sizing | None,
    served_tokens_per_hour: float,
) -> CostOutlook | None:
    """Return the lowest feasible unit cost and what binds; None while prices are unknown.

    The checks go from what the operator wrote to what the market gives: the first that alone
    explains the miss is named.

    Args:
        observation: Prices and counts.
        spec: With a cost target.
        mix: The decision.
        sizing: What the objective needs; None takes the decided count for it.
        served_tokens_per_hour: Of the rolling window, positive.
    """
    if spec.cost is None:
        return None
    needed = sum(mix.values()) if sizing is None else sizing.enough
    fewest = max(1, spec.min_replicas, min(needed, sum(mix.values())))
    ceilings = bounded_ceilings(observation, spec, frozenset())
    cheapest = cheapest_mix(observation, spec, fewest, ceilings)
    cost = hourly_cost(observation, cheapest)
    paid = hourly_cost(observation, mix)
    if cost is None or paid is None:
        return None
    million = served_tokens_per_hour / TOKENS_PER_MILLION
    target = spec.cost.target_usd_per_million_tokens
    feasible = cost / million

    def affords(replicas: float, usd_per_replica_hour: float) -> bool:
        return replicas * usd_per_replica_hour <= target * million

    per_replica = cost / max(1, sum(cheapest.values()))
    if spec.min_replicas > max(1, needed) and affords(max(1, needed), per_replica):
        miss = CostMiss.MIN_REPLICAS
    elif _full_unit_cost(observation, sizing) > target:
        miss = CostMiss.PRICES_TOO_HIGH
    elif fewest > 1 and affords(_packed(sizing, fewest), per_replica):
        miss = CostMiss.SLO_TOO_TIGHT
    elif fewest > 1 and affords(fewest, _lowest_price(observation)):
        miss = CostMiss.NO_CHEAPER_VARIANT
    else:
        miss = CostMiss.DEMAND_TOO_LOW
    return CostOutlook(feasible, miss)


def _lowest_price(observation: Observation) -> float:
    prices = [price for v in observation.variants if (price := price_of(v)) is not None]
    return min(prices, default=math.inf)


def _full_unit_cost(observation: Observation, sizing: Sizing | None) -> float:
    """Return what a million tokens cost on a replica that is full; 0 if that is not known."""
    if sizing is None or sizing.saturated_load is None:
        return 0.0
    workload, most = sizing.workload, sizing.saturated_load
    tokens = workload.input_tokens + workload.output_tokens
    per_hour = most / workload.request_seconds * tokens * _SECONDS_PER_HOUR
    return _lowest_price(observation) / (per_hour / TOKENS_PER_MILLION)


def _packed(sizing: Sizing | None, fewest: int) -> float:
    """Return how many replicas the demand would fill if latency did not matter."""
    if sizing is None or sizing.saturated_load is None:
        return float(fewest)
    return max(1.0, math.ceil(sizing.forecast.demand / sizing.saturated_load))
