import json

import pytest

from trierarch_loadtests.exchange import Exchange
from trierarch_loadtests.openai_stream import (
    DETAIL_CHARACTERS,
    Outcome,
    Usage,
    read_answer,
    split_events,
)


def streamed(*reads, status=200, failure=None):
    """An exchange whose body came in the given reads, one each second from second 1."""
    body, arrivals = b"", []
    for index, read in enumerate(reads):
        body += read
        arrivals.append((index + 1.0, len(body)))
    return Exchange(
        started_seconds=0.0, status=status, body=body, arrivals=arrivals, failure=failure,
        ended_seconds=len(reads) + 1.0,
    )  # fmt: skip


def event(**members):
    return b"data: " + json.dumps(members).encode() + b"\n\n"


def delta(**members):
    return event(choices=[{"index": 0, "delta": members}])


DONE = b"data: [DONE]\n\n"
USAGE = event(choices=[], usage={"prompt_tokens": 9, "completion_tokens": 3})


def test_an_event_arrives_with_the_read_that_completes_it():
    halves = delta(content="a")
    done = streamed(halves[:10], halves[10:-1], halves[-1:] + delta(content="b"), DONE)
    assert [one.seconds for one in split_events(done)] == [3.0, 3.0, 4.0]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_any_line_end_comments_and_split_data_are_read(newline):
    lines = [
        b": ping",
        b"",
        b"event: x",
        b'data: {"a":',
        b"data: 1}",
        b"id: 7",
        b"",
        b"data:[DONE]",
        b"",
    ]
    done = streamed(newline.join(lines) + newline)
    assert [one.data for one in split_events(done)] == [b'{"a":\n1}', b"[DONE]"]


def test_a_half_event_at_the_end_is_left_out():
    assert [one.data for one in split_events(streamed(b"data: 1\n\ndata: 2"))] == [b"1"]


def test_the_role_is_not_a_token_and_neither_is_an_empty_piece():
    done = streamed(
        delta(role="assistant", content=""), delta(content=""), delta(content="a"),
        delta(content="b"), USAGE, DONE,
    )  # fmt: skip
    answer = read_answer(done, stream=True)
    assert answer.outcome is Outcome.COMPLETE
    assert answer.content_seconds == (3.0, 4.0)
    assert answer.gaps_seconds == [1.0]


@pytest.mark.parametrize("member", ["content", "reasoning_content", "reasoning", "tool_calls"])
def test_reasoning_and_tool_calls_are_tokens_too(member):
    answer = read_answer(streamed(delta(**{member: "x"}), USAGE, DONE), stream=True)
    assert answer.content_seconds == (1.0,)


def test_time_per_token_counts_tokens_by_usage_and_not_by_events():
    usage = event(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 9})
    answer = read_answer(
        streamed(delta(content="many words"), delta(content="more"), usage, DONE), stream=True
    )
    assert answer.tpot_seconds == pytest.approx(1.0 / 8)


@pytest.mark.parametrize(
    "reads",
    [
        pytest.param([delta(content="a"), DONE], id="no-usage"),
        pytest.param(
            [event(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 1}), DONE],
            id="nothing-to-time",
        ),
    ],
)
def test_time_per_token_is_unknown_rather_than_zero(reads):
    assert read_answer(streamed(*reads), stream=True).tpot_seconds is None


def test_cached_tokens_are_none_cached_if_left_out_and_read_if_there():
    assert read_answer(streamed(USAGE, DONE), stream=True).usage == Usage(9, 0, 3)
    with_details = event(
        choices=[],
        usage={
            "prompt_tokens": 9,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 8},
        },
    )
    assert read_answer(streamed(with_details, DONE), stream=True).usage == Usage(9, 8, 3)


@pytest.mark.parametrize(
    ("reads", "detail"),
    [
        pytest.param([], "without [DONE]", id="no-event-at-all"),
        pytest.param([delta(content="a")], "without [DONE]", id="breaks-off"),
        pytest.param([event(error={"message": "died"}), DONE], "died", id="error-then-done"),
        pytest.param([b"data: {oops\n\n", DONE], "not JSON", id="not-json"),
        pytest.param([b"data: [1]\n\n", DONE], "not a JSON object", id="not-an-object"),
    ],
)
def test_a_stream_that_began_and_did_not_end_well_is_lost(reads, detail):
    answer = read_answer(streamed(*reads, failure="IncompleteRead"), stream=True)
    assert answer.outcome is Outcome.LOST_STREAM
    assert detail in (answer.detail or "")


def test_a_break_after_done_is_no_loss():
    answer = read_answer(streamed(USAGE, DONE, failure="ConnectionResetError"), stream=True)
    assert answer.outcome is Outcome.COMPLETE


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (301, Outcome.CLIENT_ERROR),
        (401, Outcome.CLIENT_ERROR),
        (404, Outcome.CLIENT_ERROR),
        (429, Outcome.RATE_LIMITED),
        (500, Outcome.SERVER_ERROR),
        (503, Outcome.SERVER_ERROR),
        (204, Outcome.SERVER_ERROR),
        (None, Outcome.FAILED_BEFORE_FIRST_BYTE),
    ],
)
def test_each_status_has_its_outcome(status, outcome):
    assert read_answer(streamed(status=status), stream=True).outcome is outcome


def test_an_error_is_described_by_its_code_and_kept_short():
    body = json.dumps({"error": {"code": "queue_full", "message": "x\n" * 900}}).encode()
    detail = read_answer(streamed(body, status=503), stream=True).detail or ""
    assert detail.startswith("status 503: queue_full: x x")
    assert len(detail) <= DETAIL_CHARACTERS


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'{"error": "text"}', b""])
def test_an_error_of_any_shape_is_described(body):
    assert read_answer(streamed(body, status=500), stream=True).outcome is Outcome.SERVER_ERROR
    assert read_answer(streamed(body, status=200), stream=False) is not None


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": "none"},
        {"choices": [None]},
        {"choices": [{"delta": 3}]},
        {"usage": {"prompt_tokens": "many"}},
        {"usage": {"prompt_tokens": 1, "prompt_tokens_details": [1]}},
    ],
)
def test_odd_chunks_neither_crash_nor_count(chunk):
    answer = read_answer(streamed(event(**chunk), DONE), stream=True)
    assert (answer.outcome, answer.content_seconds, answer.usage) == (Outcome.COMPLETE, (), None)
