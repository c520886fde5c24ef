"""Engines that fail, clients that leave: what the other side sees, and what is accounted."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from trierarch.core.quantities import TokenCounts
from trierarch.core.usage import Outcome
from trierarch.gateway.wire import pool as upstream_pool
from trierarch.routing import ejection
from trierarch.settings.gateway import GatewaySettings
from trierarch.testing.local_gateway import TEST_KEY, LocalGateway
from trierarch.testing.replica_source import ready_replica
from trierarch.testing.scripted_engine import (
    HTTP_OK_STREAM,
    ScriptedEngine,
    chunked,
    content_event,
    lose_power,
    reset,
    whole_answer,
)
from trierarch.testing.simulated_engines import EngineProcess, simulated_engine
from trierarch.testing.waiting import wait_until

AUTH = {"authorization": f"Bearer {TEST_KEY}"}
CHAT = {"model": "simulated", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
STREAM = {**CHAT, "stream": True}
VLLM_500 = json.dumps(
    {"error": {"message": "boom", "type": "InternalServerError", "param": None, "code": 500}}
).encode()


def settings(**fields: object) -> GatewaySettings:
    return GatewaySettings(replica_poll_interval_seconds=0.05, **fields)  # type: ignore[arg-type]


def impatient_settings() -> GatewaySettings:
    """Do not let a stream that is cut off wait long for an engine that goes on with it."""
    return settings(queue_timeout_seconds=0.2)


def in_flight(gateway: LocalGateway) -> int:
    signals = httpx.get(gateway.admin_url + "/api/v1/signals").json()
    return signals["models"]["simulated"]["in_flight"]


def post(gateway: LocalGateway, body: dict[str, object]) -> httpx.Response:
    return httpx.post(gateway.base_url + "/chat/completions", headers=AUTH, json=body, timeout=20.0)


def two(bad: ScriptedEngine, good: EngineProcess) -> list[object]:
    # Equal loads take turns beginning with the first by id.
    return [
        ready_replica(bad.port, replica_id="a-bad"),
        ready_replica(good.port, replica_id="b-good"),
    ]


FAILURES_BEFORE_THE_FIRST_BYTE = {
    "reset": lambda connection, _request: reset(connection),
    "closed": lambda connection, _request: connection.close(),
    "half-a-head": lambda connection, _request: (
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-"),
        connection.close(),
    ),
    "head-only": lambda connection, _request: (
        connection.sendall(HTTP_OK_STREAM),
        connection.close(),
    ),
    "half-an-event": lambda connection, _request: (
        connection.sendall(HTTP_OK_STREAM + chunked(b'data: {"id"')),
        connection.close(),
    ),
    "stream-of-nothing": lambda connection, _request: connection.sendall(
        HTTP_OK_STREAM + b"0\r\n\r\n"
    ),
    "not-http": lambda connection, _request: connection.sendall(b"SSH-2.0-OpenSSH\r\n"),
    "half-a-body": lambda connection, _request: (
        connection.sendall(whole_answer(200, b"x" * 100)[:-50]),
        connection.close(),
    ),
    "500": lambda connection, _request: connection.sendall(whole_answer(500, VLLM_500)),
    "503": lambda connection, _request: connection.sendall(whole_answer(503, VLLM_500)),
    "error-event-first": lambda connection, _request: connection.sendall(
        HTTP_OK_STREAM
        + chunked(b"data: " + VLLM_500 + b"\n\n")
        + chunked(b"data: [DONE]\n\n")
        + b"0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("failure", FAILURES_BEFORE_THE_FIRST_BYTE)
def test_a_failure_before_the_first_byte_is_retried_elsewhere_unseen(
    engine: EngineProcess, failure: str, stream: bool
) -> None:
    script = FAILURES_BEFORE_THE_FIRST_BYTE[failure]
    with (
        ScriptedEngine(script) as bad,  # type: ignore[arg-type]
        LocalGateway(two(bad, engine), settings()) as gateway,  # type: ignore[arg-type]
    ):
        response = post(gateway, STREAM if stream else CHAT)
        assert response.status_code == 200
        assert "error" not in response.text
        if stream:
            assert response.text.endswith("data: [DONE]\n\n")
        assert len(bad.requests) == 1
        [record] = gateway.usage.records
        assert (record.outcome, record.replica_id) == (Outcome.COMPLETED, "b-good")


def test_a_dead_address_is_retried_elsewhere_and_left_alone_for_a_while(
    engine: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine four requests can take longer than the while of the first failure.
    monkeypatch.setattr(ejection, "FIRST_EJECTION_SECONDS", ejection.MAX_EJECTION_SECONDS)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = closed.getsockname()[1]
    replicas = [
        ready_replica(dead, replica_id="a-dead"),
        ready_replica(engine.port, replica_id="b-good"),
    ]
    with LocalGateway(replicas, settings()) as gateway:
        for _ in range(4):
            assert post(gateway, CHAT).status_code == 200
        retries = gateway.metrics.registry.get_sample_value(
            "trierarch_gateway_retries_total", {"model": "simulated", "reason": "ConnectFailed"}
        )
        assert retries == 1.0
        listed = httpx.get(gateway.admin_url + "/api/v1/replicas").json()["replicas"]
        [entry] = [one for one in listed if one["replica_id"] == "a-dead"]
        assert 0 < entry["ejected_for_seconds"] <= ejection.MAX_EJECTION_SECONDS


def test_no_replica_is_tried_twice_and_an_error_is_told_once() -> None:
    def fail(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(whole_answer(500, VLLM_500))

    with ScriptedEngine(fail) as one, ScriptedEngine(fail) as other:
        replicas = [ready_replica(one.port), ready_replica(other.port)]
        with LocalGateway(replicas, settings()) as gateway:
            response = post(gateway, CHAT)
            assert (response.status_code, response.json()["error"]["code"]) == (
                502,
                "upstream_error",
            )
            assert (len(one.requests), len(other.requests)) == (1, 1)
            [record] = gateway.usage.records
            assert record.outcome is Outcome.FAILED
            assert record.charge.amount == 0


def test_attempts_are_bounded() -> None:
    def fail(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(whole_answer(500, VLLM_500))

    with ScriptedEngine(fail) as a, ScriptedEngine(fail) as b, ScriptedEngine(fail) as c:
        replicas = [ready_replica(engine.port) for engine in (a, b, c)]
        with LocalGateway(replicas, settings(max_attempts=2)) as gateway:
            assert post(gateway, CHAT).status_code == 502
        assert sum(len(engine.requests) for engine in (a, b, c)) == 2


def test_a_stream_that_breaks_off_ends_with_an_error_event_and_is_free() -> None:
    def break_off(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(HTTP_OK_STREAM + chunked(content_event("one", 1)))
        connection.sendall(chunked(content_event("two", 2))[:-30])
        time.sleep(0.1)
        reset(connection)

    with ScriptedEngine(break_off) as bad:
        with LocalGateway([ready_replica(bad.port)], impatient_settings()) as gateway:
            response = post(gateway, STREAM)
            events = response.text.split("\n\n")
            assert "one" in events[0]
            assert json.loads(events[1].removeprefix("data: "))["error"]["code"] == "upstream_error"
            assert events[2:] == [""]
            assert "[DONE]" not in response.text
            [record] = gateway.usage.records
            assert (record.outcome, record.charge.amount) == (Outcome.FAILED, 0)
            assert record.tokens.output_tokens == 1
        assert len(bad.requests) == 1


def test_the_official_client_raises_on_a_stream_that_breaks_off() -> None:
    def break_off(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(HTTP_OK_STREAM + chunked(content_event("one", 1)))
        time.sleep(0.1)
        connection.close()

    with (
        ScriptedEngine(break_off) as bad,
        LocalGateway([ready_replica(bad.port)], impatient_settings()) as gateway,
        openai.OpenAI(base_url=gateway.base_url, api_key=TEST_KEY, max_retries=0) as client,
    ):
        stream = client.chat.completions.create(
            model="simulated", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        assert next(stream).choices[0].delta.content == "one"
        with pytest.raises(openai.APIError, match="broke off"):
            next(stream)


@pytest.mark.parametrize("pause", [0.0, 0.2], ids=["in-one-piece", "after-the-first-token"])
def test_an_error_inside_a_stream_is_rewritten_and_nothing_follows(pause: float) -> None:
    def fail_inside(connection: socket.socket, _request: bytes) -> None:
        begin = HTTP_OK_STREAM + chunked(content_event("one", 1))
        end = chunked(b"data: " + VLLM_500 + b"\n\n") + chunked(b"data: [DONE]\n\n")
        if pause:
            connection.sendall(begin)
            time.sleep(pause)
            begin = b""
        connection.sendall(begin + end + b"0\r\n\r\n")

    with (
        ScriptedEngine(fail_inside) as bad,
        LocalGateway([ready_replica(bad.port)], impatient_settings()) as gateway,
    ):
        response = post(gateway, STREAM)
        last = response.text.strip().split("\n\n")[-1].removeprefix("data: ")
        assert json.loads(last)["error"]["code"] == "upstream_error"
        # What the client has not seen is not shown to it.
        assert response.status_code == (200 if pause else 502)
        assert ("one" in response.text) is bool(pause)
        [record] = gateway.usage.records
        assert (record.outcome, record.charge.amount) == (Outcome.FAILED, 0)


def test_a_killed_engine_before_its_first_byte_costs_the_client_nothing(
    second_engine: EngineProcess,
) -> None:
    with simulated_engine(prefill_seconds_per_token=5.0) as slow:
        replicas = [
            ready_replica(slow.port, replica_id="a-slow"),
            ready_replica(second_engine.port, replica_id="b-good"),
        ]
        with (
            LocalGateway(replicas, settings()) as gateway,
            openai.OpenAI(base_url=gateway.base_url, api_key=TEST_KEY, max_retries=0) as client,
        ):
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(
                    client.chat.completions.create,
                    model="simulated",
                    messages=[{"role": "user", "content": "hi"}],
                    max_tokens=4,
                )
                wait_until(lambda: in_flight(gateway) == 1)
                time.sleep(0.3)
                os.kill(slow.process.pid, signal.SIGKILL)
                assert answer.result(20).usage.completion_tokens == 4
            [record] = gateway.usage.records
            assert (record.replica_id, record.outcome) == ("b-good", Outcome.COMPLETED)


IMPATIENT = {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 1, "TCP_USER_TIMEOUT": 1_000}
"""How soon the kernel gives a host up in tests, which do not wait as long as a gateway does."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    hastened = {getattr(socket, name): value for name, value in IMPATIENT.items()}
    kept = upstream_pool.DEAD_HOST_OPTIONS
    assert hastened.keys() <= {option for _, option, _ in kept}
    options = tuple((level, name, hastened.get(name, value)) for level, name, value in kept)
    monkeypatch.setattr(upstream_pool, "DEAD_HOST_OPTIONS", options)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("after_seconds", [0.0, 0.3], ids=["unacknowledged", "while-it-worked"])
def test_a_host_without_power_before_the_first_byte_costs_the_client_nothing(
    engine: EngineProcess, after_seconds: float
) -> None:
    def die(connection: socket.socket, _request: bytes) -> None:
        time.sleep(after_seconds)
        lose_power(connection)

    with (
        ScriptedEngine(die) as dead,
        LocalGateway(two(dead, engine), settings()) as gateway,  # type: ignore[arg-type]
    ):
        assert post(gateway, CHAT).status_code == 200
        assert len(dead.requests) == 1
        [record] = gateway.usage.records
        assert (record.outcome, record.replica_id) == (Outcome.COMPLETED, "b-good")


@pytest.mark.usefixtures("impatient")
def test_a_stream_from_a_host_without_power_ends_with_an_error_event() -> None:
    def die(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(HTTP_OK_STREAM + chunked(content_event("one", 1)))
        time.sleep(0.3)
        lose_power(connection)

    with (
        ScriptedEngine(die) as dead,
        LocalGateway([ready_replica(dead.port)], impatient_settings()) as gateway,
    ):
        one, error, rest = post(gateway, STREAM).text.split("\n\n")
        assert "one" in one
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "upstream_error"
        assert rest == ""


def test_requests_wait_for_the_replacement_of_the_only_replica() -> None:
    with (
        simulated_engine(prefill_seconds_per_token=5.0) as dying,
        simulated_engine() as replacement,
        LocalGateway([ready_replica(dying.port)], settings()) as gateway,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(post, gateway, CHAT)
        wait_until(lambda: in_flight(gateway) == 1)
        time.sleep(0.3)
        os.kill(dying.process.pid, signal.SIGKILL)
        time.sleep(0.3)
        assert not answer.done()
        gateway.replica_source.endpoints = [ready_replica(replacement.port)]
        assert answer.result(20).status_code == 200


class TestClientLeaves:
    def test_a_stream_is_aborted_upstream_and_billed_as_far_as_it_went(self) -> None:
        def stream_for_ever(connection: socket.socket, _request: bytes) -> None:
            connection.sendall(HTTP_OK_STREAM)
            for number in range(1, 4):
                connection.sendall(chunked(content_event("word", number)))
            endless.wait_for_client_to_leave(connection)

        with (
            ScriptedEngine(stream_for_ever) as endless,
            LocalGateway([ready_replica(endless.port)], settings()) as gateway,
        ):
            with (
                httpx.Client(headers=AUTH, timeout=10.0) as client,
                client.stream(
                    "POST", gateway.base_url + "/chat/completions", json=STREAM
                ) as response,
            ):
                seen = 0
                for line in response.iter_lines():
                    seen += line.startswith("data:")
                    if seen == 3:
                        break
            assert endless.client_left.wait(5.0)
            wait_until(lambda: bool(gateway.usage.records))
            [record] = gateway.usage.records
            assert record.outcome is Outcome.ABORTED
            assert record.tokens == TokenCounts(3, 0, 3)
            assert f"{record.charge}" == "0.0000015"
            assert gateway.access[-1].status == 499

    def test_a_plain_request_is_aborted_upstream(self) -> None:
        def never(connection: socket.socket, _request: bytes) -> None:
            silent.wait_for_client_to_leave(connection)

        with (
            ScriptedEngine(never) as silent,
            LocalGateway([ready_replica(silent.port)], settings()) as gateway,
        ):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(
                    gateway.base_url + "/chat/completions", headers=AUTH, json=CHAT, timeout=0.5
                )
            assert silent.client_left.wait(5.0)
            wait_until(lambda: bool(gateway.usage.records))
            [record] = gateway.usage.records
            assert (record.outcome, record.charge.amount) == (Outcome.ABORTED, 0)

    def test_a_waiting_request_leaves_the_queue(self) -> None:
        with LocalGateway([], settings(), models=["simulated"]) as gateway:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(
                    gateway.base_url + "/chat/completions", headers=AUTH, json=CHAT, timeout=0.5
                )
            wait_until(lambda: bool(gateway.usage.records))
            [record] = gateway.usage.records
            assert (record.outcome, record.replica_id) == (Outcome.ABORTED, "")
            signals = httpx.get(gateway.admin_url + "/api/v1/signals").json()
            assert signals["models"]["simulated"]["waiting"]["default"] == 0

    def test_the_simulated_engine_stops_working(self, engine: EngineProcess) -> None:
        with LocalGateway([ready_replica(engine.port)], settings()) as gateway:
            with (
                httpx.Client(headers=AUTH) as client,
                client.stream(
                    "POST",
                    gateway.base_url + "/chat/completions",
                    json={**STREAM, "max_tokens": 4000},
                ) as response,
            ):
                next(response.iter_lines())
            running = "vllm:num_requests_running{"

            def idle() -> bool:
                metrics = httpx.get(f"http://127.0.0.1:{engine.port}/metrics").text
                [line] = [one for one in metrics.splitlines() if one.startswith(running)]
                return line.endswith(" 0.0")

            wait_until(idle)


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "streamed"])
def test_connections_to_an_engine_are_used_again(body: dict[str, object]) -> None:
    def answer(connection: socket.socket, request: bytes) -> None:
        if b'"stream":true' in request:
            usage = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
            done = chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"
            connection.sendall(HTTP_OK_STREAM + chunked(content_event("x", 1)))
            connection.sendall(chunked(usage) + done)
        else:
            usage = b'{"usage":{"prompt_tokens":1,"completion_tokens":1}}'
            connection.sendall(whole_answer(200, usage))

    with (
        ScriptedEngine(answer) as kept,
        LocalGateway([ready_replica(kept.port)], settings()) as gateway,
    ):
        for _ in range(5):
            assert post(gateway, body).status_code == 200
        assert (len(kept.requests), kept.connections) == (5, 1)


def test_a_kept_connection_that_the_engine_closed_is_not_an_error(engine: EngineProcess) -> None:
    served = 0

    def close_after_each(connection: socket.socket, request: bytes) -> None:
        nonlocal served
        served += 1
        body = json.dumps(
            {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": served}}
        ).encode()
        connection.sendall(whole_answer(200, body))
        time.sleep(0.05)
        connection.close()

    with (
        ScriptedEngine(close_after_each) as closing,
        LocalGateway([ready_replica(closing.port)], settings()) as gateway,
    ):
        for expected in range(1, 6):
            response = post(gateway, CHAT)
            assert response.json()["usage"]["completion_tokens"] == expected
            time.sleep(0.05 if expected % 2 else 0.0)
        assert len(gateway.usage.records) == 5
        assert all(record.outcome is Outcome.COMPLETED for record in gateway.usage.records)


def test_a_silent_engine_is_given_up() -> None:
    def never(connection: socket.socket, _request: bytes) -> None:
        silent.wait_for_client_to_leave(connection)

    with (
        ScriptedEngine(never) as silent,
        LocalGateway(
            [ready_replica(silent.port)], settings(upstream_silence_timeout_seconds=0.5)
        ) as gateway,
    ):
        response = post(gateway, CHAT)
        assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_error")
        assert silent.client_left.wait(5.0)


def test_an_engine_that_reports_no_usage_is_free_and_told_apart() -> None:
    def stream(connection: socket.socket, _request: bytes) -> None:
        bare = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
        connection.sendall(HTTP_OK_STREAM + chunked(bare))
        connection.sendall(chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    with (
        ScriptedEngine(stream) as bare_engine,
        LocalGateway([ready_replica(bare_engine.port)], settings()) as gateway,
    ):
        assert post(gateway, STREAM).text.endswith("data: [DONE]\n\n")
        [record] = gateway.usage.records
        assert (record.outcome, record.tokens) == (Outcome.COMPLETED, TokenCounts())
