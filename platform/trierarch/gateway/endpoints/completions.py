"""``POST /v1/completions``."""

from __future__ import annotations

import orjson

from trierarch.core.identifiers import ModelName
from trierarch.gateway.continuation import continue_request, is_one_text
from trierarch.gateway.endpoints.endpoint import Endpoint, GenerationEndpoint, GenerationRequest
from trierarch.gateway.endpoints.request_fields import (
    MAX_CHOICES,
    estimate_tokens,
    force_usage,
    load_object,
    read_count,
    read_flag,
    read_model,
    read_tier,
    remove_private_fields,
)
from trierarch.gateway.errors import invalid_value

ENGINE_DEFAULT_MAX_TOKENS = 16
"""OpenAI's default for this endpoint, which vLLM keeps."""


def read_completion_request(
    body: bytes | bytearray, *, default_max_tokens: int | None
) -> GenerationRequest:
    """Check a completion request and rewrite it for the engine.

    Raises:
        GatewayError: If the body is not one.
    """
    request = load_object(body)
    model = read_model(request)
    prompt = request.get("prompt")
    if not isinstance(prompt, str | list) or prompt == []:
        raise invalid_value("'prompt' must be text, token ids, or a list of these.", "prompt")
    is_stream = read_flag(request, "stream")
    tier = read_tier(request)
    wants_usage, wants_continuous = force_usage(request, is_stream=is_stream)
    max_tokens = read_count(request, "max_tokens", at_least=0)
    if max_tokens is None:
        max_tokens = default_max_tokens or ENGINE_DEFAULT_MAX_TOKENS
        request["max_tokens"] = max_tokens
    choices = read_count(request, "n", at_least=1, at_most=MAX_CHOICES)
    remove_private_fields(request)
    has_several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    return GenerationRequest(
        model=ModelName(model),
        tier=tier,
        is_stream=is_stream,
        wants_usage=wants_usage,
        wants_continuous_usage=wants_continuous,
        max_output_tokens=max_tokens,
        choice_count=choices or 1,
        prompt_count=len(prompt) if has_several else 1,
        input_tokens_estimate=estimate_tokens(len(body)),
        upstream_body=orjson.dumps(request),
        is_one_text=isinstance(prompt, str) and is_one_text(request),
    )


def continue_completion(body: bytes, *, text: str, output_tokens: int) -> bytes | None:
    """Return a request whose prompt ends with the answer so far."""
    request = continue_request(body, output_tokens, ("max_tokens",))
    if request is None:
        return None
    request["prompt"] += text
    return orjson.dumps(request)


ENDPOINTS: tuple[Endpoint, ...] = (
    GenerationEndpoint(
        "/v1/completions", "text_completion", read_completion_request, continue_completion
    ),
)
