"""What the endpoints accept, and what the engine gets of it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from trierarch.core.usage import ServiceTier
from trierarch.gateway.endpoints import load_endpoints
from trierarch.gateway.endpoints.chat import read_chat_request
from trierarch.gateway.endpoints.completions import read_completion_request
from trierarch.gateway.endpoints.endpoint import GenerationRequest, Routes
from trierarch.gateway.errors import GatewayError

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"model": "m", "prompt": "hi"}


def chat(default_max_tokens: int | None = None, **fields: Any) -> GenerationRequest:
    return read_chat_request(
        orjson.dumps({**CHAT, **fields}), default_max_tokens=default_max_tokens
    )


def completion(default_max_tokens: int | None = None, **fields: Any) -> GenerationRequest:
    return read_completion_request(
        orjson.dumps({**COMPLETION, **fields}), default_max_tokens=default_max_tokens
    )


def sent(request: GenerationRequest) -> dict[str, Any]:
    return orjson.loads(request.upstream_body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"{'model': 'm'}",
        b'{"model": "m",}',
        b'{"temperature": NaN}',
        b"\xff\xfe",
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b'{"model": "\xed\xa0\x80"}',
        b'{"model": "\\ud800"}',
    ],
    ids=lambda body: repr(body[:20]),
)
@pytest.mark.parametrize("read", [read_chat_request, read_completion_request])
def test_what_is_no_json_object_is_one_clear_error(read: Any, body: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        read(body, default_max_tokens=None)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": []}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": "x"}}, "stream_options"),
        ({"service_tier": "gold"}, "service_tier"),
        ({"service_tier": 1}, "service_tier"),
        ({"service_tier": ["priority"]}, "service_tier"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
    ],
)
def test_wrong_values_name_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        chat(**fields)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize("prompt", [None, 5, {}, [], True])
def test_a_prompt_is_text_or_a_list(prompt: Any) -> None:
    with pytest.raises(GatewayError) as caught:
        completion(prompt=prompt)
    assert caught.value.param == "prompt"


@pytest.mark.parametrize(
    ("value", "tier"),
    [
        (None, ServiceTier.DEFAULT),
        ("auto", ServiceTier.DEFAULT),
        ("default", ServiceTier.DEFAULT),
        ("priority", ServiceTier.PRIORITY),
        ("flex", ServiceTier.FLEX),
    ],
)
def test_tiers(value: str | None, tier: ServiceTier) -> None:
    request = chat(service_tier=value)
    assert request.tier is tier
    assert "service_tier" not in sent(request)


class TestStreaming:
    def test_the_engine_is_always_asked_for_usage(self) -> None:
        request = chat(stream=True)
        assert sent(request)["stream_options"] == {
            "include_usage": True,
            "continuous_usage_stats": True,
        }
        assert not request.wants_usage

    def test_what_the_client_asked_for_is_remembered(self) -> None:
        request = chat(stream=True, stream_options={"include_usage": True})
        assert request.wants_usage
        assert not request.wants_continuous_usage

    def test_continuous_usage_needs_usage(self) -> None:
        options = {"continuous_usage_stats": True}
        assert not chat(stream=True, stream_options=options).wants_continuous_usage
        options["include_usage"] = True
        assert chat(stream=True, stream_options=options).wants_continuous_usage

    def test_other_stream_options_are_kept(self) -> None:
        options = {"include_obfuscation": False}
        assert (
            sent(chat(stream=True, stream_options=options))["stream_options"]["include_obfuscation"]
            is False
        )

    @pytest.mark.parametrize("stream", [None, False])
    def test_without_a_stream_nothing_is_added(self, stream: bool | None) -> None:
        request = chat(stream=stream, stream_options=None)
        assert not request.is_stream
        assert "stream_options" not in sent(request)


class TestMaxTokens:
    def test_the_newer_name_wins(self) -> None:
        assert chat(max_tokens=9, max_completion_tokens=4).max_output_tokens == 4

    def test_a_default_is_written_into_the_request(self) -> None:
        request = chat(default_max_tokens=77)
        assert request.max_output_tokens == 77
        assert sent(request)["max_completion_tokens"] == 77

    def test_without_a_default_the_engine_decides(self) -> None:
        request = chat()
        assert request.max_output_tokens is None
        assert "max_completion_tokens" not in sent(request)

    def test_completions_have_openais_default(self) -> None:
        assert sent(completion())["max_tokens"] == 16
        assert sent(completion(default_max_tokens=5))["max_tokens"] == 5

    def test_completions_may_ask_for_nothing_but_an_echo(self) -> None:
        assert completion(max_tokens=0, echo=True).max_output_tokens == 0


def test_engine_private_fields_are_taken_out_and_others_pass() -> None:
    request = chat(
        priority=-5,
        request_id="mine",
        kv_transfer_params={"remote_host": "evil"},
        data_parallel_rank=1,
        temperature=0.5,
        logit_bias={"5": 1},
    )
    assert sent(request).keys() == {"model", "messages", "temperature", "logit_bias"}


def test_of_repeated_members_the_engine_sees_what_was_checked() -> None:
    body = b'{"model": "allowed", "model": "other", "messages": [{"role": "user", "content": ""}]}'
    request = read_chat_request(body, default_max_tokens=None)
    assert sent(request)["model"] == request.model


@pytest.mark.parametrize(
    ("prompt", "count"),
    [("a", 1), (["a"], 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1], [2, 3]], 2)],
)
def test_prompts_are_counted(prompt: Any, count: int) -> None:
    assert completion(prompt=prompt).prompt_count == count


def test_an_image_is_not_counted_by_its_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    content = [{"type": "text", "text": "x" * 400}, image]
    request = chat(messages=[{"role": "user", "content": content}])
    assert 1000 < request.input_tokens_estimate < 2000


ROUTES = Routes(load_endpoints())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/m"),
        ("GET", "/v1/models/org/name"),
        ("GET", "/v1/usage"),
    ],
)
def test_known_paths(method: str, path: str) -> None:
    assert ROUTES.find(method, path).matches(path)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/",
        "/v1/models/",
        "/v1/modelsx",
        "/v1/chat/completions/",
        "/v1/chat/completions/batch",
        "/v1//chat/completions",
        "/v1/chat/../chat/completions",
        "/v1/chat%2Fcompletions",
        "/V1/models",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/files",
        "/v1/batches",
        "/health",
        "/metrics",
        "/sleep",
        "/pause",
        "/scale_elastic_ep",
        "/collective_rpc",
        "/v1/load_lora_adapter",
        "/tokenize",
        "/invocations",
    ],
)
def test_other_paths_do_not_exist(path: str) -> None:
    for method in ("GET", "POST"):
        with pytest.raises(GatewayError) as caught:
            ROUTES.find(method, path)
        assert caught.value.status == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", b"allow: POST\r\n"),
        ("DELETE", "/v1/models/m", b"allow: GET\r\n"),
        ("HEAD", "/v1/models", b"allow: GET\r\n"),
        ("OPTIONS", "/v1/completions", b"allow: POST\r\n"),
    ],
)
def test_wrong_methods_are_told_the_right_one(method: str, path: str, allowed: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        ROUTES.find(method, path)
    assert caught.value.status == 405
    assert caught.value.extra_headers == allowed
