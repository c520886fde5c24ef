"""From a custom resource's exact text to the numbers that the autoscaler computes with."""

from __future__ import annotations

from collections.abc import Mapping

from trierarch.api.v1alpha1.model_deployment import ModelDeploymentSpec, Variant
from trierarch.api.v1alpha1.scaling import Behavior as BehaviorFields
from trierarch.autoscaling.specification import (
    Behavior,
    CapacityType,
    CostTarget,
    LatencyObjective,
    OnConflict,
    ScaleDown,
    ScaleToZero,
    ScaleUp,
    ScalingSpec,
    VariantSpec,
)
from trierarch.core.identifiers import VariantName

_PERCENT = 100.0


def build_scaling_spec(
    spec: ModelDeploymentSpec,
    *,
    seats: Mapping[str, int],
    price_keys: Mapping[str, tuple[str, str]],
) -> ScalingSpec:
    """Return what the autoscaler is asked for.

    Args:
        spec: Of the custom resource.
        seats: Requests that one replica of a variant runs at once, by variant, where known.
        price_keys: Accelerator and region of the price book, by variant, where known.

    Raises:
        ValueError: If the resource holds what its definition's rules refuse.
    """
    scaling = spec.scaling
    slo, cost = scaling.slo, scaling.cost_per_million_tokens
    return ScalingSpec(
        variants=tuple(
            _build_variant(variant, spec.suspend, seats, price_keys) for variant in spec.variants
        ),
        target_queue_depth=float(scaling.target_queue_depth),
        slo=None
        if slo is None
        else LatencyObjective(
            ttft_seconds=_number(slo.ttft_seconds),
            tpot_seconds=_number(slo.tpot_seconds),
            percentile=float(slo.percentile),
        ),
        cost=None
        if cost is None
        else CostTarget(
            target_usd_per_million_tokens=float(cost.target),
            on_conflict=OnConflict(cost.on_conflict.value),
        ),
        approval_above_usd_per_hour=None
        if scaling.approval is None
        else float(scaling.approval.above_hourly_cost),
        budget_usd_per_hour=None if scaling.budget is None else float(scaling.budget.hourly_cost),
        behavior=_build_behavior(scaling.behavior),
    )


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _build_variant(
    variant: Variant,
    is_suspended: bool,
    seats: Mapping[str, int],
    price_keys: Mapping[str, tuple[str, str]],
) -> VariantSpec:
    accelerator, region = price_keys.get(variant.name, (variant.accelerator, ""))
    return VariantSpec(
        name=VariantName(variant.name),
        capacity_type=CapacityType(variant.capacity_type.value),
        accelerator=accelerator,
        region=region,
        # Replicas in one zone only are lost together; over several zones they are not.
        zone=variant.zones[0] if variant.zones and len(variant.zones) == 1 else "",
        min_replicas=0 if is_suspended else variant.min_replicas,
        max_replicas=variant.max_replicas,
        cold_start_seconds=float(variant.cold_start_seconds),
        max_running_requests=seats.get(variant.name),
    )


def _build_behavior(fields: BehaviorFields) -> Behavior:
    up, down, zero = fields.scale_up, fields.scale_down, fields.scale_to_zero
    return Behavior(
        scale_up=ScaleUp(
            window_seconds=float(up.stabilization_window_seconds),
            max_step_ratio=up.max_step_percent / _PERCENT,
            max_step_replicas=up.max_step_replicas,
        ),
        scale_down=ScaleDown(
            window_seconds=_seconds(down.stabilization_window_seconds),
            dwell_seconds=_seconds(down.dwell_seconds),
            max_step_ratio=down.max_step_percent / _PERCENT,
        ),
        scale_to_zero=ScaleToZero(
            enabled=zero.enabled,
            idle_seconds=_seconds(zero.idle_seconds),
            cold_start_miss_usd=float(zero.cold_start_miss_cost),
        ),
        interval_seconds=float(fields.interval_seconds),
        stale_after_seconds=float(fields.stale_after_seconds),
        backlog_drain_seconds=float(fields.backlog_drain_seconds),
        on_demand_floor_ratio=fields.on_demand_floor_percent / _PERCENT,
    )


def _seconds(value: int | None) -> float | None:
    return None if value is None else float(value)
