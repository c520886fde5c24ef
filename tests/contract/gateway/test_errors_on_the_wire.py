"""Errors as clients get them: status, stable code, OpenAI's envelope."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from trierarch.settings.gateway import GatewaySettings
from trierarch.testing.local_gateway import TEST_KEY, LocalGateway
from trierarch.testing.replica_source import ready_replica
from trierarch.testing.simulated_engines import EngineProcess

AUTH = {"authorization": f"Bearer {TEST_KEY}"}
CHAT = {"model": "simulated", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


@pytest.fixture
def http(gateway: LocalGateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.base_url.removesuffix("/v1"), headers=AUTH) as one:
        yield one


def check(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert error.keys() == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"].startswith("req_")
    assert "\n" not in error["message"]
    return error


GARBAGE = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"{", id="half-an-object"),
    pytest.param(b"[]", id="a-list"),
    pytest.param(b"null", id="null"),
    pytest.param(b"<xml/>", id="xml"),
    pytest.param(b"\x00\x01\x02", id="binary"),
    pytest.param(b'{"model": "simulated", "messages": NaN}', id="nan"),
    pytest.param(b'{"a":' * 5000 + b"}" * 5000, id="deep"),
    pytest.param(b"model=simulated", id="form"),
]


@pytest.mark.parametrize("body", GARBAGE)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_garbage_is_one_clear_error(http: httpx.Client, path: str, body: bytes) -> None:
    check(http.post(path, content=body), 400, "invalid_json")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 1}, "model"),
        ({"messages": {}}, "messages"),
        ({"service_tier": "gold"}, "service_tier"),
        ({"stream": "true"}, "stream"),
        ({"max_tokens": -1}, "max_tokens"),
    ],
)
def test_wrong_values_name_their_field(
    http: httpx.Client, fields: dict[str, Any], param: str
) -> None:
    error = check(http.post("/v1/chat/completions", json={**CHAT, **fields}), 400, "invalid_value")
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic dGVzdC1rZXk="},
        {"x-api-key": "wrong"},
        {"authorization": f"Bearer {TEST_KEY}", "x-api-key": "other"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/usage"])
def test_without_a_live_key_nothing_is_said(
    gateway: LocalGateway, headers: dict[str, str], path: str
) -> None:
    url = gateway.base_url.removesuffix("/v1") + path
    method = "POST" if "chat" in path else "GET"
    response = httpx.request(method, url, headers=headers, content=b"{}")
    check(response, 401, "invalid_api_key")
    assert TEST_KEY not in response.text


def test_x_api_key_works_as_well(gateway: LocalGateway) -> None:
    response = httpx.get(gateway.base_url + "/models", headers={"x-api-key": TEST_KEY})
    assert response.status_code == 200


def test_a_header_cannot_choose_the_tenant(gateway: LocalGateway) -> None:
    headers = {**AUTH, "x-tenant": "other", "x-trierarch-tenant": "other"}
    answer = httpx.get(gateway.base_url + "/usage", headers=headers).json()
    assert answer["tenant"] == "tenant"


def test_a_forbidden_model(gateway: LocalGateway) -> None:
    response = httpx.post(
        gateway.base_url + "/chat/completions", headers={"x-api-key": "limited-key"}, json=CHAT
    )
    check(response, 403, "model_not_allowed")


def test_an_unknown_model(http: httpx.Client) -> None:
    error = check(
        http.post("/v1/chat/completions", json={**CHAT, "model": "gpt-9"}), 404, "model_not_found"
    )
    assert error["param"] == "model"


def test_a_prompt_that_does_not_fit(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "word " * 600}]
    body = {**CHAT, "messages": messages}
    for stream in (False, True):
        check(
            http.post("/v1/chat/completions", json={**body, "stream": stream}),
            400,
            "context_length_exceeded",
        )


def test_an_output_that_does_not_fit(http: httpx.Client) -> None:
    response = http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 5000})
    check(response, 400, "context_length_exceeded")


def test_what_the_engine_refuses_is_not_accounted(
    gateway: LocalGateway, http: httpx.Client
) -> None:
    before = len(gateway.usage.records)
    http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 5000})
    assert len(gateway.usage.records) == before


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/responses", "/v1/embeddings", "/v1/messages", "/metrics", "/pause"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_paths_are_not_passed_on(
    gateway: LocalGateway, http: httpx.Client, method: str, path: str
) -> None:
    response = http.request(method, path)
    check(response, 404, "unknown_url")
    assert "x-ratelimit-remaining-requests" in response.headers
    without_key = httpx.request(method, gateway.base_url.removesuffix("/v1") + path)
    check(without_key, 404, "unknown_url")
    assert "x-ratelimit-remaining-requests" not in without_key.headers


def test_wrong_methods(http: httpx.Client) -> None:
    response = http.get("/v1/chat/completions")
    check(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_compressed_bodies_are_refused(http: httpx.Client) -> None:
    response = http.post("/v1/chat/completions", content=b"x", headers={"content-encoding": "gzip"})
    check(response, 415, "unsupported_content_encoding")


def test_a_body_over_the_limit(engine: EngineProcess) -> None:
    settings = GatewaySettings(max_body_bytes=1000)
    with LocalGateway([ready_replica(engine.port)], settings) as small:
        url = small.base_url + "/chat/completions"
        big = json.dumps({**CHAT, "user": "x" * 5_000_000}).encode()
        refused = httpx.post(url, headers=AUTH, content=big)
        check(refused, 413, "request_too_large")
        assert "x-ratelimit-remaining-requests" in refused.headers
        chunks = (big[at : at + 65536] for at in range(0, len(big), 65536))
        check(httpx.post(url, headers=AUTH, content=chunks), 413, "request_too_large")
        assert httpx.post(url, headers=AUTH, json=CHAT).status_code == 200


def test_rate_limits_are_enforced_and_said(engine: EngineProcess) -> None:
    settings = GatewaySettings(requests_per_minute=2)
    with LocalGateway([ready_replica(engine.port)], settings) as strict:
        url = strict.base_url + "/chat/completions"
        left = [
            httpx.post(url, headers=AUTH, json=CHAT).headers["x-ratelimit-remaining-requests"]
            for _ in range(2)
        ]
        assert left == ["1", "0"]
        response = httpx.post(url, headers=AUTH, json=CHAT)
        error = check(response, 429, "rate_limit_exceeded")
        assert error["type"] == "requests"
        assert 1 <= int(response.headers["retry-after"]) <= 31
        assert response.headers["x-ratelimit-remaining-requests"] == "0"
        assert len(strict.usage.records) == 2


def test_the_official_client_maps_them(gateway: LocalGateway) -> None:
    with openai.OpenAI(base_url=gateway.base_url, api_key="wrong", max_retries=0) as one:
        with pytest.raises(openai.AuthenticationError) as caught:
            one.models.list()
        assert caught.value.code == "invalid_api_key"
