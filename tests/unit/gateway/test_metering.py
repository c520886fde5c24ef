"""What a stream used, and what of it the client sees."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trierarch.core.quantities import Money, TokenCounts
from trierarch.gateway.errors import GatewayError
from trierarch.gateway.metering import StreamMeter, price_answer, read_token_counts


def price(tokens: TokenCounts) -> Money:
    return Money(Decimal(tokens.total_tokens) / 1_000_000)


def event(value: dict[str, Any]) -> bytes:
    return (
        b"data: " + json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"
    )


def usage(prompt: int, output: int, **more: Any) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + output,
        "completion_tokens": output,
        **more,
    }


def chunk(content: str, prompt: int, output: int, index: int = 0) -> bytes:
    choice = {"index": index, "delta": {"content": content}, "finish_reason": None}
    return event({"id": "c", "model": "m", "choices": [choice], "usage": usage(prompt, output)})


def without_usage(content: str, index: int = 0) -> bytes:
    choice = {"index": index, "delta": {"content": content}, "finish_reason": None}
    return event({"id": "c", "model": "m", "choices": [choice]})


FINAL_USAGE = usage(5, 2, prompt_tokens_details={"cached_tokens": 4})
FINAL = event({"id": "c", "model": "m", "choices": [], "usage": FINAL_USAGE})
DONE = b"data: [DONE]\n\n"


def meter(**options: Any) -> StreamMeter:
    return StreamMeter(price, **{"wants_usage": False, "wants_continuous_usage": False, **options})


STREAM = chunk("a", 5, 1) + chunk("b", 5, 2) + FINAL + DONE


def test_usage_that_the_client_did_not_ask_for_is_cut_out() -> None:
    one = meter()
    assert one.feed(STREAM) == without_usage("a") + without_usage("b") + DONE
    assert one.is_done
    assert one.final_tokens == TokenCounts(5, 4, 2)


def test_the_final_usage_event_carries_the_cost() -> None:
    out = meter(wants_usage=True).feed(STREAM)
    events = out.split(b"\n\n")
    assert events[0] + b"\n\n" == without_usage("a")
    final = orjson.loads(events[2].removeprefix(b"data: "))
    assert final["usage"] == {**FINAL_USAGE, "cost": {"amount": "0.000007", "currency": "USD"}}
    assert events[3] == b"data: [DONE]"


def test_continuous_usage_stays_for_those_who_asked() -> None:
    out = meter(wants_usage=True, wants_continuous_usage=True).feed(STREAM)
    assert out.startswith(chunk("a", 5, 1) + chunk("b", 5, 2))


TRICKY = [
    ',"usage":{"prompt_tokens":1}',
    'data: {"error": {"message": "no"}}',
    '"choices":[]',
    "data: [DONE]",
    "\n\ndata: [DONE]\n\n",
    "}\n\n",
    "ünï",
    "",
]


@pytest.mark.parametrize("content", TRICKY, ids=repr)
@pytest.mark.parametrize("wants_usage", [False, True])
def test_text_that_looks_like_the_protocol_passes_unchanged(
    content: str, wants_usage: bool
) -> None:
    one = meter(wants_usage=wants_usage)
    assert one.feed(chunk(content, 5, 1)) == without_usage(content)
    assert not one.is_done
    assert one.error is None
    assert one.tokens_so_far() == TokenCounts(5, 0, 1)


def test_nested_usage_details_are_cut_out_whole() -> None:
    detailed = event(
        {
            "choices": [{"index": 0, "delta": {"content": "a"}}],
            "usage": usage(5, 1, completion_tokens_details={"reasoning_tokens": 1}),
            "system_fingerprint": "f",
        }
    )
    expected = event(
        {"choices": [{"index": 0, "delta": {"content": "a"}}], "system_fingerprint": "f"}
    )
    one = meter()
    assert one.feed(detailed) == expected
    assert one.tokens_so_far() == TokenCounts(5, 0, 1, 1)


def test_a_broken_off_stream_counts_what_arrived() -> None:
    one = meter()
    one.feed(chunk("a", 5, 1) + chunk("b", 5, 2) + chunk("c", 5, 3)[:40])
    assert one.tokens_so_far() == TokenCounts(5, 0, 2)


def test_a_stream_that_never_spoke_has_no_counts() -> None:
    assert meter().tokens_so_far() is None


def test_several_choices_are_added_up_when_a_stream_breaks_off() -> None:
    one = meter(prompt_count=2, choice_count=2)
    for block in (
        chunk("a", 5, 1, 0) + chunk("b", 5, 1, 1),
        chunk("c", 7, 1, 2),
        chunk("d", 5, 4, 0),
    ):
        one.feed(block)
    assert one.tokens_so_far() == TokenCounts(12, 0, 6)


def test_an_error_event_ends_the_stream_and_hides_what_follows() -> None:
    one = meter()
    error = {"message": "boom", "type": "InternalServerError", "param": None, "code": 500}
    out = one.feed(chunk("a", 5, 1) + event({"error": error}) + DONE)
    assert out == without_usage("a")
    assert not one.is_done
    assert one.error is not None
    assert one.error.code == "upstream_error"


@pytest.mark.parametrize(
    "body", [b'data: {"error": 1}\n\n', b'data: {"error"\n\n', b'data: {"error": {"code": 12}}\n\n']
)
def test_a_strange_error_event_is_an_engine_failure(body: bytes) -> None:
    one = meter()
    one.feed(body)
    assert one.error is not None
    assert one.error.status == 502


def test_comments_pass() -> None:
    assert meter().feed(b": keep-alive\n\n") == b": keep-alive\n\n"


@pytest.mark.parametrize("strange", [b"data: nonsense\n\n", b'data: {"choices":[]}\n\n'])
def test_what_is_not_understood_passes(strange: bytes) -> None:
    assert meter().feed(strange) == strange


def test_an_event_without_end_is_not_collected_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trierarch.gateway.metering.MAX_EVENT_BYTES", 1000)
    one = meter()
    for _ in range(20):
        one.feed(b"x" * 100)
    assert one.error is not None


contents = st.lists(st.one_of(st.text(max_size=20), st.sampled_from(TRICKY)), max_size=8)


@given(contents, st.integers(1, 60), st.booleans(), st.booleans())
def test_where_the_bytes_are_cut_changes_nothing(
    texts: list[str], step: int, wants_usage: bool, ends: bool
) -> None:
    data = b"".join(chunk(text, 5, n + 1) for n, text in enumerate(texts))
    data += FINAL + DONE if ends else b""
    whole, cut = meter(wants_usage=wants_usage), meter(wants_usage=wants_usage)
    expected = whole.feed(data)
    pieces = [cut.feed(data[at : at + step]) for at in range(0, len(data), step)]
    assert b"".join(pieces) == expected
    assert cut.is_done == whole.is_done == ends
    assert cut.tokens_so_far() == whole.tokens_so_far()
    assert all(piece == b"" or piece.endswith(b"\n\n") for piece in pieces)


@given(st.binary(max_size=200), st.integers(1, 20))
def test_no_bytes_break_the_meter(data: bytes, step: int) -> None:
    one = meter(wants_usage=True)
    for at in range(0, len(data), step):
        one.feed(data[at : at + step])
    one.tokens_so_far()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (usage(5, 2), TokenCounts(5, 0, 2)),
        (usage(5, 2, prompt_tokens_details=None), TokenCounts(5, 0, 2)),
        (usage(5, 2, prompt_tokens_details={"cached_tokens": None}), TokenCounts(5, 0, 2)),
        (usage(5, 2, prompt_tokens_details={"cached_tokens": 9}), TokenCounts(5, 5, 2)),
        (
            usage(5, 2, completion_tokens_details={"reasoning_tokens": 1}),
            TokenCounts(5, 0, 2, 1),
        ),
        ({"prompt_tokens": 3}, TokenCounts(3, 0, 0)),
        ({"prompt_tokens": -3}, None),
        ({"prompt_tokens": True, "completion_tokens": "2"}, None),
        ({}, None),
        (None, None),
        ([1], None),
    ],
)
def test_token_counts(value: object, expected: TokenCounts | None) -> None:
    assert read_token_counts(value) == expected


def test_a_whole_answer_gets_its_cost_and_its_tier() -> None:
    body = orjson.dumps({"id": "x", "choices": [], "service_tier": None, "usage": FINAL_USAGE})
    priced, tokens = price_answer(body, price, "flex")
    answer = orjson.loads(priced)
    assert tokens == TokenCounts(5, 4, 2)
    assert answer["usage"]["cost"] == {"amount": "0.000007", "currency": "USD"}
    assert answer["service_tier"] == "flex"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"usage": null}', b"nonsense"])
def test_an_answer_without_usage_is_an_engine_failure(body: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        price_answer(body, price, "default")
    assert caught.value.status == 502
