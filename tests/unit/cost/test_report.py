"""Reports: nothing is left out."""

from decimal import Decimal

import pytest

from trierarch.core.identifiers import ModelName, TenantId, VariantName
from trierarch.core.quantities import Money, TokenCounts
from trierarch.cost.allocation import PLATFORM, Part
from trierarch.cost.report import CostLine, ReportBy, Subject, UsageLine, build_report
from trierarch.cost.unit_cost import UnitCost, UnitCostMissing


def subject(tenant, model="m", variant="v"):
    return Subject(TenantId(tenant), ModelName(model), VariantName(variant))


USAGE = [
    UsageLine(subject("a"), 2, TokenCounts(1_000_000), Money.of("0.9")),
    UsageLine(subject("b"), 1, TokenCounts(0, 0, 1_000_000), Money.of("0.5")),
    UsageLine(subject("a", "n", "w"), 1, TokenCounts(10), Money.of("0.1")),
]
COSTS = [
    CostLine(subject("a"), Part.SERVING, Money.of("0.3")),
    CostLine(subject("b"), Part.SERVING, Money.of("0.2")),
    CostLine(subject(PLATFORM), Part.IDLE, Money.of("0.1")),
    CostLine(subject(PLATFORM), Part.IDLE, Money.of("0.4")),
]


def report(by, cost="1.0"):
    return build_report(
        by,
        USAGE,
        COSTS,
        capacity_cost=Money.of(cost),
        since_unix_seconds=0.0,
        until_unix_seconds=1.0,
    )


@pytest.mark.parametrize(
    ("by", "subjects"),
    [
        (ReportBy.TENANT, [("", None, None), ("a", None, None), ("b", None, None)]),
        (ReportBy.MODEL, [(None, "m", None), (None, "n", None)]),
        (ReportBy.VARIANT, [(None, "m", "v"), (None, "n", "w")]),
        (ReportBy.CHARGE, [("", "m", "v"), ("a", "m", "v"), ("b", "m", "v"), ("a", "n", "w")]),
    ],
)
def test_rows_are_what_was_asked_for(by, subjects):
    rows = report(by).rows
    assert [(r.subject.tenant, r.subject.model, r.subject.variant) for r in rows] == subjects


@pytest.mark.parametrize("by", list(ReportBy))
def test_rows_add_up_to_the_total_whatever_they_stand_for(by):
    result = report(by)
    assert sum((row.charged.amount for row in result.rows), Decimal(0)) == Decimal("1.5")
    assert sum((row.actual.amount for row in result.rows), Decimal(0)) == Decimal("1.0")
    assert sum(row.requests for row in result.rows) == result.total.requests == 4
    assert result.total.part(Part.IDLE) == Money.of("0.5")
    assert result.total.variance == Money.of("0.5")


def test_row_has_actual_charged_and_variance():
    row = report(ReportBy.TENANT).rows[1]
    assert (row.charged, row.actual, row.variance) == (
        Money.of("1.0"),
        Money.of("0.3"),
        Money.of("0.7"),
    )


def test_unit_cost_of_a_row_includes_its_idle_capacity():
    cost = report(ReportBy.MODEL).rows[0].unit_cost()
    assert isinstance(cost, UnitCost)
    assert cost.usd_per_million_tokens == Decimal("0.5")


def test_row_without_tokens_has_no_unit_cost():
    assert isinstance(report(ReportBy.TENANT).rows[0].unit_cost(), UnitCostMissing)


def test_what_no_row_holds_is_drift():
    assert report(ReportBy.TENANT, "1.0").unallocated_drift == Money.of(0)
    assert report(ReportBy.TENANT, "1.000000000001").unallocated_drift == Money.of("0.000000000001")
