"""An OTLP/HTTP collector that keeps what it gets, for tests of traces."""

from __future__ import annotations

import dataclasses
import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

AttributeScalar = str | int | float | bool


@dataclasses.dataclass(frozen=True, slots=True)
class CollectedSpan:
    """One span as it was sent.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        parent_span_id: 16 hex digits; empty for a root.
        name: Span name.
        kind: "SERVER", "CLIENT", "INTERNAL" and so on.
        attributes: Scalars only.
        start_unix_nanoseconds: Wall time.
        end_unix_nanoseconds: Wall time.
        is_error: Status.
        service_name: From the resource.
    """

    trace_id: str
    span_id: str
    parent_span_id: str
    name: str
    kind: str
    attributes: dict[str, AttributeScalar]
    start_unix_nanoseconds: int
    end_unix_nanoseconds: int
    is_error: bool
    service_name: str


def _scalar(value: AnyValue) -> AttributeScalar:
    chosen = value.WhichOneof("value")
    if chosen == "int_value":
        return value.int_value
    if chosen == "double_value":
        return value.double_value
    if chosen == "bool_value":
        return value.bool_value
    return value.string_value


def _collected(span: Span, service_name: str) -> CollectedSpan:
    return CollectedSpan(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        attributes={item.key: _scalar(item.value) for item in span.attributes},
        start_unix_nanoseconds=span.start_time_unix_nano,
        end_unix_nanoseconds=span.end_time_unix_nano,
        is_error=span.status.code == 2,
        service_name=service_name,
    )


def decode_spans(body: bytes) -> list[CollectedSpan]:
    """Return the spans of an OTLP export request in protobuf."""
    request = ExportTraceServiceRequest.FromString(body)
    spans: list[CollectedSpan] = []
    for resource_spans in request.resource_spans:
        resource = {item.key: _scalar(item.value) for item in resource_spans.resource.attributes}
        service_name = str(resource.get("service.name", ""))
        for scope_spans in resource_spans.scope_spans:
            spans += [_collected(span, service_name) for span in scope_spans.spans]
    return spans


class TraceCollector:
    """Listens on a free local port while used as a context manager."""

    def __init__(self) -> None:
        self._spans: list[CollectedSpan] = []
        self._changed = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name http.server calls
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.add(decode_spans(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_arguments: object) -> None:
                """Stay silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint(self) -> str:
        """Value for ``OTEL_EXPORTER_OTLP_ENDPOINT``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, spans: list[CollectedSpan]) -> None:
        """Keep spans."""
        with self._changed:
            self._spans.extend(spans)
            self._changed.notify_all()

    def wait_for(self, count: int, *, timeout_seconds: float = 10.0) -> list[CollectedSpan]:
        """Return the spans as soon as there are ``count``, or those there are in time."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._spans) >= count, timeout_seconds)
            return list(self._spans)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
