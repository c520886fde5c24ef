"""One attempt: takes an engine's answer and passes a stream on as it comes.

Nothing is sent to the client before the first whole event is here, so that an
attempt which fails before it can be repeated elsewhere unseen. A stream of one
text that is cut off later is left open, for another attempt to go on with. The
end of a stream is accounted before its last bytes leave: a client that has read
``[DONE]`` finds the request in its usage.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from decimal import Decimal
from typing import Protocol

from trierarch.core.quantities import TokenCounts
from trierarch.core.usage import Outcome
from trierarch.gateway.continuation import Continuation, SentText
from trierarch.gateway.errors import GatewayError, from_engine, upstream_error
from trierarch.gateway.metering import StreamMeter
from trierarch.gateway.spending import SpendWatch
from trierarch.gateway.wire.client import UpstreamConnection, UpstreamFailure
from trierarch.gateway.wire.server import ServerConnection
from trierarch.routing.ejection import FailureKind

EVENT_STREAM = b"text/event-stream"


class RelayOwner(Protocol):
    """The exchange that an attempt belongs to."""

    def stream_headers(self) -> bytes:
        """Note the first event; return the header lines of the answer."""
        ...

    def stream_lacks(self, usd: Decimal) -> None:
        """Have that much reserved, then ``go_on`` or ``end_unpaid``."""
        ...

    def upstream_left(self) -> None:
        """Forget the connection: it is another's, although the stream is still held."""
        ...

    def stream_ended(self, outcome: Outcome, tokens: TokenCounts | None, code: str) -> None:
        """Account the request; called once, before its last bytes are sent."""
        ...


class Relay:
    """Receives one answer.

    Args:
        owner: The exchange.
        client: Gets the answer.
        connection: Brings it.
        meter: Reads a stream.
        watch: Follows what a stream costs, if a budget pays.
        sent: Gets what is sent of a stream that could go on elsewhere.
        continuation: What other attempts have begun and this one goes on with.

    Attributes:
        status: HTTP status of the engine; 0 until known.
        body: Whole body, unless the answer is streamed.
        meter: Reads the stream.
        has_started: The client has been sent the head of a stream.
        has_ended: The client has been sent everything, or the attempt failed.
        is_cut: The replica was lost in the middle of a stream, which is open and can go on.
        broke_off: Why a stream ended early after the client had seen a part.
        error: The engine's own error, if it reported one before the client saw a byte.
        refusal: Why the client is answered with an error although the engine answers.
        done: Resolved when the attempt is over: None, or how it failed.
    """

    __slots__ = (
        "_client",
        "_connection",
        "_continuation",
        "_held",
        "_held_end",
        "_is_stream",
        "_owner",
        "_sent",
        "_watch",
        "body",
        "broke_off",
        "done",
        "error",
        "has_ended",
        "has_started",
        "is_cut",
        "meter",
        "refusal",
        "status",
    )

    def __init__(
        self,
        owner: RelayOwner,
        client: ServerConnection,
        connection: UpstreamConnection,
        meter: StreamMeter,
        watch: SpendWatch | None = None,
        sent: SentText | None = None,
        continuation: Continuation | None = None,
    ) -> None:
        self._owner = owner
        self._client = client
        self._connection = connection
        self._is_stream = False
        self._watch = watch
        self._sent = sent
        self._continuation = continuation
        self._held: list[bytes] | None = None
        self._held_end: Callable[[], None] | None = None
        self.refusal: GatewayError | None = None
        self.status = 0
        self.body = bytearray()
        self.meter = meter
        self.has_started = continuation is not None
        self.has_ended = False
        self.is_cut = False
        self.broke_off: FailureKind | None = None
        self.error: GatewayError | None = None
        self.done: asyncio.Future[UpstreamFailure | None] = (
            asyncio.get_running_loop().create_future()
        )

    def response_started(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Note how the answer comes."""
        self.status = status
        content_type = headers.get(b"content-type", b"").lower()
        self._is_stream = status == 200 and content_type.startswith(EVENT_STREAM)

    def body_received(self, data: bytes) -> None:
        """Pass a piece of a stream on, or collect it."""
        if not self._is_stream:
            self.body += data
            return
        if self.has_ended or self.is_cut:
            return
        if self._held is not None:
            self._held.append(data)
            return
        meter = self.meter
        piece = meter.feed(data)
        if piece and self._continuation is not None:
            piece = self._continuation.adapt(piece)
        if meter.error is not None:
            if piece and self.has_started:
                # It is counted, so the client gets it, and so does whoever goes on.
                self._pass_on(piece)
            self._engine_failed(meter.error)
        elif piece or meter.is_done:
            if self._watch is not None:
                lack_usd = self._watch.lacks(len(data), meter)
                if lack_usd is not None:
                    self._held = [piece]
                    self._owner.stream_lacks(lack_usd)
                    return
            self._pass_on(piece)

    def _pass_on(self, piece: bytes) -> None:
        if self.meter.is_done:
            outcome = Outcome.COMPLETED if self._continuation is None else Outcome.MIGRATED
            self._owner.stream_ended(outcome, self.meter.tokens_so_far(), "")
            self._end(piece, keep_alive=True)
            return
        if self._sent is not None:
            self._sent.add(piece)
        if self.has_started:
            self._client.send_piece(piece)
        else:
            self._start(piece)

    def go_on(self) -> None:
        """Pass on what came while more was being reserved; the first piece is metered already."""
        held, self._held = self._held or [], None
        if self.has_ended:
            return
        for position, data in enumerate(held):
            if position == 0:
                self._pass_on(data)
            else:
                self.body_received(data)
        if self._is_held():
            return
        end, self._held_end = self._held_end, None
        if end is not None:
            end()

    def _hold_end(self, end: Callable[[], None]) -> None:
        """Keep the end for later; the connection may answer another request from now on."""
        self._held_end = end
        self._owner.upstream_left()

    def _is_held(self) -> bool:
        return self._held is not None

    def end_unpaid(self, error: GatewayError) -> None:
        """End a stream that the tenant's budget cannot pay any more; what it used is charged."""
        self._held = None
        if self.has_ended:
            return
        if self._held_end is None:
            self._connection.close()
        if not self.has_started:
            self.has_ended = True
            self.refusal = error
            self._resolve(None)
            return
        self._owner.stream_ended(Outcome.ABORTED, self.meter.tokens_so_far(), error.code)
        self._end(error.as_event(), keep_alive=False)

    def _start(self, first: bytes) -> None:
        self.has_started = True
        self._client.start_stream(
            200, b"text/event-stream; charset=utf-8", self._owner.stream_headers(), first
        )

    def _end(self, last: bytes, *, keep_alive: bool) -> None:
        self.has_ended = True
        if self.has_started:
            self._client.end_stream(last, keep_alive=keep_alive)
        else:
            self._start(last)
            self._client.end_stream(keep_alive=keep_alive)
        self._resolve(None)

    def _engine_failed(self, error: GatewayError) -> None:
        """Handle an error event: hidden if the request can go on, else the last thing sent."""
        self._connection.close()
        kind = FailureKind.UNAVAILABLE if error.status == 503 else FailureKind.SERVER_ERROR
        if self.has_started and (self._sent is None or error.status < 500):
            self.break_off(error, FailureKind.SERVER_ERROR)
            return
        if self.has_started:
            self.is_cut = True
        else:
            self.has_ended = True
        self.error = error
        self._resolve(UpstreamFailure(kind, error.message, response_begun=True))

    def break_off(self, error: GatewayError, kind: FailureKind) -> None:
        """End a stream that had begun with an error event, and never with ``[DONE]``."""
        self.broke_off = kind
        self._owner.stream_ended(Outcome.FAILED, self.meter.tokens_so_far(), error.code)
        self._end(error.as_event(), keep_alive=False)

    def response_complete(self) -> None:
        """Finish, or notice that a stream ended without its end mark."""
        if self._held is not None:
            self._hold_end(self.response_complete)
            return
        if not self._is_stream and self.has_started:
            # Asked to go on with a stream, the engine answers with an error.
            self._engine_failed(from_engine(self.status, bytes(self.body)))
        elif not self._is_stream:
            self.has_ended = True
            self._resolve(None)
        elif not self.has_ended:
            self.response_failed(
                UpstreamFailure(
                    FailureKind.RESET, "the stream ended too early", response_begun=True
                )
            )

    def response_failed(self, failure: UpstreamFailure) -> None:
        """Report the failure; a client that saw a part is told in the stream."""
        if self.has_ended or self.is_cut:
            return
        if self._held is not None:
            self._hold_end(functools.partial(self.response_failed, failure))
            return
        if self.has_started and self._sent is not None:
            self.is_cut = True
            self._resolve(failure)
        elif self.has_started:
            self.break_off(
                upstream_error(f"The engine's answer broke off: {failure}."), failure.kind
            )
        else:
            self._resolve(failure)

    def _resolve(self, result: UpstreamFailure | None) -> None:
        if not self.done.done():
            self.done.set_result(result)
