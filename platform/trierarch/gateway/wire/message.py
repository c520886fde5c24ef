"""Requests and responses as the connections see them."""

from __future__ import annotations

import dataclasses
from http import HTTPStatus

_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


@dataclasses.dataclass(slots=True, eq=False)
class HttpRequest:
    """One request, complete when it is handed over.

    Attributes:
        method: Upper-case token.
        target: Path and query as sent.
        path: Without the query.
        headers: Lower-case names; of repeated ones the values joined by ", ".
        is_http_1_0: Whether the client speaks HTTP/1.0, which has no chunked answers.
        keep_alive: Whether the connection may be used again.
        peer: The client's address.
        body: Decoded body.
        received_seconds: Monotonic time of its last byte.
        early_response: Set if the headers alone decided the answer.
    """

    method: str
    target: bytes
    path: str
    headers: dict[bytes, bytes]
    is_http_1_0: bool
    keep_alive: bool
    peer: str
    body: bytearray = dataclasses.field(default_factory=bytearray)
    received_seconds: float = 0.0
    early_response: HttpResponse | None = None
    context: object = None


@dataclasses.dataclass(frozen=True, slots=True)
class HttpResponse:
    """A complete answer.

    Attributes:
        status: HTTP status.
        body: Whole body.
        headers: Encoded lines, each with its line end; framing and Date are added on sending.
        content_type: Of the body.
        code: Error code, for the log.
    """

    status: int
    body: bytes
    headers: bytes = b""
    content_type: bytes = b"application/json"
    code: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class WireLimits:
    """Sizes and times that a client connection must keep.

    Attributes:
        max_header_bytes: Request line and headers together.
        max_headers: Number of header lines.
        max_body_bytes: Decoded body.
        header_timeout_seconds: From the first byte of a request to the end of its headers.
        body_timeout_seconds: From there to the end of the body.
        idle_timeout_seconds: Before the first byte of a request, on a new connection too.
        write_stall_timeout_seconds: How long the client may read nothing of what is ready.
        linger_timeout_seconds: How long the rest of a refused body is read and thrown away, so
            that the client sees the refusal instead of a reset.
        drain_body_bytes: A refused body up to this size is read to its end and the connection
            kept; for a larger one the connection is closed.
    """

    max_header_bytes: int = 32 * 1024
    max_headers: int = 100
    max_body_bytes: int = 16 * 1024 * 1024
    header_timeout_seconds: float = 10.0
    body_timeout_seconds: float = 60.0
    idle_timeout_seconds: float = 75.0
    write_stall_timeout_seconds: float = 60.0
    linger_timeout_seconds: float = 5.0
    drain_body_bytes: int = 64 * 1024


def status_line(status: int) -> bytes:
    """Return the first line of a response, with its line end."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status


def encode_chunk(data: bytes) -> bytes:
    """Return ``data`` as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
"""Ends a chunked body."""
