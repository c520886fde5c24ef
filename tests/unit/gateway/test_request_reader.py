"""What the gateway accepts as an HTTP request, and where it thinks a request ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trierarch.gateway.wire.message import HttpRequest, HttpResponse, WireLimits
from trierarch.gateway.wire.request_reader import ReadingState, RequestReader

LIMITS = WireLimits(max_header_bytes=2048, max_headers=20, max_body_bytes=1000, drain_body_bytes=64)


class Checker:
    """Refuses paths that begin with /no on their headers."""

    def check_head(self, request: HttpRequest) -> HttpResponse | None:
        return HttpResponse(404, b"no") if request.path.startswith("/no") else None

    def refuse(
        self, status: int, code: str, message: str, request: HttpRequest | None = None
    ) -> HttpResponse:
        return HttpResponse(status, f"{code}: {message}".encode())


def reader() -> RequestReader:
    return RequestReader(Checker(), LIMITS, "peer")


def read(data: bytes, step: int | None = None) -> RequestReader:
    one = reader()
    for start in range(0, len(data), step or len(data)):
        one.feed(data[start : start + (step or len(data))])
    return one


def post(
    headers: bytes, body: bytes = b"", target: bytes = b"/a", version: bytes = b"1.1"
) -> bytes:
    return b"POST " + target + b" HTTP/" + version + b"\r\n" + headers + b"\r\n" + body


HOST = b"Host: h\r\n"
CHUNKED = HOST + b"Transfer-Encoding: chunked\r\n"

SMUGGLING = {
    "length-and-chunked": post(CHUNKED + b"Content-Length: 3\r\n", b"0\r\n\r\n"),
    "chunked-and-length": post(
        HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"
    ),
    "two-equal-lengths": post(HOST + b"Content-Length: 3\r\n" * 2, b"abc"),
    "two-lengths": post(HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n", b"abcd"),
    "list-of-lengths": post(HOST + b"Content-Length: 3, 3\r\n", b"abc"),
    "signed-length": post(HOST + b"Content-Length: +3\r\n", b"abc"),
    "negative-length": post(HOST + b"Content-Length: -3\r\n", b"abc"),
    "hex-length": post(HOST + b"Content-Length: 0x3\r\n", b"abc"),
    "huge-length": post(HOST + b"Content-Length: " + b"9" * 30 + b"\r\n", b"abc"),
    "identity": post(HOST + b"Transfer-Encoding: identity\r\n"),
    "unknown-coding": post(HOST + b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "chunked-not-last": post(HOST + b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
    "second-coding": post(HOST + b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "chunked-twice": post(CHUNKED + b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "chunked-in-1.0": post(CHUNKED, b"0\r\n\r\n", version=b"1.0"),
    "space-before-colon": post(b"Host : h\r\n"),
    "folded-header": post(HOST + b"X: a\r\n b\r\n"),
    "bare-line-feeds": b"POST /a HTTP/1.1\nHost: h\nContent-Length: 0\n\n",
    "bare-carriage-return": post(b"Host: h\rX: y\r\n"),
    "nul-in-header": post(HOST + b"X: a\0b\r\n"),
    "chunk-size-with-line-feed": post(CHUNKED, b"3\nabc\r\n0\r\n\r\n"),
    "chunk-size-in-0x": post(CHUNKED, b"0x3\r\nabc\r\n0\r\n\r\n"),
    "chunk-without-end": post(CHUNKED, b"3\r\nabc0\r\n\r\n"),
    "chunk-extension-with-line-feed": post(CHUNKED, b"3;x\nabc\r\n0\r\n\r\n"),
    "two-hosts": post(b"Host: a\r\nHost: b\r\n"),
    "no-host": post(b""),
    "two-keys": post(HOST + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"),
    "two-plain-keys": post(HOST + b"x-api-key: a\r\nX-Api-Key: b\r\n"),
    "absolute-target": post(HOST, target=b"http://other/v1/models"),
    "connect": b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
    "http-0.9": b"GET /\r\n\r\n",
    "http-9": post(HOST, version=b"9.9"),
    "http-2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls-hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "unknown-method": b"FOO /a HTTP/1.1\r\nHost: h\r\n\r\n",
    "raw-utf-8-target": "GET /ä HTTP/1.1\r\nHost: h\r\n\r\n".encode(),
    "header-without-colon": post(HOST + b"nonsense\r\n"),
    "empty-header-name": post(HOST + b": x\r\n"),
}


@pytest.mark.parametrize("step", [None, 1], ids=["at-once", "byte-by-byte"])
@pytest.mark.parametrize("name", SMUGGLING)
def test_what_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(
    name: str, step: int | None
) -> None:
    hidden = b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"
    one = read(SMUGGLING[name] + hidden, step)
    assert one.take() is None
    assert one.refusal is not None
    assert one.refusal.status == 400
    assert one.state is ReadingState.STOPPED


def test_trailers_do_not_become_headers() -> None:
    one = read(post(CHUNKED, b"3\r\nabc\r\n0\r\nAuthorization: Bearer stolen\r\n\r\n"))
    request = one.take()
    assert request is not None
    assert request.body == b"abc"
    assert b"authorization" not in request.headers


@pytest.mark.parametrize("step", [None, 1, 7])
def test_pipelined_requests_keep_their_bodies_apart(step: int | None) -> None:
    first = post(HOST + b"Content-Length: 5\r\n", b"first", b"/1?q=2")
    second = post(CHUNKED, b"3\r\nsec\r\n3;ext=1\r\nond\r\n0\r\n\r\n", b"/2")
    third = b"\r\nGET /3 HTTP/1.0\r\n\r\n"
    one = read(first + second + third, step)
    requests = [one.take() for _ in range(3)]
    assert [r and (r.method, r.path, bytes(r.body), r.keep_alive) for r in requests] == [
        ("POST", "/1", b"first", True),
        ("POST", "/2", b"second", True),
        ("GET", "/3", b"", False),
    ]
    assert one.take() is None
    assert one.refusal is None


def test_connection_close_is_the_last_request() -> None:
    one = read(b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /b HTTP/1.1\r\n")
    request = one.take()
    assert request is not None
    assert not request.keep_alive
    assert one.take() is None


@pytest.mark.parametrize("step", [None, 1])
@pytest.mark.parametrize("framing", [b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_an_offered_upgrade_is_declined_without_losing_the_body(
    framing: bytes, step: int | None
) -> None:
    offer = HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" + framing
    body = b"abc" if b"Length" in framing else b"3\r\nabc\r\n0\r\n\r\n"
    one = read(post(offer, body) + b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n", step)
    request = one.take()
    assert request is not None
    assert request.body == b"abc"
    following = one.take()
    assert following is not None
    assert following.path == "/next"


def test_an_offered_upgrade_without_a_body_is_an_ordinary_request() -> None:
    offer = b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    one = read(offer + b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n")
    assert [r and r.path for r in (one.take(), one.take())] == ["/a", "/b"]


class TestLimits:
    def test_a_body_as_large_as_the_limit_is_taken(self) -> None:
        request = read(post(HOST + b"Content-Length: 1000\r\n", b"x" * 1000)).take()
        assert request is not None
        assert request.early_response is None
        assert len(request.body) == 1000

    def test_a_declared_length_over_the_limit_is_refused_before_the_body(self) -> None:
        one = read(post(HOST + b"Content-Length: 1001\r\n"))
        request = one.take()
        assert request is not None
        assert request.early_response is not None
        assert request.early_response.status == 413
        assert not request.keep_alive

    def test_chunks_over_the_limit_are_refused_and_not_kept(self) -> None:
        one = read(post(CHUNKED, b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\nx\r\n"))
        request = one.take()
        assert request is not None
        assert request.early_response is not None
        assert request.early_response.status == 413
        assert len(request.body) <= 1000
        one.feed(b"1\r\ny\r\n" * 1000)
        assert one.take() is None

    def test_a_long_header_is_refused_while_it_arrives(self) -> None:
        one = reader()
        one.feed(b"GET /a HTTP/1.1\r\nHost: h\r\nX: ")
        for _ in range(30):
            one.feed(b"y" * 100)
        assert one.refusal is not None
        assert one.refusal.status == 431

    def test_a_long_header_that_arrives_at_once_is_refused(self) -> None:
        one = read(post(HOST + b"X: " + b"y" * 3000 + b"\r\n"))
        assert one.refusal is not None
        assert one.refusal.status == 431

    def test_too_many_headers_are_refused(self) -> None:
        one = read(post(HOST + b"".join(b"X-%d: 1\r\n" % n for n in range(30))))
        assert one.refusal is not None
        assert one.refusal.status == 431

    def test_header_limit_counts_each_request_for_itself(self) -> None:
        one = reader()
        for _ in range(20):
            one.feed(post(HOST + b"X: " + b"y" * 1000 + b"\r\nContent-Length: 500\r\n", b"z" * 500))
            request = one.take()
            assert request is not None
            assert request.early_response is None
        assert one.refusal is None

    def test_pipelined_bodies_are_bounded_together(self) -> None:
        one = reader()
        for _ in range(3):
            one.feed(post(HOST + b"Content-Length: 900\r\n", b"x" * 900))
        assert one.refusal is not None
        assert one.refusal.status == 413
        assert [one.take() is not None for _ in range(3)] == [True, True, False]


class TestRefusedOnTheHeaders:
    def test_a_small_body_is_read_past_and_the_connection_kept(self) -> None:
        one = read(
            post(HOST + b"Content-Length: 3\r\n", b"abc", b"/no")
            + b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n"
        )
        refused, following = one.take(), one.take()
        assert refused is not None
        assert refused.early_response is not None
        assert refused.keep_alive
        assert refused.body == b""
        assert following is not None
        assert following.path == "/next"

    @pytest.mark.parametrize(
        "headers",
        [
            pytest.param(HOST + b"Content-Length: 65\r\n", id="large-body"),
            pytest.param(CHUNKED, id="body-of-unknown-size"),
            pytest.param(
                HOST + b"Content-Length: 3\r\nExpect: 100-continue\r\n", id="body-that-may-not-come"
            ),
        ],
    )
    def test_the_answer_does_not_wait_for_a_body_that_is_not_wanted(self, headers: bytes) -> None:
        one = read(post(headers, target=b"/no"))
        request = one.take()
        assert request is not None
        assert not request.keep_alive
        assert one.state is ReadingState.STOPPED


class TestExpect:
    def test_the_wish_is_passed_on_until_the_body_comes(self) -> None:
        one = read(post(HOST + b"Content-Length: 3\r\nExpect: 100-Continue\r\n"))
        assert one.wants_continue
        assert one.take() is None
        one.feed(b"abc")
        request = one.take()
        assert request is not None
        assert request.body == b"abc"
        assert not one.wants_continue

    def test_there_is_nothing_to_continue_without_a_body(self) -> None:
        one = read(post(HOST + b"Expect: 100-continue\r\n"))
        assert not one.wants_continue
        assert one.take() is not None

    def test_other_expectations_fail(self) -> None:
        request = read(post(HOST + b"Content-Length: 3\r\nExpect: miracles\r\n")).take()
        assert request is not None
        assert request.early_response is not None
        assert request.early_response.status == 417


def test_repeated_other_headers_are_joined() -> None:
    request = read(post(HOST + b"X: a\r\nX: b\r\n")).take()
    assert request is not None
    assert request.headers[b"x"] == b"a, b"


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    one = reader()
    one.feed(data)
    one.feed(data)
    while one.take() is not None:
        pass


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(1, 50))
def test_where_the_bytes_are_cut_changes_nothing(kinds: list[int], step: int) -> None:
    samples = [
        post(HOST + b"Content-Length: 4\r\n", b"body"),
        post(CHUNKED, b"4\r\nbody\r\n0\r\n\r\n"),
        b"GET /no HTTP/1.1\r\nHost: h\r\n\r\n",
        post(HOST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 4\r\n", b"body"),
    ]
    data = b"".join(samples[kind] for kind in kinds)

    def outcome(one: RequestReader) -> list[tuple[str, bytes, bool]]:
        taken = iter(one.take, None)
        return [(r.path, bytes(r.body), r.early_response is not None) for r in taken if r]

    assert outcome(read(data)) == outcome(read(data, step))
    assert len(outcome(read(data))) == len(kinds)
