"""Usage: one row per request id, and each tenant's running total beside it."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from trierarch.adapters.ledger import leases
from trierarch.adapters.ledger.instants import to_microseconds
from trierarch.adapters.ledger.tables import TenantTotalRow, UsageRow
from trierarch.adapters.ledger.tenants import add_to_days
from trierarch.core.errors import InvalidInput
from trierarch.core.identifiers import TenantId
from trierarch.core.quantities import ZERO_USD, Money, TokenCounts
from trierarch.core.usage import UsageRecord
from trierarch.cost.exact import exact_sum
from trierarch.ports import TenantUsage

NOTHING_USED = TenantUsage(0, TokenCounts(), ZERO_USD)
"""The total of a tenant that never sent a request."""

_Insert = sqlite.Insert | postgresql.Insert

# Statements are built once: settling runs beside the gateway's event loop all the time,
# and building costs more than running them. Values always go beside the statement.
_SELECT_TOTALS = select(
    TenantTotalRow.tenant,
    TenantTotalRow.requests,
    TenantTotalRow.input_tokens,
    TenantTotalRow.cached_tokens,
    TenantTotalRow.output_tokens,
    TenantTotalRow.reasoning_tokens,
    TenantTotalRow.charge,
    TenantTotalRow.currency,
).where(TenantTotalRow.tenant.in_(bindparam("tenants", expanding=True)))


def _insert(dialect_name: str, table: type[UsageRow | TenantTotalRow]) -> _Insert:
    return postgresql.insert(table) if dialect_name == "postgresql" else sqlite.insert(table)


@functools.cache
def _insert_new_usage(dialect_name: str) -> Any:
    """Return an INSERT that passes over known requests and returns the ids of new ones."""
    insert = _insert(dialect_name, UsageRow).on_conflict_do_nothing()
    return insert.returning(UsageRow.request_id)


@functools.cache
def _write_totals(dialect_name: str) -> Any:
    """Return an INSERT that overwrites a tenant's total."""
    insert = _insert(dialect_name, TenantTotalRow)
    columns = [column.name for column in TenantTotalRow.__table__.columns]
    return insert.on_conflict_do_update(
        index_elements=["tenant"],
        set_={name: insert.excluded[name] for name in columns if name != "tenant"},
    )


def _row(record: UsageRecord) -> dict[str, Any]:
    if record.charge.currency != ZERO_USD.currency:
        raise InvalidInput(f"the ledger keeps {ZERO_USD.currency}, not {record.charge.currency}")
    return {
        "request_id": record.request_id,
        "tenant": record.tenant,
        "key_id": record.key_id,
        "model": record.model,
        "variant": record.variant,
        "tier": record.tier.value,
        "outcome": record.outcome.value,
        **_token_columns(record.tokens),
        "charge": record.charge.amount,
        "currency": record.charge.currency,
        "replica_id": record.replica_id,
        "trace_id": record.trace_id,
        "started_unix_microseconds": to_microseconds(record.started_unix_seconds),
        "finished_unix_microseconds": to_microseconds(record.finished_unix_seconds),
    }


def _token_columns(tokens: TokenCounts) -> dict[str, int]:
    return {
        "input_tokens": tokens.input_tokens,
        "cached_tokens": tokens.cached_tokens,
        "output_tokens": tokens.output_tokens,
        "reasoning_tokens": tokens.reasoning_tokens,
    }


def insert_usage(connection: Connection, records: Iterable[UsageRecord]) -> list[UsageRecord]:
    """Insert the records whose ids are new and return those.

    Of two records with one id the first one counts, in the table and in the totals.
    """
    first: dict[str, UsageRecord] = {}
    for record in records:
        first.setdefault(record.request_id, record)
    if not first:
        return []
    inserted = connection.scalars(
        _insert_new_usage(connection.dialect.name), [_row(record) for record in first.values()]
    )
    new = [first[request_id] for request_id in inserted]
    _add_to_totals(connection, new)
    add_to_days(connection, new, leases.settle(connection, new))
    return new


def _add_to_totals(connection: Connection, new: Sequence[UsageRecord]) -> None:
    by_tenant: dict[TenantId, list[UsageRecord]] = defaultdict(list)
    for record in new:
        by_tenant[record.tenant].append(record)
    if not by_tenant:
        return
    totals = _totals(connection, by_tenant)
    rows = []
    for tenant, records in sorted(by_tenant.items()):
        before = totals.get(tenant, NOTHING_USED)
        tokens = sum((record.tokens for record in records), before.tokens)
        charges = (record.charge.amount for record in records)
        rows.append(
            {
                "tenant": tenant,
                "requests": before.requests + len(records),
                **_token_columns(tokens),
                "charge": exact_sum([before.spend.amount, *charges]),
                "currency": before.spend.currency,
            }
        )
    connection.execute(_write_totals(connection.dialect.name), rows)


def _totals(connection: Connection, tenants: Collection[TenantId]) -> dict[TenantId, TenantUsage]:
    rows = connection.execute(_SELECT_TOTALS, {"tenants": list(tenants)})
    return {
        TenantId(tenant): TenantUsage(
            requests,
            TokenCounts(input_tokens, cached_tokens, output_tokens, reasoning_tokens),
            Money(charge, currency),
        )
        for (
            tenant,
            requests,
            input_tokens,
            cached_tokens,
            output_tokens,
            reasoning_tokens,
            charge,
            currency,
        ) in rows
    }


def tenant_usage(connection: Connection, tenant: TenantId) -> TenantUsage:
    """Return a tenant's totals; zeros if it never sent a request."""
    return _totals(connection, [tenant]).get(tenant, NOTHING_USED)
