"""Who is asking: the key's hash decides, nothing else in the request does."""

from __future__ import annotations

import hashlib

from trierarch.core.identifiers import ModelName
from trierarch.gateway.errors import model_not_allowed
from trierarch.ports import ApiKey, KeySource

_BEARER = b"bearer "


def read_key(headers: dict[bytes, bytes]) -> bytes:
    """Return the key's text from ``Authorization: Bearer`` or ``x-api-key``; empty if neither.

    Two different keys in one request are no key: which tenant pays must not
    depend on the order of header look-ups.
    """
    authorization = headers.get(b"authorization", b"")
    plain = headers.get(b"x-api-key", b"").strip()
    if authorization[:7].lower() != _BEARER:
        return b"" if authorization else plain
    bearer = authorization[7:].strip()
    return b"" if plain and plain != bearer else bearer


def find_key(headers: dict[bytes, bytes], keys: KeySource) -> ApiKey | None:
    """Return the live key that a request carries, or None."""
    text = read_key(headers)
    return keys.find(hashlib.sha256(text).digest()) if text else None


def check_model_allowed(key: ApiKey, model: ModelName) -> None:
    """Refuse a model that the key's owner may not use.

    Raises:
        GatewayError: If so.
    """
    if key.allowed_models is not None and model not in key.allowed_models:
        raise model_not_allowed(model)
