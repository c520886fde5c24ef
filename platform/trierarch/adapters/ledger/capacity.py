"""Capacity: every replica from its provision to its release, state by state.

An open interval counts until its last heartbeat: time that nobody saw the replica
alive in costs nothing until somebody does. A crash of the whole platform therefore
leaves nothing that goes on costing. When the price changes, an open interval is cut,
so that each row has one price; a price that is imported late counts from the last
heartbeat before the import, because what has been paid is not paid again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal

from sqlalchemy import Connection, Row, func, insert, select, update

from trierarch.adapters.ledger.instants import to_microseconds, to_seconds
from trierarch.adapters.ledger.tables import CapacityRow
from trierarch.core.errors import InvalidInput
from trierarch.core.identifiers import ModelName, ReplicaId, VariantName
from trierarch.core.replicas import ReplicaState
from trierarch.cost.allocation import CapacityInterval
from trierarch.cost.prices import (
    ANY_REGION,
    CapacityType,
    PriceBook,
    PriceEntry,
    PriceKey,
    StalePrice,
)


@dataclasses.dataclass(frozen=True, slots=True)
class CapacityUnit:
    """What a replica is made of: all the ledger needs to price it.

    Attributes:
        accelerators: Of the whole expert-parallel group; for CPU the number of cores.
        usd_per_accelerator_hour: None takes the price book; a figure overrules it.
    """

    replica_id: ReplicaId
    model: ModelName
    variant: VariantName
    accelerator: str
    accelerators: int
    capacity_type: CapacityType = CapacityType.ON_DEMAND
    region: str = ANY_REGION
    usd_per_accelerator_hour: Decimal | None = None

    def __post_init__(self) -> None:
        if self.accelerators < 1:
            raise ValueError(f"replica '{self.replica_id}' has no accelerators")
        price = self.usd_per_accelerator_hour
        if price is not None and (not price.is_finite() or price < 0):
            raise ValueError(f"the price of replica '{self.replica_id}' must be zero or more")

    @property
    def price_key(self) -> PriceKey:
        """What to look for in the price book."""
        return PriceKey(self.accelerator, self.capacity_type, self.region)


@dataclasses.dataclass(frozen=True, slots=True)
class ObservedReplica:
    """A replica as it is seen now.

    Attributes:
        started_unix_seconds: When it began to cost money; counts only the first time.
        state_since_unix_seconds: When it came into its state, if that is known; None
            takes the time at which the state is first seen.
    """

    unit: CapacityUnit
    state: ReplicaState
    started_unix_seconds: float
    state_since_unix_seconds: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Touched:
    """Time of a model whose cost was changed: closed windows after it must be split again."""

    model: ModelName
    since_unix_microseconds: int


def _price(book: PriceBook, key: PriceKey, at_unix_microseconds: int) -> Decimal | None:
    found = book.find(key, to_seconds(at_unix_microseconds))
    if isinstance(found, PriceEntry):
        return found.usd_per_accelerator_hour
    if isinstance(found, StalePrice):
        return found.entry.usd_per_accelerator_hour
    return None


def _open_row(connection: Connection, replica_id: ReplicaId) -> Row[tuple[CapacityRow]] | None:
    return connection.execute(
        select(CapacityRow.__table__).where(
            CapacityRow.replica_id == replica_id, CapacityRow.ended_unix_microseconds.is_(None)
        )
    ).one_or_none()


def open_replicas(connection: Connection) -> set[ReplicaId]:
    """Return the replicas whose intervals are open."""
    query = select(CapacityRow.replica_id).where(CapacityRow.ended_unix_microseconds.is_(None))
    return {ReplicaId(replica_id) for replica_id in connection.scalars(query)}


def begin(
    connection: Connection,
    book: PriceBook,
    unit: CapacityUnit,
    state: ReplicaState,
    at_unix_microseconds: int,
) -> Touched | None:
    """Open a replica's first interval; None if it has one already.

    Raises:
        InvalidInput: If the price book has no price for it.
    """
    if _open_row(connection, unit.replica_id) is not None:
        return None
    price = unit.usd_per_accelerator_hour
    if price is None:
        found = book.find(unit.price_key, to_seconds(at_unix_microseconds))
        if isinstance(found, PriceEntry):
            price = found.usd_per_accelerator_hour
        elif isinstance(found, StalePrice):
            price = found.entry.usd_per_accelerator_hour
        else:
            raise InvalidInput(f"{found.message}; add a price with `trierarch prices import`")
    connection.execute(
        insert(CapacityRow).values(
            replica_id=unit.replica_id,
            model=unit.model,
            variant=unit.variant,
            state=state.value,
            accelerator=unit.accelerator,
            capacity_type=unit.capacity_type.value,
            region=unit.region,
            accelerators=unit.accelerators,
            usd_per_accelerator_hour=price,
            price_is_given=unit.usd_per_accelerator_hour is not None,
            started_unix_microseconds=at_unix_microseconds,
            heartbeat_unix_microseconds=at_unix_microseconds,
        )
    )
    return Touched(unit.model, at_unix_microseconds)


def _extend(
    connection: Connection, book: PriceBook, replica_id: ReplicaId, at_unix_microseconds: int
) -> Touched | None:
    """Let the open interval last until an instant, cut where its price changes."""
    row = _open_row(connection, replica_id)
    if row is None:
        return None
    was_alive = row.heartbeat_unix_microseconds
    if at_unix_microseconds < was_alive:
        # The clock went back: what was seen alive stays paid.
        return Touched(ModelName(row.model), was_alive)
    key = PriceKey(row.accelerator, CapacityType(row.capacity_type), row.region)
    price = row.usd_per_accelerator_hour
    cut_at: int | None = was_alive
    while cut_at is not None and cut_at < at_unix_microseconds and not row.price_is_given:
        new_price = _price(book, key, cut_at)
        if new_price is not None and new_price != price:
            price = new_price
            _cut(connection, replica_id, cut_at, usd_per_accelerator_hour=price)
        change = book.next_change_unix_seconds(key, to_seconds(cut_at))
        cut_at = None if change is None else max(to_microseconds(change), cut_at + 1)
    connection.execute(
        update(CapacityRow)
        .where(CapacityRow.replica_id == replica_id, CapacityRow.ended_unix_microseconds.is_(None))
        .values(heartbeat_unix_microseconds=at_unix_microseconds)
    )
    return Touched(ModelName(row.model), was_alive)


def _close(connection: Connection, replica_id: ReplicaId, at_unix_microseconds: int) -> None:
    connection.execute(
        update(CapacityRow)
        .where(CapacityRow.replica_id == replica_id, CapacityRow.ended_unix_microseconds.is_(None))
        .values(
            heartbeat_unix_microseconds=at_unix_microseconds,
            ended_unix_microseconds=at_unix_microseconds,
        )
    )


def _cut(
    connection: Connection,
    replica_id: ReplicaId,
    at_unix_microseconds: int,
    *,
    usd_per_accelerator_hour: Decimal | None = None,
    state: ReplicaState | None = None,
) -> None:
    """Close the open interval and open one like it with another price or state."""
    row = _open_row(connection, replica_id)
    if row is None:
        raise InvalidInput(f"replica '{replica_id}' has no open capacity interval")
    values = dict(row._mapping)
    del values["id"]
    if usd_per_accelerator_hour is not None:
        values["usd_per_accelerator_hour"] = usd_per_accelerator_hour
    if state is not None:
        values["state"] = state.value
    values["started_unix_microseconds"] = at_unix_microseconds
    values["heartbeat_unix_microseconds"] = at_unix_microseconds
    _close(connection, replica_id, at_unix_microseconds)
    connection.execute(insert(CapacityRow).values(values))


def heartbeat(
    connection: Connection,
    book: PriceBook,
    replica_ids: Iterable[ReplicaId],
    at_unix_microseconds: int,
) -> list[Touched]:
    """Say that replicas are alive; those without an open interval are passed over."""
    extended = (_extend(connection, book, r, at_unix_microseconds) for r in replica_ids)
    return [touched for touched in extended if touched is not None]


def transition(
    connection: Connection,
    book: PriceBook,
    replica_id: ReplicaId,
    state: ReplicaState,
    at_unix_microseconds: int,
) -> Touched:
    """Move a replica to another state; the state it is in changes nothing but its heartbeat.

    Raises:
        InvalidInput: If it has no open interval.
    """
    touched = _extend(connection, book, replica_id, at_unix_microseconds)
    row = _open_row(connection, replica_id)
    if touched is None or row is None:
        raise InvalidInput(f"replica '{replica_id}' has no open capacity interval")
    if row.state != state.value:
        _cut(connection, replica_id, row.heartbeat_unix_microseconds, state=state)
    return touched


def end(
    connection: Connection, book: PriceBook, replica_id: ReplicaId, at_unix_microseconds: int
) -> Touched | None:
    """Release a replica; None if it has no open interval."""
    touched = _extend(connection, book, replica_id, at_unix_microseconds)
    row = _open_row(connection, replica_id)
    if touched is None or row is None:
        return None
    _close(connection, replica_id, row.heartbeat_unix_microseconds)
    return touched


def close_orphans(connection: Connection, alive: Collection[ReplicaId]) -> list[ReplicaId]:
    """End, at its last heartbeat, every open interval of a replica that is gone."""
    orphans = sorted(open_replicas(connection) - set(alive))
    for replica_id in orphans:
        row = _open_row(connection, replica_id)
        if row is not None:
            _close(connection, replica_id, row.heartbeat_unix_microseconds)
    return orphans


def observe(
    connection: Connection,
    book: PriceBook,
    observed: Sequence[ObservedReplica],
    at_unix_microseconds: int,
) -> list[Touched]:
    """Make the intervals say what is seen: begin, move, keep alive, and end what is gone."""
    touched: list[Touched] = []
    for replica in observed:
        unit, now = replica.unit, at_unix_microseconds
        if _open_row(connection, unit.replica_id) is None:
            started = min(to_microseconds(replica.started_unix_seconds), now)
            begun = begin(connection, book, unit, ReplicaState.STARTING, started)
            touched += [begun] if begun else []
        if replica.state_since_unix_seconds is not None:
            since = min(to_microseconds(replica.state_since_unix_seconds), now)
            touched.append(transition(connection, book, unit.replica_id, replica.state, since))
        touched.append(transition(connection, book, unit.replica_id, replica.state, now))
    close_orphans(connection, {r.unit.replica_id for r in observed})
    return touched


def load_intervals(
    connection: Connection,
    model: ModelName,
    start_unix_microseconds: int,
    end_unix_microseconds: int,
) -> list[CapacityInterval]:
    """Return every interval of a model that touches a window."""
    until = func.coalesce(
        CapacityRow.ended_unix_microseconds, CapacityRow.heartbeat_unix_microseconds
    )
    query = select(
        CapacityRow.replica_id,
        CapacityRow.variant,
        CapacityRow.state,
        CapacityRow.accelerators,
        CapacityRow.usd_per_accelerator_hour,
        CapacityRow.started_unix_microseconds,
        until.label("until"),
    ).where(
        CapacityRow.model == model,
        CapacityRow.started_unix_microseconds < end_unix_microseconds,
        until > start_unix_microseconds,
    )
    return [
        CapacityInterval(
            ReplicaId(row.replica_id),
            VariantName(row.variant),
            ReplicaState(row.state),
            row.accelerators,
            row.usd_per_accelerator_hour,
            row.started_unix_microseconds,
            row.until,
        )
        for row in connection.execute(query.order_by(CapacityRow.id))
    ]
