"""``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import Any

import orjson

from trierarch.core.identifiers import ModelName
from trierarch.gateway.continuation import continue_request, is_one_text
from trierarch.gateway.endpoints.endpoint import Endpoint, GenerationEndpoint, GenerationRequest
from trierarch.gateway.endpoints.request_fields import (
    MAX_CHOICES,
    TOKENS_PER_MEDIA_PART,
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


def read_chat_request(
    body: bytes | bytearray, *, default_max_tokens: int | None
) -> GenerationRequest:
    """Check a chat completion request and rewrite it for the engine.

    Raises:
        GatewayError: If the body is not one.
    """
    request = load_object(body)
    model = read_model(request)
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid_value("'messages' must be a list of at least one message.", "messages")
    is_stream = read_flag(request, "stream")
    tier = read_tier(request)
    wants_usage, wants_continuous = force_usage(request, is_stream=is_stream)
    max_tokens = read_count(request, "max_completion_tokens", at_least=1)
    older_name = read_count(request, "max_tokens", at_least=1)
    if max_tokens is None:
        max_tokens = older_name
    if max_tokens is None and default_max_tokens is not None:
        max_tokens = request["max_completion_tokens"] = default_max_tokens
    choices = read_count(request, "n", at_least=1, at_most=MAX_CHOICES)
    remove_private_fields(request)
    return GenerationRequest(
        model=ModelName(model),
        tier=tier,
        is_stream=is_stream,
        wants_usage=wants_usage,
        wants_continuous_usage=wants_continuous,
        max_output_tokens=max_tokens,
        choice_count=choices or 1,
        prompt_count=1,
        input_tokens_estimate=_estimate_input(body, messages),
        upstream_body=orjson.dumps(request),
        is_one_text=is_one_text(request),
    )


def continue_chat(body: bytes, *, text: str, output_tokens: int) -> bytes | None:
    """Return a chat request whose last message is the answer so far, left open."""
    request = continue_request(body, output_tokens, ("max_completion_tokens", "max_tokens"))
    if request is None:
        return None
    if text:
        request["messages"].append({"role": "assistant", "content": text})
        request |= {"continue_final_message": True, "add_generation_prompt": False}
    return orjson.dumps(request)


def _estimate_input(body: bytes | bytearray, messages: list[Any]) -> int:
    if b";base64," not in body:
        return estimate_tokens(len(body))
    text_bytes = media_parts = 0
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            text_bytes += len(content)
        elif isinstance(content, list):
            for part in content:
                text = part.get("text") if isinstance(part, dict) else None
                if isinstance(text, str):
                    text_bytes += len(text)
                else:
                    media_parts += 1
    return estimate_tokens(text_bytes) + media_parts * TOKENS_PER_MEDIA_PART


ENDPOINTS: tuple[Endpoint, ...] = (
    GenerationEndpoint("/v1/chat/completions", "chat", read_chat_request, continue_chat),
)
