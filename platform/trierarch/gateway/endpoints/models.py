"""``GET /v1/models`` and ``GET /v1/models/{id}``: what this key may use.

Answered from the replica list, not by an engine: a model that is scaled to zero
exists and must be listed.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from trierarch.gateway.endpoints.endpoint import Endpoint, LocalContext, LocalEndpoint, ServedModel
from trierarch.gateway.errors import model_not_found
from trierarch.ports import ApiKey


def _as_object(model: ServedModel) -> dict[str, Any]:
    described: dict[str, Any] = {
        "id": model.name,
        "object": "model",
        "created": int(model.created_unix_seconds),
        "owned_by": "trierarch",
    }
    if model.max_model_tokens:
        described["max_model_len"] = model.max_model_tokens
    return described


def _visible(context: LocalContext, key: ApiKey) -> list[ServedModel]:
    return [
        model
        for model in context.served_models()
        if key.allowed_models is None or model.name in key.allowed_models
    ]


async def list_models(context: LocalContext, key: ApiKey, _name: str) -> dict[str, Any]:
    """Return the models this key may use."""
    return {"object": "list", "data": [_as_object(model) for model in _visible(context, key)]}


async def show_model(context: LocalContext, key: ApiKey, name: str) -> dict[str, Any]:
    """Return one model.

    Raises:
        GatewayError: If it does not exist or this key may not see it.
    """
    wanted = unquote(name)
    for model in _visible(context, key):
        if model.name == wanted:
            return _as_object(model)
    raise model_not_found(wanted)


ENDPOINTS: tuple[Endpoint, ...] = (
    LocalEndpoint("/v1/models", list_models),
    LocalEndpoint("/v1/models/", show_model, has_name=True),
)
