"""Reports read from one snapshot: stored windows where they are closed, computed elsewhere.

Time that no window covers (the minutes since the last one, or the edges of a span that
cuts through a window) is split on the spot by the rule of the model's last window, so a
report is complete at any moment and its parts always add up.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal

from sqlalchemy import Connection, func, select

from trierarch.adapters.ledger.capacity import load_intervals
from trierarch.adapters.ledger.instants import (
    MICROSECONDS_PER_SECOND,
    to_microseconds,
    to_seconds,
)
from trierarch.adapters.ledger.tables import AllocationRow, CapacityRow, UsageRow
from trierarch.adapters.ledger.windows import (
    Window,
    compute,
    last_rule,
    load_windows,
    models_with_capacity,
)
from trierarch.core.identifiers import ModelName, TenantId, VariantName
from trierarch.core.quantities import Money, TokenCounts
from trierarch.cost.allocation import MICROSECONDS_PER_HOUR, AllocationRule, Part, capacity_cost
from trierarch.cost.exact import RATIO, exact_product, exact_sum
from trierarch.cost.prices import CapacityType
from trierarch.cost.report import CostLine, Report, ReportBy, Subject, UsageLine, build_report
from trierarch.cost.unit_cost import ServingWeights, UnitCost, UnitCostMissing, unit_cost


@dataclasses.dataclass(frozen=True, slots=True)
class SpendRate:
    """How fast a model spends and serves: the autoscaler's cost signal.

    Attributes:
        spend: What its capacity cost in the window.
        tokens: What it served in the window.
        observed_seconds: Length of the window, less the time before its first capacity.
        usd_per_hour: Spend over that time; zero if there was none.
        tokens_per_hour: Tokens over that time.
        current_usd_per_hour: What the replicas that exist now cost per hour.
        unit_cost: Dollars per million tokens, or why it is missing.
    """

    spend: Money
    tokens: TokenCounts
    observed_seconds: float
    usd_per_hour: Decimal
    tokens_per_hour: float
    current_usd_per_hour: Decimal
    unit_cost: UnitCost | UnitCostMissing


@dataclasses.dataclass(frozen=True, slots=True)
class CurrentSpend:
    """What one variant costs per hour now, in whatever state its replicas are."""

    model: ModelName
    variant: VariantName
    capacity_type: CapacityType
    replicas: int
    usd_per_hour: Decimal


def usage_lines(
    connection: Connection,
    start_unix_microseconds: int,
    end_unix_microseconds: int,
    model: ModelName | None = None,
) -> list[UsageLine]:
    """Return what was charged for requests that finished in a span of time.

    Rows with equal charges are counted by the database; the sums stay exact.
    """
    grouping = (UsageRow.tenant, UsageRow.model, UsageRow.variant, UsageRow.charge)
    query = (
        select(
            *grouping,
            func.count(),
            func.sum(UsageRow.input_tokens),
            func.sum(UsageRow.cached_tokens),
            func.sum(UsageRow.output_tokens),
            func.sum(UsageRow.reasoning_tokens),
        )
        .where(
            UsageRow.finished_unix_microseconds >= start_unix_microseconds,
            UsageRow.finished_unix_microseconds < end_unix_microseconds,
        )
        .group_by(*grouping)
    )
    if model is not None:
        query = query.where(UsageRow.model == model)
    return [
        UsageLine(
            Subject(TenantId(tenant), ModelName(model_name), VariantName(variant)),
            count,
            TokenCounts(*(int(tokens) for tokens in token_sums)),
            Money(exact_product(charge, Decimal(count))),
        )
        for tenant, model_name, variant, charge, count, *token_sums in connection.execute(query)
    ]


def _stored_lines(connection: Connection, windows: Iterable[Window]) -> Iterator[CostLine]:
    model_of = {window.window_id: window.model for window in windows}
    if not model_of:
        return
    query = select(
        AllocationRow.window_id,
        AllocationRow.tenant,
        AllocationRow.variant,
        AllocationRow.part,
        AllocationRow.amount,
        AllocationRow.currency,
    ).where(AllocationRow.window_id.between(min(model_of), max(model_of)))
    for window_id, tenant, variant, part, amount, currency in connection.execute(query):
        if window_id in model_of:
            subject = Subject(TenantId(tenant), model_of[window_id], VariantName(variant))
            yield CostLine(subject, Part(part), Money(amount, currency))


def _computed_lines(
    connection: Connection, model: ModelName, start: int, end: int, rule: AllocationRule
) -> Iterator[CostLine]:
    for part in compute(connection, model, start, end, rule).parts:
        yield CostLine(Subject(part.tenant, model, part.variant), part.part, part.amount)


def _cost_lines(connection: Connection, start: int, end: int) -> Iterator[CostLine]:
    for model in models_with_capacity(connection):
        windows = load_windows(
            connection, model, since_unix_microseconds=start, until_unix_microseconds=end
        )
        whole = [
            window
            for window in windows
            if start <= window.start_unix_microseconds and window.end_unix_microseconds <= end
        ]
        yield from _stored_lines(connection, whole)
        rule = last_rule(connection, model)
        position = start
        for window in whole:
            if window.start_unix_microseconds > position:
                yield from _computed_lines(
                    connection, model, position, window.start_unix_microseconds, rule
                )
            position = window.end_unix_microseconds
        if position < end:
            yield from _computed_lines(connection, model, position, end, rule)


def report(
    connection: Connection,
    by: ReportBy,
    since_unix_seconds: float | None,
    until_unix_seconds: float,
) -> Report:
    """Return a report on ``[since, until)``; from the first entry on if since is None."""
    until = to_microseconds(until_unix_seconds)
    since = (
        first_entry(connection, until)
        if since_unix_seconds is None
        else to_microseconds(since_unix_seconds)
    )
    costs = [
        capacity_cost(load_intervals(connection, model, since, until), since, until).amount
        for model in models_with_capacity(connection)
    ]
    return build_report(
        by,
        usage_lines(connection, since, until),
        _cost_lines(connection, since, until),
        capacity_cost=Money(exact_sum(costs)),
        since_unix_seconds=to_seconds(since),
        until_unix_seconds=until_unix_seconds,
    )


def first_entry(connection: Connection, default_unix_microseconds: int) -> int:
    """Return when the first capacity or usage began, or a default if there is none."""
    firsts = (
        connection.scalar(select(func.min(CapacityRow.started_unix_microseconds))),
        connection.scalar(select(func.min(UsageRow.finished_unix_microseconds))),
    )
    return min((first for first in firsts if first is not None), default=default_unix_microseconds)


def current_spend(connection: Connection) -> list[CurrentSpend]:
    """Return what open intervals cost per hour, by model, variant and capacity type."""
    query = select(
        CapacityRow.model,
        CapacityRow.variant,
        CapacityRow.capacity_type,
        CapacityRow.accelerators,
        CapacityRow.usd_per_accelerator_hour,
    ).where(CapacityRow.ended_unix_microseconds.is_(None))
    per_hour: dict[tuple[str, str, str], list[Decimal]] = defaultdict(list)
    for model, variant, capacity_type, accelerators, price in connection.execute(query):
        cost = exact_product(Decimal(accelerators), price)
        per_hour[model, variant, capacity_type].append(cost)
    return [
        CurrentSpend(
            ModelName(model),
            VariantName(variant),
            CapacityType(capacity_type),
            len(costs),
            exact_sum(costs),
        )
        for (model, variant, capacity_type), costs in sorted(per_hour.items())
    ]


def spend_rate(
    connection: Connection,
    model: ModelName,
    variant: VariantName | None,
    now_unix_microseconds: int,
    window_seconds: float,
    weights: ServingWeights | None,
) -> SpendRate:
    """Return how fast a model spent and served in the window that ends now."""
    start = now_unix_microseconds - to_microseconds(window_seconds)
    intervals = [
        interval
        for interval in load_intervals(connection, model, start, now_unix_microseconds)
        if variant in {None, interval.variant}
    ]
    spend = capacity_cost(intervals, start, now_unix_microseconds)
    # A token that finishes at this instant belongs to this window, not to the next one.
    lines = usage_lines(connection, start, now_unix_microseconds + 1, model)
    tokens = sum(
        (line.tokens for line in lines if variant in {None, line.subject.variant}), TokenCounts()
    )
    began = select(func.min(CapacityRow.started_unix_microseconds)).where(
        CapacityRow.model == model
    )
    if variant is not None:
        began = began.where(CapacityRow.variant == variant)
    first = connection.scalar(began)
    observed = 0 if first is None else max(0, now_unix_microseconds - max(start, first))
    hours = RATIO.divide(Decimal(observed), Decimal(MICROSECONDS_PER_HOUR))
    return SpendRate(
        spend=spend,
        tokens=tokens,
        observed_seconds=observed / MICROSECONDS_PER_SECOND,
        usd_per_hour=RATIO.divide(spend.amount, hours) if hours else Decimal(0),
        tokens_per_hour=tokens.total_tokens / float(hours) if hours else 0.0,
        current_usd_per_hour=exact_sum(
            current.usd_per_hour
            for current in current_spend(connection)
            if current.model == model and variant in {None, current.variant}
        ),
        unit_cost=unit_cost(spend, tokens, weights),
    )
