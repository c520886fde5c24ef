"""An engine that does exactly what a test says, byte by byte, the wrong things included."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

HTTP_OK_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def chunked(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def content_event(text: str, output_tokens: int, prompt_tokens: int = 3) -> bytes:
    """Return a streamed event as vLLM sends it with continuous usage."""
    return (
        f'data: {{"id":"c","object":"chat.completion.chunk","created":1,"model":"simulated",'
        f'"choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}],'
        f'"usage":{{"prompt_tokens":{prompt_tokens},'
        f'"total_tokens":{prompt_tokens + output_tokens},'
        f'"completion_tokens":{output_tokens}}}}}\n\n'
    ).encode()


def whole_answer(status: int, body: bytes, reason: str = "X") -> bytes:
    """Return a complete JSON answer."""
    return (
        f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body


def reset(connection: socket.socket) -> None:
    """Close with a reset instead of an orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


_SO_ATTACH_FILTER = 26
_DROP = struct.pack("HBBI", 0x06, 0, 0, 0)


def lose_power(connection: socket.socket) -> None:
    """Drop whatever comes, before the kernel can acknowledge it: no end, no reset, no answer.

    So a host looks that has lost its power or its network, from the other end of a connection.
    """
    program = ctypes.create_string_buffer(_DROP)
    described = struct.pack("HP", 1, ctypes.addressof(program))
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)


Script = Callable[[socket.socket, bytes], None]
"""Gets the connection and one whole request; returns to wait for the next one."""


class ScriptedEngine:
    """Listens on a free local port while used as a context manager.

    Args:
        script: Runs for every request, in the connection's own thread.

    Attributes:
        requests: Every request that arrived whole: headers and body.
        connections: How many were accepted.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.connections = 0
        self.client_left = threading.Event()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while request := _read_request(connection):
                self.requests.append(request)
                self._script(connection, request)
        self._open.discard(connection)

    def wait_for_client_to_leave(self, connection: socket.socket) -> None:
        """Block until the gateway closes its side; then set ``client_left``."""
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                pass
        self.client_left.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Wakes the thread in accept(), which a close alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(5.0)


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":", 1)[1])
    while len(body) < length:
        piece = connection.recv(65536)
        if not piece:
            return b""
        body += piece
    return head + b"\r\n\r\n" + body
