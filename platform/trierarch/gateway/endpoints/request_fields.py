"""Fields that every generation request shares: checked once, here.

Only what the gateway itself acts on is checked; the rest is the engine's to
judge. Fields that steer the inside of an engine are taken out, because a tenant
must not set its own scheduling priority or name the host a cache is sent to.
"""

from __future__ import annotations

from typing import Any

import orjson

from trierarch.core.usage import ServiceTier
from trierarch.gateway.errors import GatewayError, invalid_json, invalid_value

ENGINE_PRIVATE_FIELDS = (
    "priority",
    "request_id",
    "kv_transfer_params",
    "ec_transfer_params",
    "data_parallel_rank",
)
"""vLLM extensions that belong to the operator."""

BYTES_PER_TOKEN = 4
"""English text in common tokenizers; only an estimate is needed before the engine counts."""

TOKENS_PER_MEDIA_PART = 1024
"""An image or an audio clip in a message; its base64 text says nothing about its tokens."""

MAX_CHOICES = 128
"""OpenAI's own bound on ``n``."""

_TIERS = {
    None: ServiceTier.DEFAULT,
    "auto": ServiceTier.DEFAULT,
    "default": ServiceTier.DEFAULT,
    "priority": ServiceTier.PRIORITY,
    "flex": ServiceTier.FLEX,
}


def load_object(body: bytes | bytearray) -> dict[str, Any]:
    """Return the body as a JSON object.

    Raises:
        GatewayError: If it is anything else.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise invalid_json() from None
    if not isinstance(value, dict):
        raise invalid_json()
    return value


def read_model(request: dict[str, Any]) -> str:
    """Return the model name.

    Raises:
        GatewayError: If it is missing or not text.
    """
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise invalid_value("'model' must be the name of a model.", "model")
    return model


def read_tier(request: dict[str, Any]) -> ServiceTier:
    """Take ``service_tier`` out of the request and return the lane.

    Raises:
        GatewayError: If it is not one of the tiers.
    """
    value = request.pop("service_tier", None)
    if value is not None and not isinstance(value, str):
        value = ""
    tier = _TIERS.get(value)
    if tier is None:
        raise invalid_value(
            "'service_tier' must be one of 'auto', 'default', 'flex', 'priority'.", "service_tier"
        )
    return tier


def read_flag(request: dict[str, Any], name: str) -> bool:
    """Return an optional boolean; null is false.

    Raises:
        GatewayError: If it is something else.
    """
    value = request.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise invalid_value(f"'{name}' must be true or false.", name)


def read_count(
    request: dict[str, Any], name: str, *, at_least: int, at_most: int = 2**31
) -> int | None:
    """Return an optional whole number; null is None.

    Raises:
        GatewayError: If it is something else or out of range.
    """
    value = request.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value <= at_most:
        raise invalid_value(f"'{name}' must be a whole number of at least {at_least}.", name)
    return value


def force_usage(request: dict[str, Any], *, is_stream: bool) -> tuple[bool, bool]:
    """Ask the engine for usage in every event; return what the client itself asked for.

    Returns:
        Whether the client wants the final usage event, and usage in every event.

    Raises:
        GatewayError: If ``stream_options`` is not an object, or set without streaming.
    """
    options = request.pop("stream_options", None)
    if options is not None and not isinstance(options, dict):
        raise invalid_value("'stream_options' must be an object.", "stream_options")
    if not is_stream:
        if options:
            raise invalid_value(
                "'stream_options' is only allowed when 'stream' is true.", "stream_options"
            )
        return False, False
    options = options or {}
    wants_usage = _option(options, "include_usage")
    wants_continuous = wants_usage and _option(options, "continuous_usage_stats")
    request["stream_options"] = {
        **options,
        "include_usage": True,
        "continuous_usage_stats": True,
    }
    return wants_usage, wants_continuous


def _option(options: dict[str, Any], name: str) -> bool:
    try:
        return read_flag(options, name)
    except GatewayError:
        raise invalid_value(
            f"'stream_options.{name}' must be true or false.", "stream_options"
        ) from None


def remove_private_fields(request: dict[str, Any]) -> None:
    """Take out what belongs to the operator."""
    for name in ENGINE_PRIVATE_FIELDS:
        request.pop(name, None)


def estimate_tokens(text_bytes: int) -> int:
    """Return a token estimate for text of that size, at least one."""
    return max(1, text_bytes // BYTES_PER_TOKEN)
