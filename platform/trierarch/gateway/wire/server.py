"""The client side of the gateway: one HTTP/1.1 server connection.

Pipelined requests are answered one after the other. While an answer runs the
socket is still read, since a client that leaves must be noticed; while the
client does not read, whoever produces is told to pause. Every wait for the
client has a deadline, and one timer for all connections enforces them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from trierarch.gateway.wire.message import (
    LAST_CHUNK,
    HttpRequest,
    HttpResponse,
    WireLimits,
    encode_chunk,
    status_line,
)
from trierarch.gateway.wire.request_reader import HeadChecker, ReadingState, RequestReader

_NEVER = float("inf")

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ResponseProducer(Protocol):
    """Whoever is producing the answer to the active request."""

    def client_gone(self) -> None:
        """The client closed or reset its connection; nothing can be sent any more."""
        ...

    def pause(self) -> None:
        """The client reads more slowly than the answer is produced."""
        ...

    def resume(self) -> None:
        """The client has caught up."""
        ...


class RequestHandler(HeadChecker, Protocol):
    """What a server connection hands its requests to."""

    def start(self, request: HttpRequest, connection: ServerConnection) -> ResponseProducer | None:
        """Begin to answer; None if the whole answer was already sent."""
        ...

    def note_early(self, request: HttpRequest, response: HttpResponse) -> None:
        """Learn that a request was answered from its headers alone."""
        ...


class ServerConnections:
    """All open client connections, their clock, and the one timer that ends slow ones."""

    def __init__(
        self,
        handler: RequestHandler,
        limits: WireLimits,
        monotonic_seconds: Callable[[], float],
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.monotonic_seconds = monotonic_seconds
        self.open: set[ServerConnection] = set()
        self.is_draining = False
        self.date_line = b""
        self._last_closed = asyncio.Event()

    def new_connection(self) -> ServerConnection:
        """Return a protocol for an accepted socket."""
        return ServerConnection(self)

    def sweep(self, http_date: bytes) -> None:
        """End connections that are past a deadline; called about once a second.

        Args:
            http_date: Current value of the Date header.
        """
        self.date_line = b"date: " + http_date + b"\r\n"
        now_seconds = self.monotonic_seconds()
        for connection in [c for c in self.open if c.next_deadline_seconds <= now_seconds]:
            connection.expire(now_seconds)

    def drain(self) -> None:
        """Close idle connections; the others close after their answer."""
        self.is_draining = True
        for connection in list(self.open):
            connection.close_if_idle()

    async def wait_all_closed(self) -> None:
        """Wait until no connection is open."""
        while self.open:
            self._last_closed.clear()
            await self._last_closed.wait()

    def note_closed(self, connection: ServerConnection) -> None:
        """Forget a connection."""
        self.open.discard(connection)
        if not self.open:
            self._last_closed.set()

    def abort_all(self) -> None:
        """Close what is left."""
        for connection in list(self.open):
            connection.abort()


class ServerConnection(asyncio.Protocol):
    """One accepted socket."""

    __slots__ = (
        "_active",
        "_chunked",
        "_lingering",
        "_owner",
        "_producer",
        "_read_deadline_seconds",
        "_reader",
        "_transport",
        "_write_deadline_seconds",
        "_write_paused",
    )

    def __init__(self, owner: ServerConnections) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._reader = RequestReader(owner.handler, owner.limits, "")
        self._active: HttpRequest | None = None
        self._producer: ResponseProducer | None = None
        self._lingering = False
        self._chunked = False
        self._write_paused = False
        self._read_deadline_seconds = _NEVER
        self._write_deadline_seconds = _NEVER

    # --- asyncio.Protocol -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over an accepted socket (the event loop has set TCP_NODELAY)."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._reader = RequestReader(
            self._owner.handler, self._owner.limits, str(peer[0]) if peer else ""
        )
        self._owner.open.add(self)
        # A client that connects and is then busy does nothing wrong: no headers have begun.
        self._set_read_deadline()

    def data_received(self, data: bytes) -> None:
        """Read what arrived and start what became complete."""
        if self._lingering:
            return
        before = self._reader.state
        self._reader.feed(data)
        if self._reader.state is not before:
            self._set_read_deadline()
        self._advance()

    def eof_received(self) -> bool:
        """Treat a half-closed connection as closed, as the large servers do."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever was answering."""
        del exc
        self._owner.note_closed(self)
        self._transport = None
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.client_gone()

    def pause_writing(self) -> None:
        """Pass the client's slowness on and start its clock."""
        self._write_paused = True
        self._write_deadline_seconds = (
            self._owner.monotonic_seconds() + self._owner.limits.write_stall_timeout_seconds
        )
        if self._producer is not None:
            self._producer.pause()

    def resume_writing(self) -> None:
        """Let the answer flow again."""
        self._write_paused = False
        self._write_deadline_seconds = _NEVER
        if self._producer is not None:
            self._producer.resume()

    # --- order of requests ------------------------------------------------------------

    def _advance(self) -> None:
        """Start whatever is next: a request, the refusal that ends them, or waiting."""
        while self._active is None and self._transport is not None and not self._lingering:
            request = self._reader.take()
            if request is None:
                break
            self._active = request
            request.received_seconds = self._owner.monotonic_seconds()
            if request.early_response is not None:
                self._owner.handler.note_early(request, request.early_response)
                self.respond(request.early_response)
                continue
            producer = self._owner.handler.start(request, self)
            if producer is not None and self._active is request:
                self._producer = producer
                if self._write_paused:
                    producer.pause()
        if self._active is not None or self._transport is None or self._lingering:
            return
        if self._reader.refusal is not None:
            self._send_response(self._reader.refusal, keep_alive=False, has_body=True)
            self._linger()
        elif self._reader.wants_continue:
            self._reader.wants_continue = False
            self._transport.write(_CONTINUE)

    # --- answering --------------------------------------------------------------------

    def respond(self, response: HttpResponse) -> None:
        """Send a complete answer to the active request."""
        request = self._active
        if request is None or self._transport is None:
            return
        keep_alive = request.keep_alive and not self._owner.is_draining
        self._send_response(response, keep_alive=keep_alive, has_body=request.method != "HEAD")
        self._finish(keep_alive=keep_alive)

    def _send_response(self, response: HttpResponse, *, keep_alive: bool, has_body: bool) -> None:
        if self._transport is None:
            return
        body = response.body
        self._transport.write(
            b"%b%bcontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n%b"
            % (
                status_line(response.status),
                self._owner.date_line,
                response.content_type,
                len(body),
                response.headers,
                b"" if keep_alive else b"connection: close\r\n",
                body if has_body else b"",
            )
        )

    def start_stream(self, status: int, content_type: bytes, headers: bytes, first: bytes) -> None:
        """Send the head of a streamed answer and its first piece."""
        request = self._active
        if request is None or self._transport is None:
            return
        self._chunked = not request.is_http_1_0
        request.keep_alive = request.keep_alive and self._chunked and not self._owner.is_draining
        self._transport.write(
            b"%b%bcontent-type: %b\r\ncache-control: no-cache\r\n%b%b%b\r\n%b"
            % (
                status_line(status),
                self._owner.date_line,
                content_type,
                headers,
                b"transfer-encoding: chunked\r\n" if self._chunked else b"",
                b"" if request.keep_alive else b"connection: close\r\n",
                encode_chunk(first) if self._chunked else first,
            )
        )

    def send_piece(self, data: bytes) -> None:
        """Send a further piece of a streamed answer."""
        if self._transport is not None:
            self._transport.write(encode_chunk(data) if self._chunked else data)

    def end_stream(self, last: bytes = b"", *, keep_alive: bool = True) -> None:
        """End a streamed answer properly, with an optional last piece."""
        request = self._active
        if request is None or self._transport is None:
            return
        if self._chunked:
            self._transport.write(encode_chunk(last) + LAST_CHUNK if last else LAST_CHUNK)
        elif last:
            self._transport.write(last)
        self._finish(keep_alive=keep_alive and request.keep_alive)

    def _finish(self, *, keep_alive: bool) -> None:
        self._active = None
        self._producer = None
        if not keep_alive or self._owner.is_draining:
            self._linger()
            return
        if self._reader.state is ReadingState.BETWEEN_REQUESTS:
            self._set_read_deadline()
        if self._reader.complete or self._reader.refusal or self._reader.wants_continue:
            # Not directly: inside data_received the loop of _advance goes on by itself.
            asyncio.get_running_loop().call_soon(self._advance)

    def _linger(self) -> None:
        """Close, but let the client read the answer before a reset could destroy it."""
        if self._transport is None or self._lingering:
            return
        self._lingering = True
        now_seconds = self._owner.monotonic_seconds()
        self._read_deadline_seconds = now_seconds + self._owner.limits.linger_timeout_seconds
        if self._transport.can_write_eof():
            self._transport.write_eof()

    # --- deadlines --------------------------------------------------------------------

    @property
    def next_deadline_seconds(self) -> float:
        """Monotonic time at which ``expire`` has something to do."""
        return min(self._read_deadline_seconds, self._write_deadline_seconds)

    def _set_read_deadline(self) -> None:
        limits = self._owner.limits
        state = self._reader.state
        if state is ReadingState.HEADERS:
            wait_seconds = limits.header_timeout_seconds
        elif state is ReadingState.BODY:
            wait_seconds = limits.body_timeout_seconds
        elif state is ReadingState.BETWEEN_REQUESTS and self._active is None:
            wait_seconds = limits.idle_timeout_seconds
        else:
            wait_seconds = _NEVER
        self._read_deadline_seconds = self._owner.monotonic_seconds() + wait_seconds

    def expire(self, now_seconds: float) -> None:
        """End what took too long."""
        transport = self._transport
        if transport is None:
            return
        if self._write_deadline_seconds <= now_seconds or transport.is_closing():
            transport.abort()
        elif self._lingering:
            if transport.get_write_buffer_size() == 0:
                transport.abort()
                return
            # The client still reads the answer; it has the time of any slow reader.
            self._read_deadline_seconds = now_seconds + 1.0
            if self._write_deadline_seconds == _NEVER:
                self._write_deadline_seconds = (
                    now_seconds + self._owner.limits.write_stall_timeout_seconds
                )
        elif self._reader.state is ReadingState.BETWEEN_REQUESTS:
            if self._active is None:
                self._linger()
            else:
                self._read_deadline_seconds = _NEVER
        else:
            self._read_deadline_seconds = _NEVER
            self._reader.refuse(408, "request_timeout", "the request did not arrive in time")
            self._advance()

    def close_if_idle(self) -> None:
        """Close if no request is running or arriving."""
        if self._active is None and self._reader.state is ReadingState.BETWEEN_REQUESTS:
            self._linger()

    def abort(self) -> None:
        """Close without a word."""
        if self._transport is not None:
            self._transport.abort()
