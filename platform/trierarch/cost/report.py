"""Reports: charges beside actual cost, by tenant, model or variant.

Nothing is left out: rows hold every charge and every part of the capacity cost, idle
capacity included, and the total says what of the capacity cost no row holds. That
drift is zero, or the ledger has a defect.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping
from enum import StrEnum

from trierarch.core.identifiers import ModelName, TenantId, VariantName
from trierarch.core.quantities import Money, TokenCounts
from trierarch.cost.allocation import Part, variance
from trierarch.cost.exact import exact_sum
from trierarch.cost.unit_cost import ServingWeights, UnitCost, UnitCostMissing, unit_cost


class ReportBy(StrEnum):
    """What a row of a report stands for."""

    TENANT = "tenant"
    MODEL = "model"
    VARIANT = "variant"
    """One way to run one model: rows name both."""
    CHARGE = "charge"
    """Tenant, model and variant together: the finest there is, for exports."""


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """Who or what a row is about; what the report does not tell apart is None."""

    tenant: TenantId | None = None
    model: ModelName | None = None
    variant: VariantName | None = None

    def for_report(self, by: ReportBy) -> Subject:
        """Return the subject without what the report does not tell apart."""
        if by is ReportBy.TENANT:
            return Subject(tenant=self.tenant)
        if by is ReportBy.MODEL:
            return Subject(model=self.model)
        if by is ReportBy.VARIANT:
            return Subject(model=self.model, variant=self.variant)
        return self

    def sort_key(self) -> tuple[str, str, str]:
        """Return names in order of rank."""
        return (self.model or "", self.variant or "", self.tenant or "")


@dataclasses.dataclass(frozen=True, slots=True)
class UsageLine:
    """What was used and charged."""

    subject: Subject
    requests: int
    tokens: TokenCounts
    charged: Money


@dataclasses.dataclass(frozen=True, slots=True)
class CostLine:
    """What capacity cost."""

    subject: Subject
    part: Part
    amount: Money


@dataclasses.dataclass(frozen=True, slots=True)
class ReportRow:
    """One subject's usage, charges and actual cost."""

    subject: Subject
    requests: int
    tokens: TokenCounts
    charged: Money
    parts: Mapping[Part, Money]

    @property
    def actual(self) -> Money:
        """All parts of the actual cost."""
        return Money(exact_sum(amount.amount for amount in self.parts.values()))

    @property
    def variance(self) -> Money:
        """What was charged above the actual cost; negative is a loss."""
        return variance(self.charged, self.actual)

    def part(self, part: Part) -> Money:
        """Return one part of the actual cost."""
        return self.parts.get(part, Money.of(0))

    def unit_cost(self, weights: ServingWeights | None = None) -> UnitCost | UnitCostMissing:
        """Return the actual cost of a million tokens, idle capacity included."""
        return unit_cost(self.actual, self.tokens, weights)

    def unit_charge(self) -> UnitCost | UnitCostMissing:
        """Return what was charged for a million tokens."""
        return unit_cost(self.charged, self.tokens)


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """A span of time, row by row.

    Attributes:
        capacity_cost: What all capacity in the span cost, counted on its own.
    """

    by: ReportBy
    since_unix_seconds: float
    until_unix_seconds: float
    rows: tuple[ReportRow, ...]
    total: ReportRow
    capacity_cost: Money

    @property
    def unallocated_drift(self) -> Money:
        """Capacity cost that no row holds; zero, or the ledger has a defect."""
        return self.capacity_cost - self.total.actual


def _row(subject: Subject, usage: Iterable[UsageLine], costs: Iterable[CostLine]) -> ReportRow:
    lines = list(usage)
    by_part: dict[Part, list[Money]] = defaultdict(list)
    for cost in costs:
        by_part[cost.part].append(cost.amount)
    return ReportRow(
        subject=subject,
        requests=sum(line.requests for line in lines),
        tokens=sum((line.tokens for line in lines), TokenCounts()),
        charged=Money(exact_sum(line.charged.amount for line in lines)),
        parts={
            part: Money(exact_sum(amount.amount for amount in by_part[part]))
            for part in Part
            if part in by_part
        },
    )


def build_report(
    by: ReportBy,
    usage: Iterable[UsageLine],
    costs: Iterable[CostLine],
    *,
    capacity_cost: Money,
    since_unix_seconds: float,
    until_unix_seconds: float,
) -> Report:
    """Group lines into rows and add them up.

    Args:
        by: What a row stands for.
        usage: Every charge in the span, in any order and grouping.
        costs: Every part of the capacity cost in the span.
        capacity_cost: The same cost, counted from capacity alone.
        since_unix_seconds: First instant of the span.
        until_unix_seconds: First instant after it.
    """
    usage, costs = list(usage), list(costs)
    usage_of: dict[Subject, list[UsageLine]] = defaultdict(list)
    costs_of: dict[Subject, list[CostLine]] = defaultdict(list)
    for line in usage:
        usage_of[line.subject.for_report(by)].append(line)
    for cost in costs:
        costs_of[cost.subject.for_report(by)].append(cost)
    subjects = sorted(usage_of.keys() | costs_of.keys(), key=Subject.sort_key)
    return Report(
        by=by,
        since_unix_seconds=since_unix_seconds,
        until_unix_seconds=until_unix_seconds,
        rows=tuple(_row(s, usage_of.get(s, ()), costs_of.get(s, ())) for s in subjects),
        total=_row(Subject(), usage, costs),
        capacity_cost=capacity_cost,
    )
