"""What stands in front of an engine's application: counts, refuses while draining, traces.

Plain ASGI, because a framework's middleware would touch every chunk of a stream.
The application's lifespan is not the gate's business: an engine starts and ends
with its replica, so a server in front of the gate must neither begin nor end it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import MutableMapping
from typing import Any

from opentelemetry.trace import SpanKind
from starlette.types import ASGIApp, Receive, Scope, Send

from trierarch.core.clock import Clock
from trierarch.observability import names
from trierarch.observability.tracing import SpanNote, Tracer

_logger = logging.getLogger(__name__)

_PROBES = frozenset({"/health", "/metrics", "/ping", "/version", "/load"})
"""Asked by machines about the engine; not work, and answered while draining."""

STATE_HEADER = b"x-trierarch-replica-state"
"""Tells the gateway that a refusal means "elsewhere", not "failed"."""


class RequestGate:
    """An ASGI application around an engine's.

    Args:
        app: The engine's.
        clock: For spans and log lines.
        replica_id: For spans and log lines.
        tracer: Takes the replica's spans.

    Attributes:
        in_flight: Requests that have begun and not ended.
        is_draining: Whether new requests are refused.
    """

    def __init__(self, app: ASGIApp, clock: Clock, replica_id: str, tracer: Tracer) -> None:
        self._app = app
        self._clock = clock
        self._replica_id = replica_id
        self._tracer = tracer
        self.in_flight = 0
        self.is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] == "lifespan":
            await _complete_lifespan(receive, send)
            return
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        if self.is_draining:
            await _refuse(send)
            return
        self.in_flight += 1
        try:
            await self._serve(scope, receive, send)
        finally:
            self.in_flight -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        found = dict(headers)
        trace = self._tracer.start(found.get(b"traceparent"), found.get(b"tracestate"))
        is_recorded = trace.sampled and self._tracer.is_exporting
        if is_recorded:
            # The engine's spans become children of the replica's.
            own = trace.traceparent(trace.server_span_id).encode()
            kept = [pair for pair in headers if pair[0] != b"traceparent"]
            scope = {**scope, "headers": [*kept, (b"traceparent", own)]}
        status = 0

        async def noting_send(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began_unix_seconds = self._clock.unix_seconds()
        try:
            await self._app(scope, receive, noting_send)
        finally:
            ended_unix_seconds = self._clock.unix_seconds()
            request_id = found.get(b"x-request-id", b"").decode("latin-1")
            if is_recorded:
                trace.spans.append(
                    SpanNote(
                        name=f"replica {scope['path']}",
                        kind=SpanKind.SERVER,
                        span_id=trace.server_span_id,
                        parent_span_id=trace.parent_span_id,
                        start_unix_seconds=began_unix_seconds,
                        end_unix_seconds=ended_unix_seconds,
                        attributes={
                            names.HTTP_REQUEST_METHOD: scope["method"],
                            names.URL_PATH: scope["path"],
                            names.HTTP_RESPONSE_STATUS_CODE: status,
                            names.TRIERARCH_REPLICA_ID: self._replica_id,
                            names.TRIERARCH_REQUEST_ID: request_id,
                        },
                        error="" if 0 < status < 500 else "NoAnswer" if not status else str(status),
                    )
                )
                self._tracer.finish(trace)
            _logger.info(
                "request ended",
                extra={
                    "request_id": request_id,
                    "trace_id": trace.trace_id,
                    "replica_id": self._replica_id,
                    "path": scope["path"],
                    "status": status,
                    "seconds": round(ended_unix_seconds - began_unix_seconds, 4),
                },
            )


async def _refuse(send: Send) -> None:
    error = {"message": "this replica is draining", "type": "unavailable", "code": 503}
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"1"),
        (STATE_HEADER, b"draining"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _complete_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
