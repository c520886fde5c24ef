"""Bytes of a client connection to complete requests, strictly and within limits.

What two parsers could read differently is refused, because a disagreement
about where a request ends is how requests are smuggled. No I/O happens here:
the connection feeds bytes and takes finished requests, at most one refusal
(after which nothing more is read), and the wish for a ``100 Continue``.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Protocol

import httptools

from trierarch.gateway.wire.message import HttpRequest, HttpResponse, WireLimits

_SINGLE_VALUED = frozenset(
    {b"host", b"authorization", b"x-api-key", b"content-type", b"content-length", b"expect"}
)
"""Two values of one of these would make two different requests."""


class HeadChecker(Protocol):
    """Decides what can be decided before a body is read."""

    def check_head(self, request: HttpRequest) -> HttpResponse | None:
        """Return an answer if the headers alone decide it; the body is then not kept."""
        ...

    def refuse(
        self, status: int, code: str, message: str, request: HttpRequest | None = None
    ) -> HttpResponse:
        """Return the answer to something that is no acceptable HTTP request.

        Args:
            status: HTTP status.
            code: Stable word.
            message: One sentence.
            request: If its headers were acceptable.
        """
        ...


class ReadingState(Enum):
    """What the reader is in the middle of; each has its own deadline."""

    BETWEEN_REQUESTS = "between"
    HEADERS = "headers"
    BODY = "body"
    STOPPED = "stopped"
    """Nothing more will be read: refused, or the last request of the connection."""


class RequestReader:
    """Parses one connection.

    Attributes:
        complete: Requests whose turn to be answered has not come.
        refusal: Answer to a violation; goes out after ``complete`` and ends the connection.
        wants_continue: The client waits for ``100 Continue`` before it sends its body.
        state: What is being read.
    """

    __slots__ = (
        "_body_bytes_held",
        "_checker",
        "_current",
        "_head_bytes",
        "_header_bytes",
        "_header_count",
        "_headers",
        "_limits",
        "_parser",
        "_peer",
        "_replaying",
        "_target",
        "complete",
        "refusal",
        "state",
        "wants_continue",
    )

    def __init__(self, checker: HeadChecker, limits: WireLimits, peer: str) -> None:
        self._checker = checker
        self._limits = limits
        self._peer = peer
        self._parser = httptools.HttpRequestParser(self)
        self._replaying = False
        self._body_bytes_held = 0
        self.complete: deque[HttpRequest] = deque()
        self.refusal: HttpResponse | None = None
        self.wants_continue = False
        self.state = ReadingState.BETWEEN_REQUESTS
        self._start_message()

    def _start_message(self) -> None:
        self._current: HttpRequest | None = None
        self._headers: dict[bytes, bytes] = {}
        self._target = b""
        self._header_bytes = 0
        self._header_count = 0
        self._head_bytes = 0

    # --- used by the connection -------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Read bytes; results are in the attributes afterwards."""
        if self.state is ReadingState.STOPPED:
            return
        self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self.refuse(400, "invalid_request", f"not a valid HTTP/1.1 request: {error}")
        if (
            self.state is ReadingState.HEADERS
            and self._header_bytes > self._limits.max_header_bytes
        ):
            self._refuse_headers()

    def take(self) -> HttpRequest | None:
        """Return the next complete request, if any."""
        if not self.complete:
            return None
        request = self.complete.popleft()
        self._body_bytes_held -= len(request.body)
        return request

    def refuse(self, status: int, code: str, message: str) -> None:
        """Stop reading and answer the violation after the requests before it."""
        if self.state is not ReadingState.STOPPED:
            self.refusal = self._checker.refuse(status, code, message)
            self._stop()

    def _stop(self) -> None:
        self.state = ReadingState.STOPPED
        self._current = None
        self.wants_continue = False

    def _refuse_headers(self) -> None:
        limit = self._limits.max_header_bytes
        self.refuse(431, "request_too_large", f"the headers are larger than {limit} bytes")

    def _decline_upgrade(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 after an offer of another protocol.

        Clients that offer HTTP/2 send a usual request with it. The parser stops
        at the offer, before the body; a fresh one reads on from there.
        """
        self._parser = httptools.HttpRequestParser(self)
        request = self._current
        if request is not None:
            self._replaying = True
            length = request.headers.get(b"content-length")
            framing = b"content-length: " + length if length else b"transfer-encoding: chunked"
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
            self._replaying = False
        if rest:
            self.feed(rest)

    # --- called by the parser ---------------------------------------------------------

    def on_message_begin(self) -> None:
        """Note that a first byte of a request has arrived."""
        if self._replaying or self.state is ReadingState.STOPPED:
            return
        self._start_message()
        self.state = ReadingState.HEADERS

    def on_url(self, url: bytes) -> None:
        """Collect a part of the request target."""
        if not self._replaying:
            self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; what comes after the body (a trailer) is ignored."""
        if self.state is not ReadingState.HEADERS:
            return
        self._header_count += 1
        self._head_bytes += len(name) + len(value) + 4
        name = name.lower()
        headers = self._headers
        if name not in headers:
            headers[name] = value.strip(b" \t")
        elif name in _SINGLE_VALUED:
            self.refuse(400, "invalid_request", f"repeated header: {name.decode('latin-1')}")
        else:
            headers[name] += b", " + value.strip(b" \t")

    def on_headers_complete(self) -> None:
        """Decide from the headers whether the body is worth reading."""
        if self.state is not ReadingState.HEADERS:
            return
        limits = self._limits
        headers = self._headers
        size = len(self._target) + self._head_bytes
        if size > limits.max_header_bytes or self._header_count > limits.max_headers:
            self._refuse_headers()
            return
        version = self._parser.get_http_version()
        encoding = headers.get(b"transfer-encoding")
        problem = ""
        if version not in {"1.1", "1.0"}:
            problem = f"HTTP/{version} is not supported"
        elif not self._target.startswith(b"/"):
            problem = "the request target must be a path"
        elif version == "1.1" and b"host" not in headers:
            problem = "the Host header is missing"
        elif encoding is not None and (encoding.lower() != b"chunked" or version == "1.0"):
            problem = "the only Transfer-Encoding is chunked"
        if problem:
            self.refuse(400, "invalid_request", problem)
            return
        self.state = ReadingState.BODY
        self._current = HttpRequest(
            method=self._parser.get_method().decode("latin-1"),
            target=self._target,
            path=self._target.split(b"?", 1)[0].decode("latin-1"),
            headers=headers,
            is_http_1_0=version == "1.0",
            keep_alive=self._parser.should_keep_alive(),
            peer=self._peer,
        )
        self._decide_body(self._current)

    def _decide_body(self, request: HttpRequest) -> None:
        headers = request.headers
        is_chunked = b"transfer-encoding" in headers
        # The parser has refused anything but digits.
        length = int(headers.get(b"content-length", b"0"))
        expect = headers.get(b"expect", b"").lower()
        response = self._checker.check_head(request)
        if response is None and length > self._limits.max_body_bytes:
            response = self._too_large(request)
        elif response is None and expect not in {b"", b"100-continue"}:
            response = self._checker.refuse(
                417, "invalid_request", "the only expectation is 100-continue", request
            )
        if response is not None:
            request.early_response = response
            if expect or is_chunked or length > self._limits.drain_body_bytes:
                # Whether and how the body follows is open: answer now, read no more.
                self._complete_as_last(request)
        elif expect and not request.is_http_1_0 and (length or is_chunked):
            self.wants_continue = True

    def on_body(self, data: bytes) -> None:
        """Collect a part of the body."""
        request = self._current
        if request is None or request.early_response is not None:
            return
        self.wants_continue = False
        limit = self._limits.max_body_bytes
        if len(request.body) + len(data) > limit:
            request.early_response = self._too_large(request)
            self._complete_as_last(request)
            return
        request.body += data
        self._body_bytes_held += len(data)
        if self._body_bytes_held > 2 * limit:
            # Too much is pipelined behind a running answer.
            self.refuse(413, "request_too_large", "too many bytes are waiting on this connection")

    def on_message_complete(self) -> None:
        """Finish a request, unless the parser only stopped at an offered upgrade."""
        request = self._current
        if request is None:
            if self.state is not ReadingState.STOPPED:
                self.state = ReadingState.BETWEEN_REQUESTS
            return
        if self._parser.should_upgrade() and (
            b"transfer-encoding" in request.headers
            or request.headers.get(b"content-length", b"0").strip(b"0")
        ):
            return
        self._current = None
        self._header_bytes = 0
        self.wants_continue = False
        self.state = ReadingState.BETWEEN_REQUESTS
        self.complete.append(request)

    def _complete_as_last(self, request: HttpRequest) -> None:
        request.keep_alive = False
        self._stop()
        self.complete.append(request)

    def _too_large(self, request: HttpRequest) -> HttpResponse:
        limit = self._limits.max_body_bytes
        message = f"the request body is larger than {limit} bytes"
        return self._checker.refuse(413, "request_too_large", message, request)
