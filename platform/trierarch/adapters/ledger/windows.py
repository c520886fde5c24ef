"""Allocation windows: closed once, split again when something late changes them.

A closed window keeps the rule it was split by. Capacity that changes inside a closed
window splits it again in the same transaction, so the ledger never holds parts that do
not add up; usage that arrives late marks it stale, and the next round splits it again.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from trierarch.adapters.ledger.capacity import Touched, load_intervals
from trierarch.adapters.ledger.instants import MICROSECONDS_PER_SECOND, to_microseconds
from trierarch.adapters.ledger.tables import AllocationRow, CapacityRow, UsageRow, WindowRow
from trierarch.core.clock import utc_datetime
from trierarch.core.errors import InvalidInput
from trierarch.core.identifiers import ModelName, ReplicaId, TenantId
from trierarch.core.quantities import Money, TokenCounts
from trierarch.core.usage import Outcome, UsageRecord
from trierarch.cost.allocation import (
    Allocation,
    AllocationRule,
    IdlePayer,
    ServedRequest,
    allocate,
    capacity_cost,
)
from trierarch.cost.exact import exact_sum
from trierarch.cost.unit_cost import ServingWeights

_CLOSED_UNTIL = select(func.max(WindowRow.end_unix_microseconds)).where(
    WindowRow.model == bindparam("model")
)
"""Built once: it runs with every settlement."""


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """A closed window as it is stored."""

    window_id: int
    model: ModelName
    start_unix_microseconds: int
    end_unix_microseconds: int
    rule: AllocationRule


def load_requests(
    connection: Connection,
    model: ModelName,
    start_unix_microseconds: int,
    end_unix_microseconds: int,
) -> list[ServedRequest]:
    """Return every request of a model that ran in a window."""
    query = select(
        UsageRow.replica_id,
        UsageRow.tenant,
        UsageRow.input_tokens,
        UsageRow.cached_tokens,
        UsageRow.output_tokens,
        UsageRow.reasoning_tokens,
        UsageRow.outcome,
        UsageRow.started_unix_microseconds,
        UsageRow.finished_unix_microseconds,
    ).where(
        UsageRow.model == model,
        UsageRow.finished_unix_microseconds > start_unix_microseconds,
        UsageRow.started_unix_microseconds < end_unix_microseconds,
    )
    return [
        ServedRequest(
            ReplicaId(replica_id),
            TenantId(tenant),
            TokenCounts(input_tokens, cached_tokens, output_tokens, reasoning_tokens),
            Outcome(outcome),
            started,
            finished,
        )
        for (
            replica_id,
            tenant,
            input_tokens,
            cached_tokens,
            output_tokens,
            reasoning_tokens,
            outcome,
            started,
            finished,
        ) in connection.execute(query)
    ]


def compute(
    connection: Connection,
    model: ModelName,
    start_unix_microseconds: int,
    end_unix_microseconds: int,
    rule: AllocationRule,
) -> Allocation:
    """Split a window by what the ledger holds now, without storing the result."""
    return allocate(
        load_intervals(connection, model, start_unix_microseconds, end_unix_microseconds),
        load_requests(connection, model, start_unix_microseconds, end_unix_microseconds),
        start_unix_microseconds=start_unix_microseconds,
        end_unix_microseconds=end_unix_microseconds,
        rule=rule,
    )


def load_windows(
    connection: Connection,
    model: ModelName | None = None,
    *,
    since_unix_microseconds: int | None = None,
    until_unix_microseconds: int | None = None,
    only_stale: bool = False,
) -> list[Window]:
    """Return closed windows that touch a span of time, by model and start."""
    query = select(
        WindowRow.id,
        WindowRow.model,
        WindowRow.start_unix_microseconds,
        WindowRow.end_unix_microseconds,
        WindowRow.idle_payer,
        WindowRow.owner,
        WindowRow.input_weight,
        WindowRow.cached_weight,
        WindowRow.output_weight,
    ).order_by(WindowRow.model, WindowRow.start_unix_microseconds)
    if model is not None:
        query = query.where(WindowRow.model == model)
    if since_unix_microseconds is not None:
        query = query.where(WindowRow.end_unix_microseconds > since_unix_microseconds)
    if until_unix_microseconds is not None:
        query = query.where(WindowRow.start_unix_microseconds < until_unix_microseconds)
    if only_stale:
        query = query.where(WindowRow.stale)
    return [
        Window(
            row.id,
            ModelName(row.model),
            row.start_unix_microseconds,
            row.end_unix_microseconds,
            AllocationRule(
                ServingWeights(row.input_weight, row.cached_weight, row.output_weight),
                IdlePayer(row.idle_payer),
                TenantId(row.owner),
            ),
        )
        for row in connection.execute(query)
    ]


def last_rule(connection: Connection, model: ModelName) -> AllocationRule:
    """Return the rule of a model's last window, or the default if it has none."""
    last = connection.scalar(_CLOSED_UNTIL, {"model": model})
    if last is None:
        return AllocationRule()
    return load_windows(connection, model, since_unix_microseconds=last - 1)[-1].rule


def close_window(
    connection: Connection,
    model: ModelName,
    start_unix_microseconds: int,
    end_unix_microseconds: int,
    rule: AllocationRule,
    now_unix_microseconds: int,
) -> Allocation:
    """Split a window and store it; the same window again is split again.

    Raises:
        InvalidInput: If it is empty, reaches into the future, or cuts into another one.
    """
    start, end = start_unix_microseconds, end_unix_microseconds
    if end <= start:
        raise InvalidInput("an allocation window must end after it starts")
    if end > now_unix_microseconds:
        raise InvalidInput("an allocation window cannot be closed before it is over")
    for other in load_windows(
        connection, model, since_unix_microseconds=start, until_unix_microseconds=end
    ):
        if (other.start_unix_microseconds, other.end_unix_microseconds) != (start, end):
            began = utc_datetime(other.start_unix_microseconds / MICROSECONDS_PER_SECOND)
            raise InvalidInput(
                f"the window overlaps the one of '{model}' that began at {began:%Y-%m-%dT%H:%M:%SZ}"
            )
        connection.execute(delete(WindowRow).where(WindowRow.id == other.window_id))
    allocation = compute(connection, model, start, end, rule)
    window_id = connection.execute(
        insert(WindowRow)
        .values(
            model=model,
            start_unix_microseconds=start,
            end_unix_microseconds=end,
            capacity_cost=allocation.capacity_cost.amount,
            unmatched_requests=allocation.unmatched_requests,
            idle_payer=rule.idle_payer.value,
            owner=rule.owner,
            input_weight=rule.weights.input_weight,
            cached_weight=rule.weights.cached_weight,
            output_weight=rule.weights.output_weight,
            stale=False,
            allocated_unix_microseconds=now_unix_microseconds,
        )
        .returning(WindowRow.id)
    ).scalar_one()
    if allocation.parts:
        connection.execute(
            insert(AllocationRow),
            [
                {
                    "window_id": window_id,
                    "variant": part.variant,
                    "tenant": part.tenant,
                    "part": part.part.value,
                    "amount": part.amount.amount,
                    "currency": part.amount.currency,
                }
                for part in allocation.parts
            ],
        )
    return allocation


def split_again(
    connection: Connection, windows: Iterable[Window], now_unix_microseconds: int
) -> int:
    """Split closed windows again by their own rules and return how many there were."""
    count = 0
    for window in windows:
        close_window(
            connection,
            window.model,
            window.start_unix_microseconds,
            window.end_unix_microseconds,
            window.rule,
            max(now_unix_microseconds, window.end_unix_microseconds),
        )
        count += 1
    return count


def split_touched(
    connection: Connection, touched: Iterable[Touched], now_unix_microseconds: int
) -> None:
    """Split every closed window again whose capacity cost was changed."""
    first: dict[ModelName, int] = {}
    for change in touched:
        since = change.since_unix_microseconds
        first[change.model] = min(first.get(change.model, since), since)
    for model, since in first.items():
        windows = load_windows(connection, model, since_unix_microseconds=since)
        split_again(connection, windows, now_unix_microseconds)


def mark_stale(connection: Connection, new: Sequence[UsageRecord]) -> None:
    """Mark the closed windows in which late usage ran."""
    by_model: dict[ModelName, list[UsageRecord]] = defaultdict(list)
    for record in new:
        by_model[record.model].append(record)
    for model, records in by_model.items():
        closed_until = connection.scalar(_CLOSED_UNTIL, {"model": model})
        for record in records:
            started = to_microseconds(record.started_unix_seconds)
            if closed_until is None or started >= closed_until:
                continue
            connection.execute(
                update(WindowRow)
                .where(
                    WindowRow.model == model,
                    WindowRow.start_unix_microseconds
                    < to_microseconds(record.finished_unix_seconds),
                    WindowRow.end_unix_microseconds > started,
                )
                .values(stale=True)
            )


def models_with_capacity(connection: Connection) -> list[ModelName]:
    """Return every model that ever had a replica."""
    query = select(CapacityRow.model).distinct().order_by(CapacityRow.model)
    return [ModelName(model) for model in connection.scalars(query)]


def next_due(
    connection: Connection,
    model: ModelName,
    window_microseconds: int,
    before_unix_microseconds: int,
) -> tuple[int, int] | None:
    """Return the next window on the grid that has capacity and is over, or None."""
    closed_until = connection.scalar(_CLOSED_UNTIL, {"model": model})
    until = func.coalesce(
        CapacityRow.ended_unix_microseconds, CapacityRow.heartbeat_unix_microseconds
    )
    query = select(func.min(CapacityRow.started_unix_microseconds)).where(
        CapacityRow.model == model
    )
    if closed_until is not None:
        query = query.where(until > closed_until)
    first = connection.scalar(query)
    if first is None:
        return None
    earliest = first if closed_until is None else max(first, closed_until)
    start = earliest // window_microseconds * window_microseconds
    if closed_until is not None:
        start = max(start, closed_until)
    end = (start // window_microseconds + 1) * window_microseconds
    return (start, end) if end <= before_unix_microseconds else None


def drift(connection: Connection, since_unix_microseconds: int = 0) -> Money:
    """Return capacity cost minus stored parts over all closed windows; 0, or a defect."""
    query = (
        select(AllocationRow.amount)
        .join(WindowRow, WindowRow.id == AllocationRow.window_id)
        .where(WindowRow.end_unix_microseconds > since_unix_microseconds)
    )
    parts = exact_sum(connection.scalars(query))
    spans: list[tuple[ModelName, int, int]] = []
    for window in load_windows(connection, since_unix_microseconds=since_unix_microseconds):
        start, end = window.start_unix_microseconds, window.end_unix_microseconds
        if spans and spans[-1][0] == window.model and spans[-1][2] == start:
            spans[-1] = (window.model, spans[-1][1], end)
        else:
            spans.append((window.model, start, end))
    costs = [
        capacity_cost(load_intervals(connection, model, start, end), start, end).amount
        for model, start, end in spans
    ]
    return Money(exact_sum([*costs, -parts]))
