"""An engine that costs almost nothing: fixed answers, streams in metronome time.

Each event carries the monotonic time at which it was sent, so that a client on
the same machine can tell how long it was on its way.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import time

import httptools
import uvloop

EVENT_INTERVAL_SECONDS = 0.010
EVENTS_PER_STREAM = 64

USAGE = b'{"prompt_tokens":300,"total_tokens":%d,"completion_tokens":%d}'
FINAL = (
    b'data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1,'
    b'"model":"mock","choices":[],"usage":' + USAGE + b"}\n\n"
)
DONE = b"data: [DONE]\n\n"
EVENT = (
    b'data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1,'
    b'"model":"mock","choices":[{"index":0,"delta":{"content":" @%d"},"logprobs":null,'
    b'"finish_reason":null}],"usage":' + USAGE + b"}\n\n"
)
ANSWER = (
    b'{"id":"chatcmpl-0123456789abcdef","object":"chat.completion","created":1,"model":"mock",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"' + b"word " * 150 + b'",'
    b'"refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":'
    b'{"prompt_tokens":300,"total_tokens":450,"completion_tokens":150}}'
)
JSON_RESPONSE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
) + ANSWER
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
WANTS_STREAM = re.compile(rb'"stream":\s*true')


def chunked(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class MockEngine(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._sent = 0
        self._next_at = 0.0
        self._is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop streaming."""
        self._is_open = False

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        """Keep the request's body."""
        self._body += data

    def on_message_complete(self) -> None:
        """Answer."""
        is_stream = WANTS_STREAM.search(self._body) is not None
        self._body = b""
        if not is_stream:
            self._transport.write(JSON_RESPONSE)
            return
        self._sent = 0
        self._transport.write(STREAM_HEAD)
        self._next_at = self._loop.time()
        self._send_event()

    def _send_event(self) -> None:
        if not self._is_open:
            return
        if self._sent == EVENTS_PER_STREAM:
            final = FINAL % (300 + self._sent, self._sent)
            self._transport.write(chunked(final) + chunked(DONE) + b"0\r\n\r\n")
            return
        self._sent += 1
        stamp = time.monotonic_ns()
        self._transport.write(chunked(EVENT % (stamp, 300 + self._sent, self._sent)))
        self._next_at += EVENT_INTERVAL_SECONDS
        self._loop.call_at(self._next_at, self._send_event)


async def serve(listener: socket.socket) -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(MockEngine, sock=listener)
    await server.serve_forever()


def main() -> None:
    """Listen on a free port and print it."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    uvloop.run(serve(listener))


if __name__ == "__main__":
    main()
