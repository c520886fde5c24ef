"""What the autoscaler and the cost controller make of custom resources, without a cluster."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from trierarch.api.v1alpha1.model_deployment import ModelDeployment
from trierarch.autoscaling.decision import Reason
from trierarch.autoscaling.pipeline import decide
from trierarch.autoscaling.signals import (
    GatewaySignals,
    Measured,
    Observation,
    TierSignals,
    VariantObservation,
    measure,
)
from trierarch.autoscaling.state import PipelineState
from trierarch.controller.deciding import Subject
from trierarch.core.identifiers import DecisionId
from trierarch.cost.prices import PriceBook
from trierarch_operators.autoscaler.status import build_status, says_something_new
from trierarch_operators.autoscaler.subjects import build_subject, read_approval
from trierarch_operators.cost_controller.status import build_status as build_cost_status
from trierarch_operators.cost_controller.status import is_written
from trierarch_operators.fleet import PlannedVariant
from trierarch_operators.group_plan import choose_layout, find_class, plan_group, price_key
from trierarch_operators.object_cache import Key
from trierarch_operators.price_books import price_of, read_entries

from .deployments import DEPLOYMENTS, accelerator_classes

NOW = 1_790_000_000.0
KEY = Key("models", "chat")
NAME = "spot-and-on-demand"


def plans(deployment: ModelDeployment) -> list[PlannedVariant]:
    found = []
    for variant in deployment.spec.variants:
        name, accelerator_class = find_class(variant, accelerator_classes())
        layout = choose_layout(deployment.spec, variant, (name, accelerator_class))
        spec = accelerator_class.spec
        plan = plan_group(layout, spec.accelerators_per_node, what="v")
        found.append(PlannedVariant(variant, spec, price_key(name, spec), plan))
    return found


def subject(prices: dict[str, Decimal | None] | None = None, **fields: Any) -> Subject:
    annotations = fields.pop("annotations", {})
    status = fields.pop("status", {})
    deployment = ModelDeployment.model_validate(
        {"spec": {**DEPLOYMENTS[NAME], **fields}, "status": status}
    )
    replicas: dict[str, list[Any]] = {v.name: [] for v in deployment.spec.variants}
    planned = plans(deployment)
    return build_subject(KEY, deployment, annotations, planned, replicas, prices or {}, NOW)


def test_a_subject_has_every_variant_with_its_seats_price_and_accelerators() -> None:
    found = subject({"spot": Decimal("16.8"), "steady": None})
    spot, steady = found.variants
    assert (spot.price_usd_per_hour, steady.price_usd_per_hour) == (16.8, None)
    assert (spot.accelerators, found.spec.variants[0].max_running_requests) == (8, 8 * 256)
    assert found.deployment == "models/chat"


def test_a_variant_that_waits_for_accelerators_can_give_no_more() -> None:
    status = {"variants": [{"name": "spot", "waitingFor": "8 GPUs"}, {"name": "steady"}]}
    spot, steady = subject(status=status).variants
    assert (spot.obtainable_replicas, steady.obtainable_replicas) == (0, None)


def test_fixed_replicas_are_placed_on_the_cheapest_variants() -> None:
    bounds = {
        variant.name: (variant.min_replicas, variant.max_replicas)
        for variant in subject(
            {"spot": Decimal(10), "steady": Decimal(20)},
            replicas=3,
            scaling={"behavior": {"onDemandFloorPercent": 0}},
        ).spec.variants
    }
    assert sum(low for low, _ in bounds.values()) == 3
    assert all(low == high for low, high in bounds.values())
    assert bounds["spot"][0] >= bounds["steady"][0]


@pytest.mark.parametrize(
    ("text", "approved"),
    [("80", 80.0), ("80.50", 80.5), ("", None), ("much", None), ("-1", None), ("NaN", None)],
)
def test_an_approval_is_an_amount_or_nothing(text: str, approved: float | None) -> None:
    assert read_approval({"trierarch.dev/approved-hourly-cost": text}) == approved
    assert read_approval({}) is None


def decision(waiting: float = 40.0, now: float = NOW) -> Any:
    found = subject()
    observation = Observation(
        now_unix_seconds=now,
        deployment=found.deployment,
        model=found.model,
        variants=tuple(
            VariantObservation(name=v.name, price_usd_per_hour=measure(8.0, now))
            for v in found.variants
        ),
        gateway=GatewaySignals(
            waiting_requests=TierSignals(default=Measured(waiting, now)),
            in_flight_requests=Measured(0.0, now),
        ),
    )
    made, _ = decide(observation, found.spec, PipelineState(), DecisionId("dec-1"))
    return made


def test_a_decision_sets_counts_its_reason_and_four_conditions() -> None:
    made = decision()
    assert made.reason is Reason.ACTIVATION
    status = build_status(made, {}, generation=3)
    assert sum(v["desiredReplicas"] for v in status["variants"]) == made.desired_replicas
    assert status["lastDecision"]["reason"] == "Activation"
    assert {c["type"] for c in status["conditions"]} == {
        "SLOMet",
        "CostTargetMet",
        "ScalingLimited",
        "MetricsFresh",
    }


def test_only_news_is_written() -> None:
    stored = build_status(decision(), {}, generation=3)
    stored["variants"] = [{**v, "readyReplicas": 0} for v in stored["variants"]]
    stored["conditions"] = [
        {"type": "Available", "status": "False", "reason": "NoReadyReplica"},
        *stored["conditions"],
    ]
    again = build_status(decision(waiting=41.0, now=NOW + 15), stored, generation=3)
    assert again["lastDecision"]["message"] != stored["lastDecision"]["message"]
    assert not says_something_new(again, stored)
    assert says_something_new(again, {})
    assert says_something_new(build_status(decision(), stored, generation=4), stored)


def book(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "list"}, "spec": {"entries": list(entries)}}


def entry(price: str, **fields: str) -> dict[str, Any]:
    return {
        "accelerator": "H200",
        "pricePerHour": price,
        "effectiveFrom": "2026-01-01T00:00:00Z",
        **fields,
    }


def test_a_group_costs_its_accelerators_by_capacity_type() -> None:
    prices = PriceBook(read_entries([book(entry("3.20"), entry("2.10", capacityType="Spot"))]))
    deployment = ModelDeployment.model_validate({"spec": DEPLOYMENTS[NAME]})
    spot, steady = (price_of(prices, one, NOW) for one in plans(deployment))
    assert (spot, steady) == (Decimal("16.80"), Decimal("25.60"))


def test_no_price_is_not_a_price_of_zero() -> None:
    (spot, _) = plans(ModelDeployment.model_validate({"spec": DEPLOYMENTS[NAME]}))
    free = PriceBook(read_entries([book(entry("0", capacityType="Spot"))]))
    assert price_of(free, spot, NOW) == 0
    assert price_of(PriceBook(), spot, NOW) is None
    ended = entry("2", capacityType="Spot", effectiveUntil="2026-02-01T00:00:00Z")
    assert price_of(PriceBook(read_entries([book(ended)])), spot, NOW) is None


def test_a_book_that_cannot_be_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    broken = {"metadata": {"name": "broken"}, "spec": {"entries": [{"accelerator": "X"}]}}
    assert len(read_entries([broken, book(entry("1"))])) == 1
    assert "broken" in caplog.text


def test_money_is_text_to_a_hundredth_of_a_cent() -> None:
    status = build_cost_status({"spot": Decimal("16.8")}, Decimal("0.61234567"))
    assert status == {
        "variants": [{"name": "spot", "hourlyCost": "16.8000"}],
        "costPerMillionTokens": "0.6123",
    }
    assert "costPerMillionTokens" not in build_cost_status({}, None)


@pytest.mark.parametrize(
    ("costs", "unit_cost", "existing", "expected"),
    [
        ({}, None, {}, True),
        ({}, None, {"variants": [{"name": "v", "readyReplicas": 1}]}, True),
        ({}, None, {"variants": [{"name": "v", "hourlyCost": "1.0000"}]}, False),
        ({"v": Decimal(1)}, None, {"variants": [{"name": "v", "hourlyCost": "1.0000"}]}, True),
        ({"v": Decimal(1)}, None, {"variants": [{"name": "v"}]}, False),
        ({"v": Decimal(2)}, None, {"variants": [{"name": "v", "hourlyCost": "1.0000"}]}, False),
        ({}, Decimal("0.5"), {"costPerMillionTokens": "0.5000"}, True),
        ({}, Decimal("0.5"), {}, False),
        ({}, None, {"costPerMillionTokens": "0.5000"}, False),
    ],
)
def test_costs_are_written_only_where_they_differ(
    costs: dict[str, Decimal],
    unit_cost: Decimal | None,
    existing: dict[str, Any],
    expected: bool,
) -> None:
    assert is_written(build_cost_status(costs, unit_cost), existing) is expected
