"""Streams whose engine is lost in the middle go on elsewhere, and the client sees one answer."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from trierarch.core.quantities import TokenCounts
from trierarch.core.replicas import ReplicaEndpoint
from trierarch.core.usage import Outcome
from trierarch.routing.ejection import FailureKind
from trierarch.settings.gateway import GatewaySettings
from trierarch.testing.local_gateway import TEST_KEY, LocalGateway
from trierarch.testing.replica_source import ready_replica
from trierarch.testing.scripted_engine import (
    HTTP_OK_STREAM,
    Script,
    ScriptedEngine,
    chunked,
    content_event,
    reset,
    whole_answer,
)
from trierarch.testing.simulated_engines import EngineProcess, simulated_engine
from trierarch.testing.waiting import wait_until

AUTH = {"authorization": f"Bearer {TEST_KEY}"}
CHAT = {
    "model": "simulated",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 9,
    "stream": True,
    "stream_options": {"include_usage": True},
}
ERROR = b'data: {"error":{"message":"EngineCore died","type":"InternalServerError","code":500}}\n\n'
ROLE = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":%d,"model":"simulated",'
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
)
REST = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":77,"model":"simulated",'
    b'"choices":[{"index":0,"delta":{"content":" three"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":8,"total_tokens":9,"completion_tokens":1}}\n\n'
)
USAGE = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":77,"model":"simulated",'
    b'"choices":[],"usage":{"prompt_tokens":8,"total_tokens":9,"completion_tokens":1,'
    b'"prompt_tokens_details":{"cached_tokens":5}}}\n\n'
)
DONE = b"data: [DONE]\n\n"


def settings(queue_timeout_seconds: float = 120.0) -> GatewaySettings:
    return GatewaySettings(
        replica_poll_interval_seconds=0.05, queue_timeout_seconds=queue_timeout_seconds
    )


def begin(end: Callable[[socket.socket], object]) -> Script:
    """Send the role and two tokens, and then end like that."""

    def script(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(HTTP_OK_STREAM + chunked(ROLE % 1))
        connection.sendall(chunked(content_event("one", 1)))
        connection.sendall(chunked(content_event(" two", 2)))
        time.sleep(0.1)
        end(connection)

    return script


def tear(connection: socket.socket) -> None:
    connection.sendall(chunked(content_event(" lost", 3))[:-20])
    reset(connection)


def tell_more_and_fail(connection: socket.socket) -> None:
    connection.sendall(chunked(content_event(" more", 3) + ERROR) + b"0\r\n\r\n")


def finish(connection: socket.socket, _request: bytes) -> None:
    pieces = (ROLE % 77, REST, USAGE, DONE)
    connection.sendall(HTTP_OK_STREAM + b"".join(map(chunked, pieces)) + b"0\r\n\r\n")


def body_of(request: bytes) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request.partition(b"\r\n\r\n")[2])
    return body


def post(gateway: LocalGateway, body: dict[str, object]) -> httpx.Response:
    return httpx.post(gateway.base_url + "/chat/completions", headers=AUTH, json=body, timeout=20.0)


def text_and_usage(answer: str) -> tuple[str, dict[str, Any]]:
    *events, done, end = answer.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert [delta.get("role") for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert {chunk["created"] for chunk in chunks} == {chunks[0]["created"]}
    return "".join(delta["content"] for delta in deltas), chunks[-1]["usage"]


def lost_first(lost: ScriptedEngine, good: ScriptedEngine | EngineProcess) -> list[ReplicaEndpoint]:
    # Equal loads take turns beginning with the first by id.
    return [
        ready_replica(lost.port, replica_id="a-lost"),
        ready_replica(good.port, replica_id="b-good"),
    ]


ENDS: dict[str, Callable[[socket.socket], object]] = {
    "reset": reset,
    "closed": lambda connection: connection.close(),
    "in-the-middle-of-an-event": tear,
    "ended-without-its-end-mark": lambda connection: connection.sendall(b"0\r\n\r\n"),
    "error-event": lambda connection: connection.sendall(chunked(ERROR) + b"0\r\n\r\n"),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_rest_of_a_stream_comes_from_another_engine(end: str) -> None:
    with ScriptedEngine(begin(ENDS[end])) as lost, ScriptedEngine(finish) as good:
        with LocalGateway(lost_first(lost, good), settings()) as gateway:
            text, usage = text_and_usage(post(gateway, CHAT).text)
            assert text == "one two three"
            assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3, 3)
            assert usage["total_tokens"] == 6
            [record] = gateway.usage.records
            assert (record.outcome, record.replica_id) == (Outcome.MIGRATED, "b-good")
            # The input once, as far as the last engine had it in its cache; the output of both.
            assert record.tokens == TokenCounts(3, 3, 3)
            assert usage["cost"]["amount"] == str(record.charge)
            signals = httpx.get(gateway.admin_url + "/api/v1/signals").json()["models"]
            assert signals["simulated"]["completed_total"] == 1
            assert signals["simulated"]["in_flight"] == 0
            kind = FailureKind.SERVER_ERROR if end == "error-event" else FailureKind.RESET
            continued = gateway.metrics.registry.get_sample_value(
                "trierarch_gateway_continuations_total",
                {"model": "simulated", "reason": kind.value},
            )
            assert continued == 1.0
        asked = body_of(good.requests[0])
        assert asked["messages"] == [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "one two"},
        ]
        assert (asked["continue_final_message"], asked["add_generation_prompt"]) == (True, False)
        assert asked["max_tokens"] == 7


def test_text_that_comes_together_with_an_error_is_sent_and_counted() -> None:
    with ScriptedEngine(begin(tell_more_and_fail)) as lost, ScriptedEngine(finish) as good:
        with LocalGateway(lost_first(lost, good), settings()) as gateway:
            text, usage = text_and_usage(post(gateway, CHAT).text)
        assert text == "one two more three"
        assert usage["completion_tokens"] == 4
        asked = body_of(good.requests[0])
        assert asked["messages"][-1]["content"] == "one two more"
        assert asked["max_tokens"] == 6


def test_three_engines_can_make_one_answer() -> None:
    scripts = [begin(reset), begin(reset), finish]
    asked: list[bytes] = []

    def script(connection: socket.socket, request: bytes) -> None:
        asked.append(request)
        scripts[len(asked) - 1](connection, request)

    with ScriptedEngine(script) as a, ScriptedEngine(script) as b, ScriptedEngine(script) as c:
        replicas = [ready_replica(engine.port) for engine in (a, b, c)]
        with LocalGateway(replicas, settings()) as gateway:
            text, usage = text_and_usage(post(gateway, CHAT).text)
    assert text == "one twoone two three"
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3, 5)
    last = body_of(asked[-1])
    assert last["messages"][-1]["content"] == "one twoone two"
    assert last["max_tokens"] == 5


def test_a_completion_goes_on_behind_its_prompt(engine: EngineProcess) -> None:
    def script(connection: socket.socket, _request: bytes) -> None:
        event = (
            b'data: {"id":"c","object":"text_completion","created":1,"model":"simulated",'
            b'"choices":[{"index":0,"text":" world","finish_reason":null}],'
            b'"usage":{"prompt_tokens":1,"total_tokens":2,"completion_tokens":1}}\n\n'
        )
        connection.sendall(HTTP_OK_STREAM + chunked(event))
        time.sleep(0.1)
        reset(connection)

    with (
        ScriptedEngine(script) as lost,
        LocalGateway(lost_first(lost, engine), settings()) as gateway,
    ):
        body = {"model": "simulated", "prompt": "hello", "max_tokens": 5, "stream": True}
        answer = httpx.post(
            gateway.base_url + "/completions", headers=AUTH, json=body, timeout=20.0
        )
        assert answer.text.endswith("data: [DONE]\n\n")
        [record] = gateway.usage.records
        assert (record.outcome, record.tokens.output_tokens) == (Outcome.MIGRATED, 5)


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
        {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_text_does_not_hold_is_not_continued(more: dict[str, object]) -> None:
    with ScriptedEngine(begin(reset)) as lost, ScriptedEngine(finish) as good:
        with LocalGateway(lost_first(lost, good), settings()) as gateway:
            answer = post(gateway, {**CHAT, **more}).text
            assert "broke off" in answer
            assert "[DONE]" not in answer
            [record] = gateway.usage.records
            assert (record.outcome, record.charge.amount) == (Outcome.FAILED, 0)
        assert not good.requests


@pytest.mark.parametrize("status", [400, 500])
def test_an_engine_that_does_not_go_on_ends_the_stream(status: int) -> None:
    def refuse(connection: socket.socket, _request: bytes) -> None:
        error = {"error": {"message": "no such role", "type": "BadRequest", "code": status}}
        connection.sendall(whole_answer(status, json.dumps(error).encode()))

    with (
        ScriptedEngine(begin(reset)) as lost,
        ScriptedEngine(refuse) as other,
        LocalGateway(lost_first(lost, other), settings(queue_timeout_seconds=0.3)) as gateway,
    ):
        answer = post(gateway, CHAT).text
        assert answer.count('"error"') == 1
        assert "[DONE]" not in answer
        [record] = gateway.usage.records
        assert (record.outcome, record.charge.amount) == (Outcome.FAILED, 0)
        assert len(other.requests) == 1


def test_a_stream_waits_for_the_replacement_of_the_only_engine() -> None:
    with (
        simulated_engine(step_seconds=0.02) as dying,
        simulated_engine() as replacement,
        LocalGateway([ready_replica(dying.port)], settings()) as gateway,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(post, gateway, {**CHAT, "max_tokens": 60})
        wait_until(lambda: "simulated" in signals_with_a_first_token(gateway))
        os.kill(dying.process.pid, signal.SIGKILL)
        time.sleep(0.3)
        assert not answer.done()
        gateway.replica_source.endpoints = [ready_replica(replacement.port)]
        _, usage = text_and_usage(answer.result(20).text)
        assert usage["completion_tokens"] == 60
        [record] = gateway.usage.records
        assert (record.outcome, record.tokens.output_tokens) == (Outcome.MIGRATED, 60)


def signals_with_a_first_token(gateway: LocalGateway) -> list[str]:
    models = httpx.get(gateway.admin_url + "/api/v1/signals").json()["models"]
    return [name for name, found in models.items() if found["ttft_seconds"]["count"]]


def test_a_client_that_leaves_while_its_stream_waits_pays_what_it_has() -> None:
    with (
        ScriptedEngine(begin(reset)) as lost,
        LocalGateway([ready_replica(lost.port)], settings()) as gateway,
    ):
        with openai.OpenAI(base_url=gateway.base_url, api_key=TEST_KEY, max_retries=0) as client:
            stream = client.chat.completions.create(
                model="simulated", messages=[{"role": "user", "content": "hi"}], stream=True
            )
            for _ in range(3):
                next(stream)
            time.sleep(0.3)
            stream.close()
        wait_until(lambda: bool(gateway.usage.records))
        [record] = gateway.usage.records
        assert (record.outcome, record.tokens.output_tokens) == (Outcome.ABORTED, 2)
