"""HTTP as it comes over a socket: slow, large, pipelined, malformed, hostile."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from trierarch.core.usage import Outcome
from trierarch.gateway.server import SWEEP_INTERVAL_SECONDS
from trierarch.settings.gateway import GatewaySettings
from trierarch.testing.local_gateway import TEST_KEY, LocalGateway
from trierarch.testing.replica_source import ready_replica
from trierarch.testing.scripted_engine import (
    HTTP_OK_STREAM,
    ScriptedEngine,
    chunked,
    content_event,
    whole_answer,
)
from trierarch.testing.simulated_engines import EngineProcess

KEY = b"Authorization: Bearer " + TEST_KEY.encode() + b"\r\n"
MODELS = b"GET /v1/models HTTP/1.1\r\nHost: h\r\n" + KEY + b"\r\n"
BODY = json.dumps(
    {"model": "simulated", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
).encode()
ANSWER = json.dumps({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()


def settings(**fields: object) -> GatewaySettings:
    return GatewaySettings(replica_poll_interval_seconds=0.05, **fields)  # type: ignore[arg-type]


def chat(headers: bytes = b"", body: bytes = BODY) -> bytes:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n" + KEY + headers
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


@contextlib.contextmanager
def connect(gateway: LocalGateway) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10.0) as connection:
        yield connection


def read_to_end(connection: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            data += piece
    return data


def read_response(connection: socket.socket) -> bytes:
    """Return one response that has a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(1)
        if not piece:
            return data
        data += piece
    length = 0
    for line in data.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    while (missing := length - len(data.split(b"\r\n\r\n", 1)[1])) > 0:
        data += connection.recv(missing)
    return data


@pytest.fixture(scope="module")
def quick(engine: EngineProcess) -> Iterator[LocalGateway]:
    """A gateway whose patience is half a second."""
    short = settings(
        header_timeout_seconds=0.5,
        body_timeout_seconds=0.5,
        idle_timeout_seconds=0.5,
        write_stall_timeout_seconds=1.0,
        max_body_bytes=100_000,
    )
    with LocalGateway([ready_replica(engine.port)], short) as gateway:
        yield gateway


class TestSlowClients:
    def test_who_says_nothing_is_disconnected(self, quick: LocalGateway) -> None:
        with connect(quick) as connection:
            assert read_to_end(connection) == b""

    def test_who_connects_and_asks_later_is_answered(self, engine: EngineProcess) -> None:
        # As a client does that opens two hundred connections at once, on a busy machine.
        short = settings(header_timeout_seconds=0.2)
        gateway = LocalGateway([ready_replica(engine.port)], short)
        with gateway, connect(gateway) as connection:
            time.sleep(2.5 * SWEEP_INTERVAL_SECONDS)
            connection.sendall(MODELS)
            assert read_response(connection).startswith(b"HTTP/1.1 200")

    def test_who_drips_headers_is_told_and_disconnected(self, quick: LocalGateway) -> None:
        with connect(quick) as connection:
            began = time.monotonic()
            answer = b""
            connection.settimeout(0.1)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for byte in MODELS[:-2] + b"X-Slow: " + b"y" * 100:
                    connection.send(bytes([byte]))
                    with contextlib.suppress(TimeoutError):
                        answer += connection.recv(65536)
                    if answer:
                        break
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert time.monotonic() - began < 5.0
            connection.settimeout(10.0)
            read_to_end(connection)

    def test_who_drips_a_body_is_told_and_disconnected(self, quick: LocalGateway) -> None:
        with connect(quick) as connection:
            connection.sendall(chat()[:-10])
            answer = read_to_end(connection)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close\r\n" in answer

    def test_an_idle_connection_is_closed_silently(self, quick: LocalGateway) -> None:
        with connect(quick) as connection:
            connection.sendall(MODELS)
            assert read_response(connection).startswith(b"HTTP/1.1 200 ")
            assert read_to_end(connection) == b""

    def test_a_long_answer_is_no_idle_connection(self, quick: LocalGateway) -> None:
        body = json.dumps({**json.loads(BODY), "max_tokens": 800}).encode()
        with connect(quick) as connection:
            connection.sendall(chat(body=body))
            assert read_response(connection).startswith(b"HTTP/1.1 200 ")


class TestBodies:
    def test_expect_100_continue(self, quick: LocalGateway) -> None:
        whole = chat(b"Expect: 100-continue\r\n")
        with connect(quick) as connection:
            connection.sendall(whole[: -len(BODY)])
            interim = read_response(connection)
            assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(BODY)
            assert read_response(connection).startswith(b"HTTP/1.1 200 ")

    def test_who_has_no_key_is_not_asked_for_his_body(self, quick: LocalGateway) -> None:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
        with connect(quick) as connection:
            connection.sendall(head + b"Content-Length: 50000\r\n\r\n")
            answer = read_to_end(connection)
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"100 Continue" not in answer

    def test_a_chunked_body_in_small_pieces(self, quick: LocalGateway) -> None:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
        chunks = b"".join(chunked(bytes([byte])) for byte in BODY)
        with connect(quick) as connection:
            connection.sendall(head + KEY + b"\r\n" + chunks + b"0\r\n\r\n")
            assert read_response(connection).startswith(b"HTTP/1.1 200 ")

    def test_a_refused_large_upload_still_reads_its_answer(self, quick: LocalGateway) -> None:
        with connect(quick) as connection:
            connection.sendall(chat(body=b"x" * 3_000_000))
            answer = read_to_end(connection)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"request_too_large" in answer

    def test_a_megabyte_reaches_the_engine_whole(self) -> None:
        def answer(connection: socket.socket, _request: bytes) -> None:
            connection.sendall(whole_answer(200, ANSWER))

        text = "héllo " * 200_000
        with (
            ScriptedEngine(answer) as taker,
            LocalGateway([ready_replica(taker.port)], settings()) as gateway,
        ):
            response = httpx.post(
                gateway.base_url + "/chat/completions",
                headers={"x-api-key": TEST_KEY},
                json={"model": "simulated", "messages": [{"role": "user", "content": text}]},
            )
            assert response.status_code == 200
            sent = json.loads(taker.requests[0].split(b"\r\n\r\n", 1)[1])
            assert sent["messages"][0]["content"] == text


class TestConnections:
    def test_pipelined_requests_are_answered_in_order(self, quick: LocalGateway) -> None:
        one = b"GET /v1/models/simulated HTTP/1.1\r\nHost: h\r\n" + KEY + b"\r\n"
        other = b"GET /v1/nothing HTTP/1.1\r\nHost: h\r\n" + KEY + b"\r\n"
        with connect(quick) as connection:
            connection.sendall(chat() + one + other + MODELS)
            statuses = [read_response(connection)[9:12] for _ in range(4)]
        assert statuses == [b"200", b"200", b"404", b"200"]

    def test_http_1_0_gets_a_plain_stream_and_a_close(self, quick: LocalGateway) -> None:
        body = json.dumps({**json.loads(BODY), "stream": True}).encode()
        request = chat(body=body).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        with connect(quick) as connection:
            connection.sendall(request)
            head, _, stream = read_to_end(connection).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert b"connection: close" in head
        assert stream.startswith(b"data: {")
        assert stream.endswith(b"data: [DONE]\n\n")

    def test_an_offer_of_http_2_is_answered_in_http_1(self, quick: LocalGateway) -> None:
        offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
        with connect(quick) as connection:
            connection.sendall(chat(offer))
            assert read_response(connection).startswith(b"HTTP/1.1 200 ")
            connection.sendall(MODELS)
            assert read_response(connection).startswith(b"HTTP/1.1 200 ")

    def test_head_has_no_body(self, quick: LocalGateway) -> None:
        with connect(quick) as connection:
            connection.sendall(MODELS.replace(b"GET", b"HEAD", 1) + MODELS)
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(1)
            assert head.startswith(b"HTTP/1.1 405 ")
            assert read_response(connection).startswith(b"HTTP/1.1 200 ")

    def test_small_writes_are_sent_at_once(self, quick: LocalGateway) -> None:
        assert quick.server is not None
        with connect(quick) as connection:
            connection.sendall(MODELS)
            read_response(connection)
            [open_one] = [
                c
                for c in quick.server._connections.open
                if c._transport.get_extra_info("peername") == connection.getsockname()
            ]
            accepted = open_one._transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


class TestSmuggling:
    HIDDEN = chat(b"X-Hidden: yes\r\n")

    @pytest.mark.parametrize(
        "outer",
        [
            pytest.param(
                b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                id="length-against-chunked",
            ),
            pytest.param(
                b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
                id="two-codings",
            ),
            pytest.param(b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", id="unknown-coding"),
            pytest.param(b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n", id="two-lengths"),
            pytest.param(b"Content-Length : 0\r\n\r\n", id="space-before-colon"),
            pytest.param(b"X: a\n\r\n", id="bare-line-feed"),
        ],
    )
    def test_a_hidden_request_never_reaches_an_engine(self, outer: bytes) -> None:
        def answer(connection: socket.socket, _request: bytes) -> None:
            connection.sendall(whole_answer(200, ANSWER))

        with (
            ScriptedEngine(answer) as engine,
            LocalGateway([ready_replica(engine.port)], settings()) as gateway,
            connect(gateway) as connection,
        ):
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n" + KEY
            connection.sendall(head + outer + self.HIDDEN)
            received = read_to_end(connection)
            assert received.startswith(b"HTTP/1.1 400 ")
            assert received.count(b"\r\n\r\n") == 1
            assert engine.requests == []

    def test_only_our_own_headers_reach_an_engine(self) -> None:
        def answer(connection: socket.socket, _request: bytes) -> None:
            connection.sendall(whole_answer(200, ANSWER))

        hostile = (
            b"Priority: 0\r\nX-data-parallel-rank: 3\r\nX-Forwarded-For: 1.2.3.4\r\n"
            b"Connection: keep-alive, X-Secret\r\nX-Secret: s\r\nTE: trailers\r\n"
            b"Cookie: c=1\r\nX-Request-Id: mine\r\nUser-Agent: evil\r\n"
        )
        with (
            ScriptedEngine(answer) as engine,
            LocalGateway([ready_replica(engine.port)], settings()) as gateway,
            connect(gateway) as connection,
        ):
            connection.sendall(chat(hostile))
            assert read_response(connection).startswith(b"HTTP/1.1 200 ")
            head = engine.requests[0].split(b"\r\n\r\n", 1)[0].lower().split(b"\r\n")
            names = {line.split(b":", 1)[0] for line in head[1:]}
            assert names == {
                b"host", b"content-type", b"content-length", b"x-request-id", b"traceparent",
            }  # fmt: skip
            assert TEST_KEY.encode() not in engine.requests[0]

    def test_nothing_but_content_type_is_taken_from_an_engine(self) -> None:
        def answer(connection: socket.socket, _request: bytes) -> None:
            head, _, body = whole_answer(200, ANSWER).partition(b"\r\n\r\n")
            extra = b"\r\nset-cookie: a=b\r\nkeep-alive: timeout=5\r\nserver: uvicorn\r\n\r\n"
            connection.sendall(head + extra + body)

        with (
            ScriptedEngine(answer) as engine,
            LocalGateway([ready_replica(engine.port)], settings()) as gateway,
            connect(gateway) as connection,
        ):
            connection.sendall(chat())
            received = read_response(connection).lower()
            for name in (b"set-cookie", b"keep-alive", b"server:"):
                assert name not in received


class TestBackPressure:
    EVENT = content_event("x" * 4000, 1)

    def test_an_engine_is_slowed_to_the_speed_of_its_client(self) -> None:
        sent = 0

        def flood(connection: socket.socket, _request: bytes) -> None:
            nonlocal sent
            connection.settimeout(1.0)
            connection.sendall(HTTP_OK_STREAM)
            with contextlib.suppress(TimeoutError):
                for _ in range(20_000):
                    connection.sendall(chunked(self.EVENT))
                    sent += len(self.EVENT)
            connection.settimeout(None)
            connection.sendall(chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")

        body = json.dumps({**json.loads(BODY), "stream": True}).encode()
        with (
            ScriptedEngine(flood) as engine,
            LocalGateway([ready_replica(engine.port)], settings()) as gateway,
            connect(gateway) as connection,
        ):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            connection.sendall(chat(b"Connection: close\r\n", body))
            time.sleep(2.5)
            # Kernel buffers of two connections, not eighty megabytes inside the gateway.
            assert 0 < sent < 30_000_000
            stalled_at = sent
            received = read_to_end(connection)
            assert received.count(b"data: {") * len(self.EVENT) >= stalled_at
            assert b"data: [DONE]" in received

    def test_who_never_reads_is_given_up_and_billed(self, engine: EngineProcess) -> None:
        flooded = False

        def flood(connection: socket.socket, _request: bytes) -> None:
            nonlocal flooded
            connection.sendall(HTTP_OK_STREAM)
            with contextlib.suppress(OSError):
                while True:
                    connection.sendall(chunked(self.EVENT))
            flooded = True

        body = json.dumps({**json.loads(BODY), "stream": True}).encode()
        with (
            ScriptedEngine(flood) as endless,
            LocalGateway(
                [ready_replica(endless.port)], settings(write_stall_timeout_seconds=1.0)
            ) as gateway,
            connect(gateway) as connection,
        ):
            connection.sendall(chat(b"", body))
            deadline = time.monotonic() + 10.0
            while not (gateway.usage.records and flooded) and time.monotonic() < deadline:
                time.sleep(0.05)
            [record] = gateway.usage.records
            assert record.outcome is Outcome.ABORTED
            assert record.tokens.output_tokens == 1
            assert flooded
