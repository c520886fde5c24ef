"""Trace contexts, sampling, and spans made from notes."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind, StatusCode

from trierarch.observability.tracing import (
    RemoteContext,
    RequestTrace,
    SpanNote,
    Tracer,
    build_spans,
    format_traceparent,
    parse_traceparent,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def counting() -> object:
    calls = iter(range(1, 1000))
    return lambda size: next(calls).to_bytes(size, "big")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"00-{TRACE}-{SPAN}-01", RemoteContext(TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-00", RemoteContext(TRACE, SPAN, False)),
        (f"00-{TRACE}-{SPAN}-03", RemoteContext(TRACE, SPAN, True)),
        (f" 00-{TRACE}-{SPAN}-01 ", RemoteContext(TRACE, SPAN, True)),
        (f"cc-{TRACE}-{SPAN}-01-what-comes", RemoteContext(TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE[:-1]}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01", None),
        ("", None),
    ],
)
def test_traceparent(value: str, expected: RemoteContext | None) -> None:
    assert parse_traceparent(value.encode()) == expected


def test_a_context_survives_the_wire() -> None:
    header = format_traceparent(TRACE, SPAN, sampled=True)
    assert parse_traceparent(header.encode()) == RemoteContext(TRACE, SPAN, True)


@pytest.mark.parametrize("flag", ["00", "01"])
def test_the_callers_decision_is_kept(flag: str) -> None:
    for ratio in (0.0, 1.0):
        tracer = Tracer(sample_ratio=ratio, random_bytes=counting())
        trace = tracer.start(f"00-{TRACE}-{SPAN}-{flag}".encode(), b"a=1")
        assert trace.sampled is (flag == "01")
        assert (trace.trace_id, trace.parent_span_id, trace.tracestate) == (TRACE, SPAN, b"a=1")
        assert trace.server_span_id != SPAN


@pytest.mark.parametrize("header", [None, b"nonsense"])
def test_without_a_valid_caller_a_new_trace_begins_without_its_state(header: bytes | None) -> None:
    trace = Tracer(sample_ratio=1.0, random_bytes=counting()).start(header, b"a=1")
    assert (trace.parent_span_id, trace.tracestate) == ("", b"")


def test_a_tracestate_too_long_to_carry_is_dropped() -> None:
    tracer = Tracer(sample_ratio=1.0, random_bytes=counting())
    trace = tracer.start(f"00-{TRACE}-{SPAN}-01".encode(), b"a" * 600)
    assert trace.tracestate == b""


def test_the_trace_id_decides_which_share_is_sampled() -> None:
    def sampled(last_bytes: int, ratio: float) -> bool:
        tracer = Tracer(
            sample_ratio=ratio, random_bytes=lambda size: last_bytes.to_bytes(size, "big")
        )
        return tracer.start(None, None).sampled

    quarter = (1 << 56) // 4
    assert sampled(quarter - 1, 0.25)
    assert not sampled(quarter, 0.25)
    assert not sampled(1, 0.0)
    assert sampled((1 << 56) - 1, 1.0)


@pytest.mark.parametrize(
    ("sampled", "noted", "exported"), [(True, True, 1), (False, True, 0), (True, False, 0)]
)
def test_only_sampled_traces_with_spans_are_exported(
    sampled: bool, noted: bool, exported: int
) -> None:
    out: list[RequestTrace] = []
    tracer = Tracer(sample_ratio=float(sampled), random_bytes=counting(), export=out.append)
    trace = tracer.start(None, None)
    if noted:
        trace.spans.append(SpanNote("n", SpanKind.SERVER, trace.server_span_id, "", 1, 2, {}))
    tracer.finish(trace)
    assert len(out) == exported


def test_notes_become_spans() -> None:
    tracer = Tracer(sample_ratio=1.0, random_bytes=counting())
    trace = tracer.start(f"00-{TRACE}-{SPAN}-01".encode(), None)
    child = trace.new_span_id()
    server = trace.server_span_id
    trace.spans += [
        SpanNote("server", SpanKind.SERVER, server, SPAN, 1.0, 2.5, {"a": 1}),
        SpanNote("client", SpanKind.CLIENT, child, server, 1.5, 2.0, {}, error="Broken"),
    ]
    first, second = build_spans(trace, Resource({}), InstrumentationScope("t"))
    assert format(first.context.trace_id, "032x") == TRACE
    assert first.parent is not None
    assert first.parent.is_remote
    assert (first.start_time, first.end_time) == (1_000_000_000, 2_500_000_000)
    assert first.attributes == {"a": 1}
    assert second.parent is not None
    assert second.parent.span_id == first.context.span_id
    assert not second.parent.is_remote
    assert second.status.status_code is StatusCode.ERROR
    assert trace.traceparent(child) == f"00-{TRACE}-{child}-01"
