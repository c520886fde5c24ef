"""The client against a server with known send times: real sockets, no locust."""

import json
import time

import pytest

from trierarch_loadtests.clock import monotonic_seconds
from trierarch_loadtests.exchange import exchange, parse_endpoint
from trierarch_loadtests.openai_stream import Outcome, Usage, read_answer

TOKENS = 30


def ask(server, *, stream=True, path="/chat/completions", silence_seconds=10.0, tokens=TOKENS):
    body = {"model": "pocket", "max_tokens": tokens, "stream": stream}
    endpoint = parse_endpoint(server.base_url, server.api_key)
    done = exchange(
        endpoint,
        "POST",
        endpoint.target(path),
        json.dumps(body).encode(),
        connect_seconds=5.0,
        silence_seconds=silence_seconds,
        now=monotonic_seconds,
    )
    return done, read_answer(done, stream=stream)


def test_every_token_is_seen_when_it_was_sent_and_not_in_blocks(serve):
    server = serve(token_seconds=0.04)
    _, answer = ask(server)
    sent = server.served[0].content_sent_seconds

    assert len(answer.content_seconds) == TOKENS
    # Both clocks are the machine's monotonic clock: nothing is seen before it was sent ...
    assert all(seen >= out for seen, out in zip(answer.content_seconds, sent, strict=True))
    # ... and a reader that waits for 1,024 bytes sees five events of this size at a time:
    # four of five gaps would be nothing.
    together = sum(gap < 0.002 for gap in answer.gaps_seconds)
    assert together <= TOKENS // 3
    # It would also see each event only when the fourth after it had been sent.
    before_the_third_next = sum(
        seen < later for seen, later in zip(answer.content_seconds, sent[3:], strict=False)
    )
    assert before_the_third_next >= 2 * (TOKENS - 3) // 3


def test_events_are_large_enough_for_the_block_test_to_mean_something(serve):
    server = serve(token_seconds=0.0)
    done, _ = ask(server)
    assert 1024 / 6 < len(done.body) / TOKENS < 1024 / 4


def test_the_first_token_is_the_first_content_and_not_the_role(serve):
    server = serve(first_token_seconds=0.3)
    done, answer = ask(server, tokens=2)
    assert done.arrivals[0][0] < server.served[0].content_sent_seconds[0]
    assert answer.content_seconds[0] >= server.served[0].content_sent_seconds[0]


def test_a_complete_stream_brings_the_servers_own_counts(serve):
    done, answer = ask(serve(token_seconds=0.0))
    assert answer.outcome is Outcome.COMPLETE
    assert answer.usage == Usage(input_tokens=20, cached_tokens=4, output_tokens=TOKENS)
    assert answer.fingerprint == "paced-1"
    assert done.headers["x-trierarch-model-variant"] == "cpu"


def test_a_text_completion_streams_too(serve):
    _, answer = ask(serve(token_seconds=0.0), path="/completions")
    assert (answer.outcome, len(answer.content_seconds)) == (Outcome.COMPLETE, TOKENS)


def test_an_answer_that_is_not_streamed_has_usage_and_no_first_token(serve):
    _, answer = ask(serve(token_seconds=0.001), stream=False)
    assert answer.outcome is Outcome.COMPLETE
    assert answer.content_seconds == ()
    assert answer.usage is not None


@pytest.mark.parametrize(
    ("behaviour", "outcome", "detail"),
    [
        pytest.param("break", Outcome.LOST_STREAM, "without [DONE]", id="connection-breaks"),
        pytest.param("no_done", Outcome.LOST_STREAM, "without [DONE]", id="ends-too-early"),
        pytest.param("error_event", Outcome.LOST_STREAM, "engine died", id="error-event"),
        pytest.param("drop", Outcome.FAILED_BEFORE_FIRST_BYTE, "Remote", id="closed-unanswered"),
        pytest.param("silent", Outcome.FAILED_BEFORE_FIRST_BYTE, "timeout", id="silence"),
        pytest.param("400", Outcome.CLIENT_ERROR, "context_length_exceeded", id="client-error"),
        pytest.param("429", Outcome.RATE_LIMITED, "rate_limit_exceeded", id="rate-limited"),
        pytest.param("500", Outcome.SERVER_ERROR, "server_error", id="server-error"),
    ],
)
def test_each_way_to_fail_is_told_apart(serve, behaviour, outcome, detail):
    _, answer = ask(serve(behaviours=[behaviour], token_seconds=0.0), silence_seconds=0.5)
    assert answer.outcome is outcome
    assert detail in (answer.detail or "")


def test_nobody_listening_is_a_failure_before_the_first_byte(serve):
    server = serve()
    port = server.port
    server.port = 1  # a port that only root can listen on
    done, answer = ask(server)
    server.port = port
    assert answer.outcome is Outcome.FAILED_BEFORE_FIRST_BYTE
    assert done.connected_seconds is None


def test_a_wrong_key_is_a_client_error(serve):
    server = serve()
    right, server.api_key = server.api_key, "sk-other"
    endpoint = parse_endpoint(server.base_url, right)
    done = exchange(
        endpoint, "GET", "/v1/models", None,
        connect_seconds=5.0, silence_seconds=5.0, now=time.perf_counter,
    )  # fmt: skip
    assert read_answer(done, stream=False).outcome is Outcome.CLIENT_ERROR
