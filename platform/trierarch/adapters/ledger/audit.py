"""Audit: who changed what, written in the transaction of the change itself."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import Connection, insert

from trierarch.adapters.ledger.tables import AuditRow


def record_change(
    connection: Connection,
    *,
    at_unix_microseconds: int,
    actor: str,
    action: str,
    subject: str,
    details: Mapping[str, str | int | None],
) -> None:
    """Add a line to the audit."""
    connection.execute(
        insert(AuditRow).values(
            time_unix_microseconds=at_unix_microseconds,
            actor=actor,
            action=action,
            subject=subject,
            details=json.dumps(dict(details), sort_keys=True),
        )
    )
