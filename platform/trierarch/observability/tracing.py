"""Traces without the cost of tracing on the event loop.

The SDK's spans cost more than everything else a gateway does for a request, so
the loop only notes times and plain values in a ``RequestTrace``. Whether a
request is sampled is decided before anything is noted; the notes become
OpenTelemetry spans in the exporter's thread. Contexts travel as W3C
``traceparent`` and ``tracestate``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from trierarch.observability.offload import BatchWriter

_TRACEPARENT = re.compile(
    rb"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})"
    rb"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_MAX_TRACESTATE_BYTES = 512
"""What the W3C recommendation asks every hop to carry; a longer value is dropped whole."""

_NANOSECONDS = 1_000_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class RemoteContext:
    """What a valid ``traceparent`` said.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits: the caller's span.
        sampled: Whether the caller records.
    """

    trace_id: str
    span_id: str
    sampled: bool


def parse_traceparent(value: bytes) -> RemoteContext | None:
    """Return the context of a W3C ``traceparent`` header, or None if it is not valid."""
    match = _TRACEPARENT.fullmatch(value.strip())
    if match is None:
        return None
    version, trace_id, span_id = match["version"], match["trace"], match["span"]
    if version == b"ff" or (version == b"00" and match["more"] is not None):
        return None
    if not trace_id.strip(b"0") or not span_id.strip(b"0"):
        return None
    return RemoteContext(trace_id.decode(), span_id.decode(), bool(int(match["flags"], 16) & 1))


def format_traceparent(trace_id: str, span_id: str, *, sampled: bool) -> str:
    """Return a W3C ``traceparent`` header value."""
    return f"00-{trace_id}-{span_id}-{'01' if sampled else '00'}"


@dataclasses.dataclass(slots=True)
class SpanNote:
    """A finished span as plain values.

    Attributes:
        name: Low cardinality.
        kind: OpenTelemetry kind.
        span_id: 16 hex digits.
        parent_span_id: Empty for the root of a trace.
        start_unix_seconds: Wall time.
        end_unix_seconds: Wall time.
        attributes: By the names in ``observability.names``.
        error: Reason if it failed, else empty.
    """

    name: str
    kind: SpanKind
    span_id: str
    parent_span_id: str
    start_unix_seconds: float
    end_unix_seconds: float
    attributes: Mapping[str, AttributeValue]
    error: str = ""


class RequestTrace:
    """The trace of one request: its ids, and its finished spans if it is sampled.

    Attributes:
        trace_id: 32 hex digits.
        server_span_id: 16 hex digits: the gateway's SERVER span.
        parent_span_id: The caller's span, or empty.
        sampled: Whether spans are kept; sent on to the engine.
        tracestate: The caller's, untouched.
        spans: Finished spans.
    """

    __slots__ = (
        "_random_bytes",
        "parent_span_id",
        "sampled",
        "server_span_id",
        "spans",
        "trace_id",
        "tracestate",
    )

    def __init__(
        self,
        random_bytes: Callable[[int], bytes],
        *,
        trace_id: str,
        parent_span_id: str,
        sampled: bool,
        tracestate: bytes,
    ) -> None:
        self._random_bytes = random_bytes
        self.trace_id = trace_id
        self.parent_span_id = parent_span_id
        self.sampled = sampled
        self.tracestate = tracestate
        self.server_span_id = self.new_span_id()
        self.spans: list[SpanNote] = []

    def new_span_id(self) -> str:
        """Return a fresh span id."""
        return self._random_bytes(8).hex()

    def traceparent(self, span_id: str) -> str:
        """Return the header that makes ``span_id`` the parent of what follows."""
        return format_traceparent(self.trace_id, span_id, sampled=self.sampled)


class Tracer:
    """Starts traces and passes the sampled ones on.

    Args:
        sample_ratio: Share of traces without a sampled caller that are kept, 0 to 1; decided by
            the trace id, so that every process decides alike.
        random_bytes: Source of ids.
        export: Takes a finished trace; None if no exporter is configured.
    """

    def __init__(
        self,
        *,
        sample_ratio: float,
        random_bytes: Callable[[int], bytes],
        export: Callable[[RequestTrace], None] | None = None,
    ) -> None:
        self._sample_below = int(sample_ratio * (1 << 56))
        self._random_bytes = random_bytes
        self._export = export

    def start(self, traceparent: bytes | None, tracestate: bytes | None) -> RequestTrace:
        """Return the trace of a new request; the caller's decision to sample is kept."""
        remote = parse_traceparent(traceparent) if traceparent else None
        if remote is not None:
            kept_state = tracestate or b""
            if len(kept_state) > _MAX_TRACESTATE_BYTES:
                kept_state = b""
            return RequestTrace(
                self._random_bytes,
                trace_id=remote.trace_id,
                parent_span_id=remote.span_id,
                sampled=remote.sampled,
                tracestate=kept_state,
            )
        random = self._random_bytes(16)
        return RequestTrace(
            self._random_bytes,
            trace_id=random.hex(),
            parent_span_id="",
            sampled=int.from_bytes(random[9:], "big") < self._sample_below,
            tracestate=b"",
        )

    @property
    def is_exporting(self) -> bool:
        """Whether spans have a reader; without one none is noted."""
        return self._export is not None

    def finish(self, trace: RequestTrace) -> None:
        """Hand over a finished trace."""
        if self._export is not None and trace.sampled and trace.spans:
            self._export(trace)


def build_spans(
    trace: RequestTrace, resource: Resource, scope: InstrumentationScope
) -> list[ReadableSpan]:
    """Return a trace's notes as OpenTelemetry spans."""
    trace_id = int(trace.trace_id, 16)
    flags = TraceFlags(TraceFlags.SAMPLED)
    spans = []
    for note in trace.spans:
        parent = None
        if note.parent_span_id:
            parent = SpanContext(
                trace_id,
                int(note.parent_span_id, 16),
                is_remote=note.parent_span_id == trace.parent_span_id,
                trace_flags=flags,
            )
        spans.append(
            ReadableSpan(
                name=note.name,
                context=SpanContext(
                    trace_id, int(note.span_id, 16), is_remote=False, trace_flags=flags
                ),
                parent=parent,
                resource=resource,
                attributes=note.attributes,
                kind=note.kind,
                status=Status(StatusCode.ERROR, note.error) if note.error else Status(),
                start_time=int(note.start_unix_seconds * _NANOSECONDS),
                end_time=int(note.end_unix_seconds * _NANOSECONDS),
                instrumentation_scope=scope,
            )
        )
    return spans


def start_otlp_writer(
    endpoint: str,
    *,
    service_name: str,
    service_version: str,
    on_drop: Callable[[int], None],
) -> BatchWriter[RequestTrace]:
    """Start the thread that sends traces over OTLP/HTTP.

    Args:
        endpoint: Base address as ``OTEL_EXPORTER_OTLP_ENDPOINT`` gives it, without ``/v1/traces``.
        service_name: For the resource.
        service_version: For the resource.
        on_drop: Counts traces that were given up.
    """
    exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces", timeout=5.0)
    resource = Resource.create({"service.name": service_name, "service.version": service_version})
    scope = InstrumentationScope("trierarch", service_version)

    def write(traces: Sequence[RequestTrace]) -> None:
        exporter.export([span for trace in traces for span in build_spans(trace, resource, scope)])

    writer: BatchWriter[RequestTrace] = BatchWriter("otlp-traces", write, on_drop=on_drop)
    writer.start()
    return writer
