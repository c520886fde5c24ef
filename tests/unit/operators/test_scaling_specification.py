"""Every field of ``spec.scaling`` reaches the autoscaler, in its units."""

from __future__ import annotations

from typing import Any

from trierarch.api.v1alpha1.model_deployment import ModelDeploymentSpec
from trierarch.autoscaling.specification import (
    CapacityType,
    CostTarget,
    LatencyObjective,
    OnConflict,
    ScaleDown,
    ScaleToZero,
    ScaleUp,
    ScalingSpec,
)
from trierarch_operators.scaling_specification import build_scaling_spec


def convert(scaling: dict[str, Any], **fields: Any) -> ScalingSpec:
    variant = {"name": "h200", "accelerator": "H200", "maxReplicas": 4, **fields.pop("variant", {})}
    spec = ModelDeploymentSpec.model_validate(
        {
            "model": {"name": "m", "source": "hf://org/m"},
            "variants": [variant],
            "scaling": scaling,
            **fields,
        }
    )
    return build_scaling_spec(spec, seats={"h200": 256}, price_keys={"h200": ("H200", "eu-1")})


def test_targets_are_read_as_exact_text() -> None:
    spec = convert(
        {
            "targetQueueDepth": 7,
            "slo": {"ttftSeconds": "2.5", "tpotSeconds": "0.050", "percentile": 90},
            "costPerMillionTokens": {"target": "0.60", "onConflict": "PreferCost"},
            "approval": {"aboveHourlyCost": "50.00"},
            "budget": {"hourlyCost": "80"},
        }
    )
    assert spec.target_queue_depth == 7
    assert spec.slo == LatencyObjective(ttft_seconds=2.5, tpot_seconds=0.05, percentile=90)
    assert spec.cost == CostTarget(
        target_usd_per_million_tokens=0.6, on_conflict=OnConflict.PREFER_COST
    )
    assert spec.approval_above_usd_per_hour == 50
    assert spec.budget_usd_per_hour == 80


def test_what_is_left_out_stays_open() -> None:
    spec = convert({})
    assert (spec.slo, spec.cost, spec.approval_above_usd_per_hour) == (None, None, None)
    assert spec.behavior.scale_down.window_seconds is None


def test_behavior_is_converted_from_percent_and_seconds() -> None:
    behavior = convert(
        {
            "behavior": {
                "scaleUp": {
                    "stabilizationWindowSeconds": 5,
                    "maxStepPercent": 150,
                    "maxStepReplicas": 2,
                },
                "scaleDown": {
                    "stabilizationWindowSeconds": 300,
                    "dwellSeconds": 60,
                    "maxStepPercent": 25,
                },
                "scaleToZero": {
                    "enabled": True,
                    "idleSeconds": 900,
                    "coldStartMissCost": "0.25",
                },
                "intervalSeconds": 10,
                "staleAfterSeconds": 45,
                "backlogDrainSeconds": 30,
                "onDemandFloorPercent": 50,
            }
        }
    ).behavior
    assert behavior.scale_up == ScaleUp(window_seconds=5, max_step_ratio=1.5, max_step_replicas=2)
    assert behavior.scale_down == ScaleDown(
        window_seconds=300, dwell_seconds=60, max_step_ratio=0.25
    )
    assert behavior.scale_to_zero == ScaleToZero(
        enabled=True, idle_seconds=900, cold_start_miss_usd=0.25
    )
    assert (behavior.interval_seconds, behavior.stale_after_seconds) == (10, 45)
    assert (behavior.backlog_drain_seconds, behavior.on_demand_floor_ratio) == (30, 0.5)


def test_a_variant_keeps_its_bounds_seats_and_price_key() -> None:
    variant = convert(
        {}, variant={"capacityType": "Spot", "minReplicas": 1, "zones": ["a"]}
    ).variants[0]
    assert variant.capacity_type is CapacityType.SPOT
    assert (variant.min_replicas, variant.max_replicas, variant.zone) == (1, 4, "a")
    assert (variant.accelerator, variant.region, variant.max_running_requests) == (
        "H200",
        "eu-1",
        256,
    )


def test_zones_that_fail_apart_are_no_common_zone() -> None:
    assert convert({}, variant={"zones": ["a", "b"]}).variants[0].zone == ""


def test_a_suspended_deployment_has_no_floor() -> None:
    assert convert({}, suspend=True, variant={"minReplicas": 2}).variants[0].min_replicas == 0
