"""Tenants' terms, and what each has spent by day: what budgets are measured by."""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from trierarch.adapters.ledger.audit import record_change
from trierarch.adapters.ledger.tables import TenantDayRow, TenantRow
from trierarch.core.identifiers import TenantId
from trierarch.core.usage import UsageRecord
from trierarch.cost.budgets import TenantTerms, day_of
from trierarch.cost.exact import exact_sum

SpentByDay = Mapping[TenantId, Mapping[int, Decimal]]
"""Dollars charged, by tenant and calendar day in UTC."""

# Built once: settling runs beside the gateway's event loop all the time.
_SELECT_DAYS = select(TenantDayRow.tenant, TenantDayRow.day, TenantDayRow.charge).where(
    tuple_(TenantDayRow.tenant, TenantDayRow.day).in_(bindparam("days", expanding=True))
)


@functools.cache
def _write_days(dialect_name: str) -> Any:
    """Return an INSERT that overwrites a tenant's day."""
    dialect = postgresql if dialect_name == "postgresql" else sqlite
    statement = dialect.insert(TenantDayRow)
    return statement.on_conflict_do_update(
        index_elements=["tenant", "day"], set_={"charge": statement.excluded.charge}
    )


def add_to_days(
    connection: Connection, new: Iterable[UsageRecord], lapsed: Mapping[tuple[str, str], int]
) -> None:
    """Add the charges of new requests to the days on which they finished.

    Args:
        connection: Of the only writer.
        new: Finished requests.
        lapsed: Until which day leases were alive, by holder and tenant. A charge counts no later
            than that: budgets of later days were given out without it.
    """
    charges: dict[tuple[str, int], list[Decimal]] = defaultdict(list)
    for record in new:
        if record.charge.amount:
            day = day_of(record.finished_unix_seconds)
            day = min(day, lapsed.get((record.holder, record.tenant), day))
            charges[record.tenant, day].append(record.charge.amount)
    if not charges:
        return
    known = connection.execute(_SELECT_DAYS, {"days": list(charges)})
    for tenant, day, charge in known:
        charges[tenant, day].append(charge)
    rows = [
        {"tenant": tenant, "day": day, "charge": exact_sum(amounts)}
        for (tenant, day), amounts in sorted(charges.items())
    ]
    connection.execute(_write_days(connection.dialect.name), rows)


def spent_by_day(
    connection: Connection, since_day: int, tenants: Collection[TenantId] | None = None
) -> SpentByDay:
    """Return what these tenants, or all, were charged on each day from one on."""
    found: dict[TenantId, dict[int, Decimal]] = defaultdict(dict)
    query = select(TenantDayRow.tenant, TenantDayRow.day, TenantDayRow.charge)
    query = query.where(TenantDayRow.day >= since_day)
    if tenants is not None:
        query = query.where(TenantDayRow.tenant.in_(tenants))
    for tenant, day, charge in connection.execute(query):
        found[TenantId(tenant)][day] = charge
    return found


def load_terms(
    connection: Connection, tenants: Collection[TenantId] | None = None
) -> dict[TenantId, TenantTerms]:
    """Return the terms of these tenants, or of all, that have any."""
    query = select(TenantRow.tenant, TenantRow.terms)
    if tenants is not None:
        query = query.where(TenantRow.tenant.in_(tenants))
    rows = connection.execute(query)
    return {TenantId(tenant): TenantTerms.from_record(json.loads(terms)) for tenant, terms in rows}


def replace_terms(
    connection: Connection, terms: Sequence[TenantTerms], actor: str, at_unix_microseconds: int
) -> int:
    """Make these the terms of all tenants; return how many changed."""
    before = load_terms(connection)
    after = {one.tenant: one for one in terms}
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if not changed:
        return 0
    connection.execute(delete(TenantRow).where(TenantRow.tenant.in_(changed)))
    for name in sorted(changed):
        record = json.dumps(after[name].as_record(), sort_keys=True) if name in after else None
        if record is not None:
            connection.execute(insert(TenantRow).values(tenant=name, terms=record))
        record_change(
            connection,
            at_unix_microseconds=at_unix_microseconds,
            actor=actor,
            action="tenant.set" if record is not None else "tenant.remove",
            subject=name,
            details={} if record is None else {"terms": record},
        )
    return len(changed)
