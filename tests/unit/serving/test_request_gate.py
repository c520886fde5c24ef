"""The gate counts what runs, refuses while draining, and hands on the trace."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from trierarch.core.clock import ManualClock
from trierarch.observability.tracing import RequestTrace, Tracer
from trierarch.serving.request_gate import RequestGate

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def make_scope(path: str = "/v1/chat/completions", *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": path, "headers": list(headers)}


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


class Recorder:
    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    async def __call__(self, message: Any) -> None:
        self.messages.append(message)


def make_gate(app: Any, exported: list[RequestTrace] | None = None) -> RequestGate:
    tracer = Tracer(
        sample_ratio=0.0,
        random_bytes=lambda count: b"\x01" * count,
        export=None if exported is None else exported.append,
    )
    return RequestGate(app, ManualClock(100.0), "r1", tracer)


def test_requests_count_until_their_last_byte() -> None:
    seen: list[int] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        seen.append(gate.in_flight)
        await send({"type": "http.response.body", "body": b"x"})

    gate = make_gate(app)
    asyncio.run(gate(make_scope(), receive, Recorder()))
    assert seen == [1]
    assert gate.in_flight == 0


def test_a_failure_of_the_application_frees_its_place() -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise RuntimeError("engine")

    gate = make_gate(app)
    with pytest.raises(RuntimeError, match="engine"):
        asyncio.run(gate(make_scope(), receive, Recorder()))
    assert gate.in_flight == 0


def test_while_draining_new_requests_go_elsewhere_and_probes_are_answered() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    gate = make_gate(app)
    gate.is_draining = True
    refused, probed = Recorder(), Recorder()
    asyncio.run(gate(make_scope(), receive, refused))
    asyncio.run(gate(make_scope("/metrics"), receive, probed))
    assert refused.messages[0]["status"] == 503
    assert (b"x-trierarch-replica-state", b"draining") in refused.messages[0]["headers"]
    assert probed.messages[0]["status"] == 200


def test_the_engine_becomes_a_child_of_the_replicas_span() -> None:
    given: list[dict[bytes, bytes]] = []
    exported: list[RequestTrace] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        given.append(dict(scope["headers"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    gate = make_gate(app, exported)
    parent = f"00-{TRACE}-00f067aa0ba902b7-01".encode()
    asyncio.run(gate(make_scope("/v1/completions", (b"traceparent", parent)), receive, Recorder()))
    [trace] = exported
    [span] = trace.spans
    assert (trace.trace_id, span.parent_span_id) == (TRACE, "00f067aa0ba902b7")
    assert given[0][b"traceparent"] == f"00-{TRACE}-{span.span_id}-01".encode()
    assert span.error == ""


def test_an_unsampled_request_passes_untouched() -> None:
    given: list[dict[bytes, bytes]] = []
    exported: list[RequestTrace] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        given.append(dict(scope["headers"]))

    gate = make_gate(app, exported)
    parent = f"00-{TRACE}-00f067aa0ba902b7-00".encode()
    asyncio.run(gate(make_scope("/v1/completions", (b"traceparent", parent)), receive, Recorder()))
    assert given[0][b"traceparent"] == parent
    assert exported == []


def test_a_servers_lifespan_does_not_reach_the_engine() -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise AssertionError("the engine's own lifespan belongs to the replica")

    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def next_message() -> dict[str, Any]:
        return next(messages)

    sent = Recorder()
    asyncio.run(make_gate(app)({"type": "lifespan"}, next_message, sent))
    assert [message["type"] for message in sent.messages] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
