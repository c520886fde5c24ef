"""How a lost stream's rest is asked for, and what is read of what was sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trierarch.core.quantities import Money, TokenCounts
from trierarch.gateway.continuation import (
    FOLD_BYTES,
    Continuation,
    SentText,
    is_one_text,
    plan_continuation,
)
from trierarch.gateway.endpoints.chat import continue_chat, read_chat_request
from trierarch.gateway.endpoints.completions import continue_completion, read_completion_request
from trierarch.gateway.metering import StreamMeter

MESSAGES = [{"role": "user", "content": "hi"}]


def event(text: str, *, finish: str | None = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text, **delta}, "finish_reason": finish}
    return b"data: " + json.dumps({"created": 5, "choices": [choice]}).encode() + b"\n\n"


def sent_text(*events: bytes) -> SentText:
    sent = SentText()
    for piece in events:
        sent.add(piece)
    return sent


class TestSentText:
    @given(st.lists(st.text(max_size=40), max_size=60), st.integers(1, 5))
    def test_is_what_the_events_said(self, texts: list[str], together: int) -> None:
        events = [event(text) for text in texts]
        pieces = [b"".join(events[i : i + together]) for i in range(0, len(events), together)]
        assert sent_text(*pieces).text() == "".join(texts)

    def test_is_kept_short(self) -> None:
        sent = SentText()
        for _ in range(5_000):
            sent.add(event("word "))
            assert sent._kept_bytes < FOLD_BYTES
        assert sent.text() == "word " * 5_000

    @pytest.mark.parametrize(
        "last",
        [
            event("", reasoning="because"),
            event("", tool_calls=[{"index": 0}]),
            event("end", finish="stop"),
            b'data: {"choices":[{"delta":{"content":"a"},"logprobs":{"content":[1]}}]}\n\n',
            b"data: {not json\n\n",
        ],
        ids=["reasoning", "tool", "end", "logprobs", "broken"],
    )
    def test_is_unknown_where_there_was_more_than_text(self, last: bytes) -> None:
        assert sent_text(event("one"), last, event("two")).text() is None

    def test_comments_and_usage_are_no_text(self) -> None:
        usage = b'data: {"choices":[],"usage":{}}\n\n'
        assert sent_text(b": ping\n\n", event("one"), usage).text() == "one"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, True),
        ({"tools": []}, True),
        ({"tools": [{}]}, False),
        ({"response_format": {"type": "text"}}, True),
        ({"response_format": {"type": "json_schema"}}, False),
        ({"response_format": "text"}, False),
        ({"logprobs": False, "echo": False}, True),
        ({"logprobs": 0, "top_logprobs": 3}, False),
        ({"add_generation_prompt": False}, False),
        ({"structured_outputs": {"regex": "a"}}, False),
    ],
)
def test_only_an_answer_that_is_one_text_can_go_on(more: dict[str, Any], expected: bool) -> None:
    assert is_one_text(more) is expected
    for choices in (1, 2):
        body = {"model": "m", "messages": MESSAGES, "stream": True, "n": choices, **more}
        call = read_chat_request(json.dumps(body).encode(), default_max_tokens=None)
        assert call.can_go_on is (expected and choices == 1)


class TestRequests:
    def test_of_a_chat(self) -> None:
        body = json.dumps({"model": "m", "messages": MESSAGES, "stream": True, "max_tokens": 9})
        call = read_chat_request(body.encode(), default_max_tokens=None)
        assert call.can_go_on
        rest = continue_chat(call.upstream_body, text="one two", output_tokens=2)
        assert rest is not None
        asked = json.loads(rest)
        assert asked["messages"] == [*MESSAGES, {"role": "assistant", "content": "one two"}]
        assert asked["max_tokens"] == 7
        assert asked["stream_options"]["continuous_usage_stats"]
        assert continue_chat(call.upstream_body, text="x", output_tokens=9) is None

    def test_of_a_chat_that_had_no_text_yet_is_the_first_one_again(self) -> None:
        body = json.dumps({"model": "m", "messages": MESSAGES, "stream": True, "min_tokens": 3})
        call = read_chat_request(body.encode(), default_max_tokens=None)
        rest = continue_chat(call.upstream_body, text="", output_tokens=0)
        assert rest is not None
        assert json.loads(rest) == json.loads(call.upstream_body)

    def test_of_a_completion(self) -> None:
        body = json.dumps({"model": "m", "prompt": "hello", "stream": True, "min_tokens": 3})
        call = read_completion_request(body.encode(), default_max_tokens=None)
        rest = continue_completion(call.upstream_body, text=" world", output_tokens=4)
        assert rest is not None
        asked = json.loads(rest)
        assert (asked["prompt"], asked["max_tokens"], asked["min_tokens"]) == ("hello world", 12, 0)

    @pytest.mark.parametrize("prompt", [[1, 2, 3], ["a"], ["a", "b"]])
    def test_of_a_completion_whose_prompt_is_no_text(self, prompt: list[Any]) -> None:
        body = json.dumps({"model": "m", "prompt": prompt, "stream": True})
        assert not read_completion_request(body.encode(), default_max_tokens=None).can_go_on

    @pytest.mark.parametrize("prompt_kind", ["plain", "counted"])
    def test_that_are_no_streams_or_count_in_every_event(self, prompt_kind: str) -> None:
        body: dict[str, Any] = {"model": "m", "messages": MESSAGES}
        if prompt_kind == "counted":
            options = {"include_usage": True, "continuous_usage_stats": True}
            body |= {"stream": True, "stream_options": options}
        call = read_chat_request(json.dumps(body).encode(), default_max_tokens=None)
        assert not call.can_go_on


class TestPlan:
    def test_needs_text_and_counts(self) -> None:
        tokens = TokenCounts(3, 0, 1)
        body = json.dumps({"messages": MESSAGES, "max_tokens": 4}).encode()
        assert plan_continuation(continue_chat, body, sent_text(event("a")), None) is None
        ended = sent_text(event("a", finish="length"))
        assert plan_continuation(continue_chat, body, ended, tokens) is None
        planned = plan_continuation(continue_chat, body, sent_text(event("a")), tokens)
        assert planned is not None
        assert planned.before == tokens


class TestAdapt:
    def test_drops_the_second_begin_and_keeps_the_first_time(self) -> None:
        rest = Continuation(b"", TokenCounts(), b'"created":5')
        role = b'data: {"created":7,"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
        assert rest.adapt(role) == b""
        assert rest.adapt(b'data: {"created":7}\n\n') == b'data: {"created":5}\n\n'

    def test_keeps_a_first_event_with_text(self) -> None:
        rest = Continuation(b"", TokenCounts(), b"")
        first = event(" two", role="assistant")
        assert rest.adapt(first) == first


def test_counts_of_both_parts_are_joined() -> None:
    meter = StreamMeter(
        lambda _tokens: Money.of("0.5"),
        wants_usage=True,
        wants_continuous_usage=False,
        before=TokenCounts(10, 0, 4),
    )
    assert meter.tokens_so_far() == TokenCounts(10, 0, 4)
    usage = '"usage":{"prompt_tokens":14,"total_tokens":16,"completion_tokens":2}'
    meter.feed(f'data: {{"choices":[{{"index":0}}],{usage}}}\n\n'.encode())
    assert meter.tokens_so_far() == TokenCounts(10, 0, 6)
    final = usage.replace("}", ',"prompt_tokens_details":{"cached_tokens":13}}')
    told = meter.feed(f'data: {{"choices":[],{final}}}\n\n'.encode())
    assert meter.final_tokens == TokenCounts(10, 10, 6)
    shown = json.loads(told.removeprefix(b"data: "))["usage"]
    assert (shown["prompt_tokens"], shown["completion_tokens"], shown["total_tokens"]) == (
        10,
        6,
        16,
    )
    assert shown["cost"] == {"amount": "0.5", "currency": "USD"}
