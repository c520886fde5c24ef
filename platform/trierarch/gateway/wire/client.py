"""The replica side of the gateway: one HTTP/1.1 client connection.

One request at a time; a connection is used again after a clean answer. All
pieces of an answer that arrive together are passed on together, so that a
burst of small chunks costs one write. A failure says whether the answer had
begun and how the connection had been used before, because only that decides
what may be tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from trierarch.routing.ejection import FailureKind

MAX_RESPONSE_HEADER_BYTES = 64 * 1024
"""An engine sends a few hundred bytes; more is no engine."""

_NEVER = float("inf")


class UpstreamFailure(Exception):
    """An exchange with a replica ended without a complete answer.

    Attributes:
        kind: What happened.
        response_begun: Whether any byte of an answer had arrived.
        is_stale_connection: Whether a connection kept from before turned out to be closed by the
            other side as the request was sent, so that the request never began there.
    """

    def __init__(
        self,
        kind: FailureKind,
        detail: str,
        *,
        response_begun: bool = False,
        is_stale_connection: bool = False,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.response_begun = response_begun
        self.is_stale_connection = is_stale_connection


class ResponseReceiver(Protocol):
    """Takes one answer as it arrives; called from the event loop, must not block."""

    def response_started(self, status: int, headers: dict[bytes, bytes]) -> None:
        """The head of the answer is complete."""
        ...

    def body_received(self, data: bytes) -> None:
        """A piece of the decoded body has arrived."""
        ...

    def response_complete(self) -> None:
        """The answer is complete; the connection may already serve someone else."""
        ...

    def response_failed(self, failure: UpstreamFailure) -> None:
        """The answer will never be complete."""
        ...


STALE_WINDOW_SECONDS = 1.0
"""A kept connection that ends within this time after sending, without one byte of an answer, was
closed before the request arrived; later than that the replica may have begun to work on it."""


class UpstreamConnection(asyncio.Protocol):
    """One socket to one replica.

    Args:
        monotonic_seconds: Clock for deadlines.
        on_idle: Called when the connection can take another request.
        on_closed: Called once when it cannot be used any more.
    """

    __slots__ = (
        "_body_ends_with_connection",
        "_complete",
        "_deadline_seconds",
        "_header_bytes",
        "_headers",
        "_headers_done",
        "_is_paused",
        "_keep_alive",
        "_monotonic_seconds",
        "_on_closed",
        "_on_idle",
        "_parser",
        "_pieces",
        "_receiver",
        "_response_begun",
        "_sent_at_seconds",
        "_silence_timeout_seconds",
        "_transport",
        "idle_since_seconds",
        "requests_sent",
    )

    def __init__(
        self,
        monotonic_seconds: Callable[[], float],
        *,
        silence_timeout_seconds: float,
        on_idle: Callable[[UpstreamConnection], None],
        on_closed: Callable[[UpstreamConnection], None],
    ) -> None:
        self._monotonic_seconds = monotonic_seconds
        self._silence_timeout_seconds = silence_timeout_seconds
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._receiver: ResponseReceiver | None = None
        self._is_paused = False
        self._sent_at_seconds = 0.0
        self._deadline_seconds = _NEVER
        self.idle_since_seconds = 0.0
        self.requests_sent = 0
        self._start_response()

    def _start_response(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._reset_message()
        self._response_begun = False
        self._complete = False
        self._keep_alive = False
        self._header_bytes = 0
        self._pieces: list[bytes] = []

    def _reset_message(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._headers_done = False
        self._body_ends_with_connection = False

    # --- used by the pool and by requests ---------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def deadline_seconds(self) -> float:
        """Monotonic time after which silence on a running answer is a failure."""
        return self._deadline_seconds

    def send(self, request: bytes, receiver: ResponseReceiver) -> None:
        """Send a whole request; the answer goes to ``receiver``.

        Raises:
            UpstreamFailure: If the connection is already closed; nothing was sent.
        """
        if self._transport is None or self._transport.is_closing():
            raise UpstreamFailure(
                FailureKind.RESET, "the connection was closed", is_stale_connection=True
            )
        self._start_response()
        self._receiver = receiver
        self.requests_sent += 1
        self._sent_at_seconds = self._monotonic_seconds()
        self._deadline_seconds = self._sent_at_seconds + self._silence_timeout_seconds
        self._transport.write(request)

    def pause(self) -> None:
        """Stop reading until ``resume``; the replica feels the back-pressure."""
        if self.is_open and self._transport is not None and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
            self._deadline_seconds = _NEVER

    def resume(self) -> None:
        """Read on."""
        if self.is_open and self._transport is not None and self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
            if self._receiver is not None:
                self._deadline_seconds = self._monotonic_seconds() + self._silence_timeout_seconds

    def close(self) -> None:
        """Drop the connection and, with it, a running request; its receiver hears nothing."""
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()

    def expire(self) -> None:
        """Fail a running request because the replica has been silent too long."""
        self._fail(FailureKind.TIMEOUT, "the replica sent nothing for too long")

    # --- asyncio.Protocol -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a connected socket (the event loop has set TCP_NODELAY)."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived and pass it on."""
        receiver = self._receiver
        if receiver is None:
            # Nothing was asked: a late answer or a protocol error. Not usable any more.
            self.close()
            return
        self._response_begun = True
        self._deadline_seconds = self._monotonic_seconds() + self._silence_timeout_seconds
        if not self._headers_done:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                self._fail(FailureKind.RESET, f"not a valid HTTP/1.1 answer: {error}")
                return
            self._keep_alive = False
        if not self._headers_done and self._header_bytes > MAX_RESPONSE_HEADER_BYTES:
            self._fail(FailureKind.RESET, "the answer's headers are too large")
            return
        pieces = self._pieces
        if pieces and self._receiver is not None:
            self._pieces = []
            receiver.body_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._complete and self._receiver is not None:
            self._finish(may_reuse=self._keep_alive)

    def eof_received(self) -> bool:
        """Let the transport close; connection_lost decides what it means."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Report a request that was running."""
        self._transport = None
        if self._receiver is not None:
            if self._headers_done and self._body_ends_with_connection and exc is None:
                self._finish(may_reuse=False)
            else:
                self._fail(FailureKind.RESET, str(exc) if exc else "the replica closed")
        self._on_closed(self)

    # --- httptools callbacks ----------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; trailers are ignored."""
        if not self._headers_done:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Pass the head on, unless it is an interim one."""
        status = self._parser.get_status_code()
        if status < 200:
            return
        self._headers_done = True
        self._body_ends_with_connection = (
            b"content-length" not in self._headers and b"transfer-encoding" not in self._headers
        )
        if self._receiver is not None:
            self._receiver.response_started(status, self._headers)

    def on_body(self, data: bytes) -> None:
        """Collect a piece of the body."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """Note the end of the answer, unless it was an interim one."""
        if self._headers_done:
            self._complete = True
            # The parser forgets it as soon as this returns.
            self._keep_alive = self._parser.should_keep_alive()
        else:
            self._reset_message()

    # --- ends -------------------------------------------------------------------------

    def _finish(self, *, may_reuse: bool) -> None:
        receiver, self._receiver = self._receiver, None
        self._deadline_seconds = _NEVER
        if self._transport is not None:
            if may_reuse:
                self.idle_since_seconds = self._monotonic_seconds()
                self._on_idle(self)
            else:
                self._transport.close()
        if receiver is not None:
            receiver.response_complete()

    def _fail(self, kind: FailureKind, detail: str) -> None:
        receiver, self._receiver = self._receiver, None
        self._deadline_seconds = _NEVER
        if self._transport is not None:
            self._transport.abort()
        if receiver is None:
            return
        waited_seconds = self._monotonic_seconds() - self._sent_at_seconds
        is_stale = (
            kind is FailureKind.RESET
            and not self._response_begun
            and self.requests_sent > 1
            and waited_seconds < STALE_WINDOW_SECONDS
        )
        receiver.response_failed(
            UpstreamFailure(
                kind,
                detail,
                response_begun=self._response_begun,
                is_stale_connection=is_stale,
            )
        )
