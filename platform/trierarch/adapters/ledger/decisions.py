"""Decision records: kept exactly as they were made, so that a replay decides the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, insert, select

from trierarch.adapters.ledger.instants import to_microseconds
from trierarch.adapters.ledger.tables import DecisionRow
from trierarch.core.errors import InvalidInput

FIELDS = ("id", "time", "deployment", "reason")
"""What every record must have; ``time`` is in seconds since 1970-01-01 UTC."""


def _exact(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    raise TypeError(f"a decision record holds JSON values and Decimals, not {value!r}")


def insert_decision(connection: Connection, record: Mapping[str, Any]) -> None:
    """Add a record; one with an id that exists is left as it is.

    Raises:
        InvalidInput: If a field is missing or the record is no JSON.
    """
    missing = [field for field in FIELDS if field not in record]
    if missing:
        raise InvalidInput(f"a decision record lacks {', '.join(missing)}")
    try:
        text = json.dumps(dict(record), default=_exact, allow_nan=False)
        time_unix_microseconds = to_microseconds(float(record["time"]))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"a decision record cannot be stored: {error}") from error
    exists = select(DecisionRow.sequence).where(DecisionRow.id == str(record["id"]))
    if connection.execute(exists).first() is not None:
        return
    connection.execute(
        insert(DecisionRow).values(
            id=str(record["id"]),
            time_unix_microseconds=time_unix_microseconds,
            deployment=str(record["deployment"]),
            reason=str(record["reason"]),
            record=text,
        )
    )


def find_decisions(
    connection: Connection, *, deployment: str | None, last: int, decision_id: str | None
) -> list[dict[str, Any]]:
    """Return the last records that match, oldest first."""
    query = select(DecisionRow.record).order_by(DecisionRow.sequence.desc()).limit(last)
    if deployment is not None:
        query = query.where(DecisionRow.deployment == deployment)
    if decision_id is not None:
        query = query.where(DecisionRow.id == decision_id)
    records: list[dict[str, Any]] = [json.loads(text) for text in connection.scalars(query)]
    return records[::-1]
