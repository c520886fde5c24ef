"""Usage: one row per request id, and each tenant's running total beside it."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Dialect, select, update
from sqlalchemy.dialects import postgresql, sqlite

from trierarch.adapters.ledger.instants import to_microseconds
from trierarch.adapters.ledger.tables import TenantTotalRow, UsageRow
from trierarch.core.errors import InvalidInput
from trierarch.core.identifiers import TenantId
from trierarch.core.quantities import ZERO_USD, Money, TokenCounts
from trierarch.core.usage import UsageRecord
from trierarch.cost.exact import exact_sum
from trierarch.ports import TenantUsage

ROWS_PER_INSERT = 500
"""17 columns each: well below SQLite's limit of 32,766 values in one statement."""


def insert_ignoring(
    dialect: Dialect, table: type[UsageRow | TenantTotalRow]
) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that leaves rows that exist as they are."""
    if dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


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
        **dataclasses.asdict(record.tokens),
        "charge": record.charge.amount,
        "currency": record.charge.currency,
        "replica_id": record.replica_id,
        "trace_id": record.trace_id,
        "started_unix_microseconds": to_microseconds(record.started_unix_seconds),
        "finished_unix_microseconds": to_microseconds(record.finished_unix_seconds),
    }


def insert_usage(connection: Connection, records: Iterable[UsageRecord]) -> list[UsageRecord]:
    """Insert the records whose ids are new and return those.

    Of two records with one id the first one counts, in the table and in the totals.
    """
    first: dict[str, UsageRecord] = {}
    for record in records:
        first.setdefault(record.request_id, record)
    rows = [_row(record) for record in first.values()]
    new: list[UsageRecord] = []
    for index in range(0, len(rows), ROWS_PER_INSERT):
        statement = insert_ignoring(connection.dialect, UsageRow).values(
            rows[index : index + ROWS_PER_INSERT]
        )
        inserted = connection.scalars(statement.returning(UsageRow.request_id))
        new += [first[request_id] for request_id in inserted]
    _add_to_totals(connection, new)
    return new


def _add_to_totals(connection: Connection, new: Sequence[UsageRecord]) -> None:
    by_tenant: dict[TenantId, list[UsageRecord]] = defaultdict(list)
    for record in new:
        by_tenant[record.tenant].append(record)
    for tenant, records in sorted(by_tenant.items()):
        before = tenant_usage(connection, tenant)
        if before.requests == 0:
            start = {"tenant": tenant, "requests": 0, "charge": Decimal(0)}
            start |= dataclasses.asdict(TokenCounts()) | {"currency": ZERO_USD.currency}
            connection.execute(insert_ignoring(connection.dialect, TenantTotalRow).values(start))
        tokens = sum((record.tokens for record in records), before.tokens)
        charges = (record.charge.amount for record in records)
        connection.execute(
            update(TenantTotalRow)
            .where(TenantTotalRow.tenant == tenant)
            .values(
                requests=before.requests + len(records),
                charge=exact_sum([before.spend.amount, *charges]),
                **dataclasses.asdict(tokens),
            )
        )


def tenant_usage(connection: Connection, tenant: TenantId) -> TenantUsage:
    """Return a tenant's totals; zeros if it never sent a request."""
    total = connection.execute(
        select(
            TenantTotalRow.requests,
            TenantTotalRow.input_tokens,
            TenantTotalRow.cached_tokens,
            TenantTotalRow.output_tokens,
            TenantTotalRow.reasoning_tokens,
            TenantTotalRow.charge,
            TenantTotalRow.currency,
        ).where(TenantTotalRow.tenant == tenant)
    ).one_or_none()
    if total is None:
        return TenantUsage(0, TokenCounts(), ZERO_USD)
    tokens = TokenCounts(
        total.input_tokens, total.cached_tokens, total.output_tokens, total.reasoning_tokens
    )
    return TenantUsage(total.requests, tokens, Money(total.charge, total.currency))
