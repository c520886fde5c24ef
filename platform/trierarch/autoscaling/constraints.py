"""What may not be exceeded, whatever the load asks for; every limit says so.

Money is counted on all replicas that cost money: ready, starting and draining.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.autoscaling.decision import Reason
from trierarch.autoscaling.outlook import tokens_per_hour
from trierarch.autoscaling.placement import hourly_cost, place, price_of
from trierarch.autoscaling.signals import Observation
from trierarch.autoscaling.specification import OnConflict, ScalingSpec
from trierarch.core.identifiers import VariantName


@dataclasses.dataclass(frozen=True, slots=True)
class Limit:
    """One limit that changed the number or keeps it from changing."""

    replicas: int
    reason: Reason
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Constrained:
    """A mix inside all limits, and the limits that were felt."""

    mix: dict[VariantName, int]
    limits: tuple[Limit, ...]


def constrain(
    observation: Observation,
    spec: ScalingSpec,
    mix: dict[VariantName, int],
    *,
    wanted: int,
    may_shrink: bool,
) -> Constrained:
    """Return the mix after bounds, budgets, approval and the cost target.

    Args:
        observation: Prices and counts.
        spec: The limits.
        mix: Inside bounds and inventory already, from ``place``.
        wanted: The number before placing; a difference means that bounds were felt.
        may_shrink: False keeps every running replica: nobody knows the load.
    """
    limits: list[Limit] = []
    low = sum(variant.min_replicas for variant in spec.variants)
    high = sum(variant.max_replicas for variant in spec.variants)
    if not may_shrink:
        for variant in observation.variants:
            mix[variant.name] = max(mix[variant.name], variant.current)
    total = sum(mix.values())
    if wanted > total:
        reason = Reason.MAX_REPLICAS if total >= high else Reason.INVENTORY
        limits.append(Limit(total, reason, f"{wanted} are wanted and {total} are the most"))
    elif wanted < total and may_shrink:
        message = f"{wanted} would do and {low} are the fewest allowed"
        limits.append(Limit(total, Reason.MIN_REPLICAS, message))
    elif wanted < total:
        limits.append(Limit(total, Reason.MIN_REPLICAS, f"{low} are the fewest allowed"))
    for reason, usd_per_hour, what in _money_limits(observation, spec):
        mix = _fit(observation, spec, mix, usd_per_hour, reason, what, limits)
    if spec.cost is not None and spec.cost.on_conflict is OnConflict.PREFER_COST and may_shrink:
        mix = _fit_cost_target(observation, spec, mix, limits)
    return Constrained(mix, tuple(limits))


def _money_limits(observation: Observation, spec: ScalingSpec) -> list[tuple[Reason, float, str]]:
    limits = [
        (Reason.BUDGET, budget.usd_per_hour, f"budget {budget.name}")
        for budget in observation.budgets
    ]
    if spec.budget_usd_per_hour is not None:
        limits.append((Reason.BUDGET, spec.budget_usd_per_hour, "the deployment's budget"))
    if spec.approval_above_usd_per_hour is not None:
        approved = max(spec.approval_above_usd_per_hour, observation.approved_usd_per_hour or 0.0)
        limits.append((Reason.APPROVAL_REQUIRED, approved, "what needs no further approval"))
    return limits


def _fit(
    observation: Observation,
    spec: ScalingSpec,
    mix: dict[VariantName, int],
    usd_per_hour: float,
    reason: Reason,
    what: str,
    limits: list[Limit],
) -> dict[VariantName, int]:
    """Take additions back until everything that costs money fits."""
    draining = {variant.name: variant.draining for variant in observation.variants}
    current = {variant.name: variant.current for variant in observation.variants}

    def paid(counts: dict[VariantName, int]) -> float | None:
        return hourly_cost(observation, {n: counts[n] + draining[n] for n in counts})

    fitted = dict(mix)
    cost = paid(fitted)
    is_growth = any(fitted[name] > current[name] for name in fitted)
    while is_growth and (cost is None or cost > usd_per_hour + 1e-9):
        # A price that nobody knows fits no budget.
        dearest = max(
            (v for v in observation.variants if fitted[v.name] > current[v.name]),
            key=lambda v: math.inf if (price := price_of(v)) is None else price,
        )
        fitted[dearest.name] -= 1
        cost = paid(fitted)
        is_growth = any(fitted[name] > current[name] for name in fitted)
    if fitted != mix:
        total = sum(fitted.values())
        message = f"{what} of {usd_per_hour:g} USD/h allows {total}"
        limits.append(Limit(total, reason, message))
    return fitted


def _fit_cost_target(
    observation: Observation, spec: ScalingSpec, mix: dict[VariantName, int], limits: list[Limit]
) -> dict[VariantName, int]:
    """Cap at the largest number of replicas whose unit cost keeps the target."""
    served = tokens_per_hour(observation)
    if spec.cost is None or not served:
        return mix
    allowed_usd_per_hour = spec.cost.target_usd_per_million_tokens * served / 1e6
    total = sum(mix.values())
    low = max(1, sum(variant.min_replicas for variant in spec.variants))
    while total > low:
        cost = hourly_cost(observation, mix)
        if cost is None or cost <= allowed_usd_per_hour:
            break
        total -= 1
        mix = place(observation, spec, total)
        limits.append(
            Limit(
                total,
                Reason.COST_TARGET,
                f"{served / 1e6:.3f} million tokens/h pay for {allowed_usd_per_hour:.4f} USD/h at"
                f" the target of {spec.cost.target_usd_per_million_tokens:g} USD per million",
            )
        )
    return mix
