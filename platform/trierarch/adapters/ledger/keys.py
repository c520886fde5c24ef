"""API keys: shown once, stored as a hash.

A key is ``trk_``, a public id, and a secret with 256 random bits. A fast hash is
enough for a secret that cannot be guessed; the id may be logged and stored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
from collections.abc import Iterable

from sqlalchemy import Connection, func, insert, select, update

from trierarch.adapters.ledger.instants import to_seconds
from trierarch.adapters.ledger.tables import KeyRow
from trierarch.core.errors import InvalidInput
from trierarch.core.identifiers import KeyId, ModelName, TenantId
from trierarch.ports import ApiKey

PREFIX = "trk_"
"""Lets a secret scanner and a person know what it is."""

ID_BYTES = 6
"""48 bits tell keys apart; uniqueness is enforced by the table."""

SECRET_BYTES = 32
"""256 bits from the operating system."""


@dataclasses.dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is listed.

    Attributes:
        revoked_unix_seconds: None while it is live.
    """

    key: ApiKey
    name: str
    created_unix_seconds: float
    revoked_unix_seconds: float | None


def key_sha256(text: str) -> bytes:
    """Return what is stored of a key's text."""
    return hashlib.sha256(text.encode()).digest()


def insert_key(
    connection: Connection,
    tenant: TenantId,
    name: str,
    allowed_models: Iterable[ModelName] | None,
    at_unix_microseconds: int,
) -> tuple[str, ApiKey]:
    """Make a key; its text is returned here and nowhere else.

    Raises:
        InvalidInput: If the tenant is empty or has a live key of that name.
    """
    if not tenant.strip():
        raise InvalidInput("a key needs a tenant: --tenant NAME")
    if name and any(
        stored.name == name and stored.revoked_unix_seconds is None
        for stored in stored_keys(connection, tenant)
    ):
        raise InvalidInput(f"tenant '{tenant}' has a live key named '{name}'; revoke it first")
    key_id = KeyId(PREFIX + secrets.token_hex(ID_BYTES))
    text = f"{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    models = None if allowed_models is None else frozenset(allowed_models)
    connection.execute(
        insert(KeyRow).values(
            key_id=key_id,
            tenant=tenant,
            name=name,
            sha256=key_sha256(text).hex(),
            allowed_models=None if models is None else json.dumps(sorted(models)),
            created_unix_microseconds=at_unix_microseconds,
            revoked_unix_microseconds=None,
        )
    )
    return text, ApiKey(key_id, tenant, models)


def stored_keys(connection: Connection, tenant: TenantId | None = None) -> list[StoredKey]:
    """Return keys, live and revoked, in the order they were made."""
    query = select(
        KeyRow.key_id,
        KeyRow.tenant,
        KeyRow.name,
        KeyRow.allowed_models,
        KeyRow.created_unix_microseconds,
        KeyRow.revoked_unix_microseconds,
    ).order_by(KeyRow.created_unix_microseconds, KeyRow.key_id)
    if tenant is not None:
        query = query.where(KeyRow.tenant == tenant)
    return [
        StoredKey(
            _api_key(row.key_id, row.tenant, row.allowed_models),
            row.name,
            to_seconds(row.created_unix_microseconds),
            None
            if row.revoked_unix_microseconds is None
            else to_seconds(row.revoked_unix_microseconds),
        )
        for row in connection.execute(query)
    ]


def _api_key(key_id: str, tenant: str, allowed_models: str | None) -> ApiKey:
    models = None if allowed_models is None else frozenset(json.loads(allowed_models))
    return ApiKey(KeyId(key_id), TenantId(tenant), models)


def live_keys(connection: Connection) -> dict[bytes, ApiKey]:
    """Return every live key by the hash of its text."""
    query = select(KeyRow.sha256, KeyRow.key_id, KeyRow.tenant, KeyRow.allowed_models).where(
        KeyRow.revoked_unix_microseconds.is_(None)
    )
    return {
        bytes.fromhex(row.sha256): _api_key(row.key_id, row.tenant, row.allowed_models)
        for row in connection.execute(query)
    }


def keys_version(connection: Connection) -> tuple[int, int]:
    """Return two counts that both only grow; any change to keys changes one of them."""
    row = connection.execute(
        select(func.count(), func.count(KeyRow.revoked_unix_microseconds)).select_from(KeyRow)
    ).one()
    return (row[0], row[1])


def revoke(connection: Connection, key_id: KeyId, at_unix_microseconds: int) -> bool:
    """Revoke a key and return whether it was live."""
    result = connection.execute(
        update(KeyRow)
        .where(KeyRow.key_id == key_id, KeyRow.revoked_unix_microseconds.is_(None))
        .values(revoked_unix_microseconds=at_unix_microseconds)
    )
    return result.rowcount == 1
