"""Errors in the contract's words."""

from __future__ import annotations

import orjson
import pytest

from trierarch.gateway import errors
from trierarch.gateway.errors import GatewayError, from_engine

CONTRACT = [
    (errors.invalid_api_key(), 401, "invalid_api_key"),
    (errors.model_not_allowed("m"), 403, "model_not_allowed"),
    (errors.model_not_found("m"), 404, "model_not_found"),
    (errors.rate_limit_exceeded("tokens", 5, 2.0), 429, "rate_limit_exceeded"),
    (errors.queue_full("m", 1.0), 503, "queue_full"),
    (errors.queue_timeout("m", 5.0), 504, "queue_timeout"),
    (errors.upstream_error("x"), 502, "upstream_error"),
]


@pytest.mark.parametrize(("error", "status", "code"), CONTRACT, ids=lambda value: str(value)[:20])
def test_codes_of_the_contract(error: GatewayError, status: int, code: str) -> None:
    response = error.as_response(b"x-request-id: r\r\n")
    body = orjson.loads(response.body)["error"]
    assert (response.status, body["code"]) == (status, code)
    assert body.keys() == {"message", "type", "param", "code"}
    assert all(isinstance(body[member], str) for member in ("message", "type", "code"))
    assert response.headers.startswith(b"x-request-id: r\r\n")


@pytest.mark.parametrize(
    "error", [errors.rate_limit_exceeded("requests", 5, 0.2), errors.queue_full("m", 0.2)]
)
def test_who_should_come_back_is_told_when(error: GatewayError) -> None:
    headers = error.as_response().headers
    assert b"retry-after: 1\r\n" in headers
    assert b"retry-after-ms: 200\r\n" in headers


def test_an_error_inside_a_stream_is_one_event() -> None:
    event = errors.upstream_error('broke\n\n"off"').as_event()
    assert event.startswith(b"data: {")
    assert event.count(b"\n\n") == 1
    assert orjson.loads(event[6:])["error"]["code"] == "upstream_error"


def vllm(message: str, code: int, param: str | None = None) -> bytes:
    error = {"message": message, "type": "BadRequestError", "param": param, "code": code}
    return orjson.dumps({"error": error})


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        pytest.param(
            400,
            vllm(
                "This model's maximum context length is 4096 tokens. However, your prompt contains"
                " 5000 input tokens, which exceeds this limit even without any output tokens."
                " Please reduce the length of the input prompt."
                " (parameter=input_tokens, value=5000)",
                400,
                "input_tokens",
            ),
            (400, "context_length_exceeded"),
            id="prompt-too-long",
        ),
        pytest.param(
            400,
            vllm(
                "The decoder prompt (length 4096) plus the number of requested output tokens"
                " (at least 1) is longer than the maximum model length of 4096.",
                400,
            ),
            (400, "context_length_exceeded"),
            id="no-room-for-output",
        ),
        pytest.param(
            400,
            vllm(
                "max_tokens=5000 cannot be greater than max_model_len=4096."
                " Please request fewer output tokens.",
                400,
            ),
            (400, "context_length_exceeded"),
            id="output-too-long",
        ),
        pytest.param(400, vllm("bad temperature", 400), (400, "invalid_value"), id="other-400"),
        pytest.param(422, vllm("no such image", 422), (422, "invalid_value"), id="422"),
        pytest.param(404, vllm("no model", 404), (404, "model_not_found"), id="404"),
        pytest.param(401, b'{"error":"Unauthorized"}', (502, "upstream_error"), id="401"),
        pytest.param(500, vllm("boom", 500), (502, "upstream_error"), id="500"),
        pytest.param(503, vllm("busy", 503), (502, "upstream_error"), id="503"),
        pytest.param(400, b"<html>", (400, "invalid_value"), id="not-json"),
        pytest.param(400, b"[]", (400, "invalid_value"), id="not-an-object"),
        pytest.param(302, b"", (502, "upstream_error"), id="redirect"),
    ],
)
def test_engine_errors_are_rewritten(status: int, body: bytes, expected: tuple[int, str]) -> None:
    error = from_engine(status, body)
    assert (error.status, error.code) == expected
