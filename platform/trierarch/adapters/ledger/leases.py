"""Leases of tenants' budgets: granted, renewed, settled and given back, by the only writer."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from trierarch.adapters.ledger.instants import to_microseconds
from trierarch.adapters.ledger.tables import LeaseRow
from trierarch.adapters.ledger.tenants import load_terms, spent_by_day
from trierarch.core.identifiers import HolderId, TenantId
from trierarch.core.usage import UsageRecord
from trierarch.cost.budgets import NOTHING, Period, day_of, first_day
from trierarch.cost.exact import exact_sum
from trierarch.cost.leases import Lease, LeaseAsk, LeaseRound, answer_ask, is_short

WANTED_SECONDS = 2.0
"""How long holders give back what another process lacked; it asks again sooner than that."""

_MICROSECONDS = 1_000_000

# Built once: settling runs beside the gateway's event loop all the time.
_SELECT_SETTLING = select(
    LeaseRow.holder, LeaseRow.tenant, LeaseRow.settled, LeaseRow.expires_unix_microseconds
).where(tuple_(LeaseRow.holder, LeaseRow.tenant).in_(bindparam("leases", expanding=True)))

_SETTLE = (
    update(LeaseRow)
    .where(LeaseRow.holder == bindparam("of_holder"), LeaseRow.tenant == bindparam("of_tenant"))
    .values(settled=bindparam("now_settled"))
)

Key = tuple[str, str]
"""Holder and tenant."""


@functools.cache
def _write_leases(dialect_name: str) -> Any:
    """Return an INSERT that overwrites a lease."""
    dialect = postgresql if dialect_name == "postgresql" else sqlite
    statement = dialect.insert(LeaseRow)
    kept = {"holder", "tenant", "spool", "wanted_unix_microseconds"}
    columns = [column.name for column in LeaseRow.__table__.columns if column.name not in kept]
    return statement.on_conflict_do_update(
        index_elements=["holder", "tenant"],
        set_={name: statement.excluded[name] for name in columns},
    )


def exchange(
    connection: Connection,
    spool: str,
    asks: Sequence[LeaseAsk],
    lease_seconds: float,
    now_unix_seconds: float,
) -> LeaseRound:
    """Answer the asks of one process.

    Args:
        connection: Of the only writer.
        spool: Identity of the asker's spool folder.
        asks: One at most for each lease.
        lease_seconds: How long a lease lives without being renewed.
        now_unix_seconds: Wall time.
    """
    since = first_day(Period.MONTH, day_of(now_unix_seconds))
    tenants = sorted({ask.tenant for ask in asks})
    terms = load_terms(connection, tenants)
    spent = spent_by_day(connection, since, tenants)
    leases = _load(connection, LeaseRow.tenant.in_(tenants))
    answers = []
    for ask in asks:
        known = leases[ask.tenant]
        lease, answer = answer_ask(
            ask,
            terms.get(ask.tenant),
            spent.get(ask.tenant, {}),
            list(known.values()),
            now_unix_seconds=now_unix_seconds,
            lease_seconds=lease_seconds,
        )
        known[lease.holder] = lease
        answers.append(answer)
        row = {
            "holder": lease.holder,
            "tenant": ask.tenant,
            "spool": spool,
            "granted": lease.granted_usd,
            "settled": lease.settled_usd,
            "spare": lease.spare_usd,
            "expires_unix_microseconds": to_microseconds(lease.expires_unix_seconds),
            "wanted_unix_microseconds": 0,
        }
        connection.execute(_write_leases(connection.dialect.name), row)
        if is_short(ask, answer):
            connection.execute(
                update(LeaseRow)
                .where(LeaseRow.tenant == ask.tenant, LeaseRow.holder != ask.holder)
                .values(wanted_unix_microseconds=to_microseconds(now_unix_seconds))
            )
    _forget_used_up(connection, leases, now_unix_seconds)
    return LeaseRound(answers, wanted(connection, spool, now_unix_seconds))


def wanted(connection: Connection, spool: str, now_unix_seconds: float) -> frozenset[TenantId]:
    """Return the tenants of whom another process lacks what this one holds."""
    since = to_microseconds(now_unix_seconds - WANTED_SECONDS)
    query = select(LeaseRow.tenant).where(
        LeaseRow.spool == spool, LeaseRow.wanted_unix_microseconds > since
    )
    return frozenset(map(TenantId, connection.scalars(query)))


def settle(connection: Connection, new: Iterable[UsageRecord]) -> Mapping[Key, int]:
    """Take the charges of new requests off the leases they were reserved on.

    Returns:
        The day until which each of these leases was alive at least, by holder and tenant.
    """
    charges: dict[Key, list[Decimal]] = defaultdict(list)
    for record in new:
        if record.holder:
            charges[record.holder, record.tenant].append(record.charge.amount)
    if not charges:
        return {}
    days: dict[Key, int] = {}
    rows = connection.execute(_SELECT_SETTLING, {"leases": list(charges)}).all()
    for holder, tenant, settled, expires in rows:
        key = (holder, tenant)
        days[key] = day_of(expires / _MICROSECONDS)
        connection.execute(
            _SETTLE,
            {
                "of_holder": holder,
                "of_tenant": tenant,
                "now_settled": exact_sum([settled, *charges[key]]),
            },
        )
    return days


def end_leases(connection: Connection, spool: str, except_holder: HolderId | None = None) -> None:
    """Forget the leases of a spool folder from which every charge has come.

    Args:
        connection: Of the only writer.
        spool: Identity of the folder.
        except_holder: A prefix of the holders that live.
    """
    statement = delete(LeaseRow).where(LeaseRow.spool == spool)
    if except_holder is not None:
        statement = statement.where(~LeaseRow.holder.startswith(except_holder, autoescape=True))
    connection.execute(statement)


def lapsed_by_day(
    connection: Connection, since_day: int, now_unix_seconds: float
) -> dict[TenantId, dict[int, Decimal]]:
    """Return what may still be charged on lapsed leases, by the day they lapsed on."""
    found: dict[TenantId, dict[int, Decimal]] = defaultdict(dict)
    has_lapsed = LeaseRow.expires_unix_microseconds <= to_microseconds(now_unix_seconds)
    for tenant, leases in _load(connection, has_lapsed).items():
        for lease in leases.values():
            day = day_of(lease.expires_unix_seconds)
            if day >= since_day and lease.outstanding_usd:
                before = found[tenant].get(day, NOTHING)
                found[tenant][day] = exact_sum([before, lease.outstanding_usd])
    return found


def _load(
    connection: Connection, condition: ColumnElement[bool]
) -> dict[TenantId, dict[HolderId, Lease]]:
    query = select(*LeaseRow.__table__.columns).where(condition)
    found: dict[TenantId, dict[HolderId, Lease]] = defaultdict(dict)
    for row in connection.execute(query):
        holder = HolderId(row.holder)
        found[TenantId(row.tenant)][holder] = Lease(
            holder,
            row.granted,
            row.settled,
            row.spare,
            row.expires_unix_microseconds / _MICROSECONDS,
        )
    return found


def _forget_used_up(
    connection: Connection,
    leases: Mapping[TenantId, Mapping[HolderId, Lease]],
    now_unix_seconds: float,
) -> None:
    """Forget lapsed leases on which nothing more can be charged, or that no period counts."""
    month = first_day(Period.MONTH, day_of(now_unix_seconds))
    for tenant, known in leases.items():
        for lease in known.values():
            if lease.expires_unix_seconds > now_unix_seconds:
                continue
            if not lease.outstanding_usd or day_of(lease.expires_unix_seconds) < month:
                connection.execute(
                    delete(LeaseRow).where(
                        LeaseRow.holder == lease.holder, LeaseRow.tenant == tenant
                    )
                )
