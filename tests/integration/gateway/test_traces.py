"""Spans as a collector gets them, and the context as an engine gets it."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from trierarch.settings.gateway import GatewaySettings
from trierarch.testing.local_gateway import TEST_KEY, LocalGateway
from trierarch.testing.replica_source import ready_replica
from trierarch.testing.scripted_engine import ScriptedEngine, whole_answer
from trierarch.testing.simulated_engines import EngineProcess
from trierarch.testing.trace_collector import CollectedSpan, TraceCollector
from trierarch.testing.waiting import wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
CHAT = {"model": "simulated", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
ANSWER = json.dumps({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()


def send(gateway: LocalGateway, **headers: str) -> httpx.Response:
    return httpx.post(
        gateway.base_url + "/chat/completions",
        headers={"authorization": f"Bearer {TEST_KEY}", **headers},
        json=CHAT,
        timeout=20.0,
    )


def settings(collector: TraceCollector, ratio: float = 1.0) -> GatewaySettings:
    return GatewaySettings(otlp_endpoint=collector.endpoint, trace_sample_ratio=ratio)


def waiting(gateway: LocalGateway) -> int:
    signals = httpx.get(gateway.admin_url + "/api/v1/signals", timeout=20.0).json()
    return int(signals["models"]["simulated"]["waiting"]["default"])


def by_kind(spans: list[CollectedSpan], kind: str) -> list[CollectedSpan]:
    return [span for span in spans if span.kind == kind]


def traceparent_of(request: bytes) -> list[str]:
    [line] = [one for one in request.split(b"\r\n") if one.startswith(b"traceparent: ")]
    return line.decode().removeprefix("traceparent: ").split("-")


def test_one_trace_from_the_caller_to_the_engine() -> None:
    def answer(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(whole_answer(200, ANSWER))

    with (
        TraceCollector() as collector,
        ScriptedEngine(answer) as engine,
        LocalGateway([ready_replica(engine.port)], settings(collector)) as gateway,
    ):
        response = send(gateway, traceparent=f"00-{TRACE}-{SPAN}-01", tracestate="vendor=x")
        spans = collector.wait_for(2)
        [server], [client] = by_kind(spans, "SERVER"), by_kind(spans, "CLIENT")
        assert (server.trace_id, server.parent_span_id) == (TRACE, SPAN)
        assert (client.trace_id, client.parent_span_id) == (TRACE, server.span_id)
        assert traceparent_of(engine.requests[0]) == ["00", TRACE, client.span_id, "01"]
        assert b"\r\ntracestate: vendor=x\r\n" in engine.requests[0]
        assert server.name == "POST /v1/chat/completions"
        assert server.service_name == "trierarch-gateway"
        assert server.attributes["http.response.status_code"] == 200
        assert server.attributes["trierarch.request_id"] == response.headers["x-request-id"]
        assert server.attributes["trierarch.tenant"] == "tenant"
        assert client.name == "chat simulated"
        assert client.attributes["gen_ai.operation.name"] == "chat"
        assert client.attributes["gen_ai.provider.name"] == "vllm"
        assert client.attributes["gen_ai.request.model"] == "simulated"
        assert client.attributes["gen_ai.request.max_tokens"] == 4
        assert client.attributes["gen_ai.usage.output_tokens"] == 1
        assert server.start_unix_nanoseconds <= client.start_unix_nanoseconds
        assert client.end_unix_nanoseconds <= server.end_unix_nanoseconds
        assert gateway.usage.records[0].trace_id == TRACE
        assert gateway.access[-1].trace_id == TRACE


def test_retries_are_sibling_spans(engine: EngineProcess) -> None:
    def fail(connection: socket.socket, _request: bytes) -> None:
        connection.close()

    with TraceCollector() as collector, ScriptedEngine(fail) as bad:
        replicas = [
            ready_replica(bad.port, replica_id="a"),
            ready_replica(engine.port, replica_id="b"),
        ]
        with LocalGateway(replicas, settings(collector)) as gateway:
            assert send(gateway).status_code == 200
            spans = collector.wait_for(3)
            [server] = by_kind(spans, "SERVER")
            first, second = sorted(
                by_kind(spans, "CLIENT"), key=lambda s: s.attributes["trierarch.attempt"]
            )
            assert server.parent_span_id == ""
            assert first.parent_span_id == second.parent_span_id == server.span_id
            assert first.is_error
            assert first.attributes["error.type"] == "ConnectionLost"
            assert not second.is_error
            assert second.attributes["trierarch.replica_id"] == "b"
            assert traceparent_of(bad.requests[0])[2] == first.span_id


def test_waiting_is_a_span_of_its_own(engine: EngineProcess) -> None:
    with TraceCollector() as collector:
        with (
            LocalGateway([], settings(collector), models=["simulated"]) as gateway,
            ThreadPoolExecutor(1) as pool,
        ):
            answer = pool.submit(send, gateway)
            wait_until(lambda: waiting(gateway) == 1)
            time.sleep(0.3)
            gateway.replica_source.endpoints.append(ready_replica(engine.port))
            assert answer.result().status_code == 200
            spans = collector.wait_for(3)
        [wait] = by_kind(spans, "INTERNAL")
        [server] = by_kind(spans, "SERVER")
        assert (wait.name, wait.parent_span_id) == ("queue wait", server.span_id)
        assert wait.end_unix_nanoseconds - wait.start_unix_nanoseconds > 200_000_000


def test_nothing_is_exported_that_is_not_sampled(engine: EngineProcess) -> None:
    with TraceCollector() as collector:
        with LocalGateway([ready_replica(engine.port)], settings(collector, 0.0)) as gateway:
            send(gateway)
            send(gateway, traceparent=f"00-{TRACE}-{SPAN}-00")
            send(gateway, traceparent=f"00-{TRACE}-{SPAN}-01")
            collector.wait_for(2)
        spans = collector.wait_for(3, timeout_seconds=0.0)
        assert {span.trace_id for span in spans} == {TRACE}
        assert len(spans) == 2


def test_a_dead_collector_does_not_hurt(engine: EngineProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = closed.getsockname()[1]
    options = GatewaySettings(otlp_endpoint=f"http://127.0.0.1:{dead}")
    with LocalGateway([ready_replica(engine.port)], options) as gateway:
        assert send(gateway).status_code == 200
