"""Connections to replicas, kept and used again.

Last in, first out, so that a quiet time lets the others age out. A connection
is thrown away before the engine's own keep-alive time would close it: a
request sent into a closing connection is the one failure a pool adds.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from trierarch.gateway.wire.client import UpstreamConnection, UpstreamFailure
from trierarch.routing.ejection import FailureKind

MAX_IDLE_SECONDS = 4.0
"""Below the five seconds after which uvicorn, and so vLLM, closes a silent connection."""

Address = tuple[str, int]

DEAD_HOST_OPTIONS = tuple(
    (level, getattr(socket, name), value)
    for level, name, value in (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 5),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 5),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 2),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 15_000),
    )
    # Not every system has all of them; there its own patience, minutes, takes their place.
    if hasattr(socket, name)
)
"""Socket options with which the kernel gives up a host that has died with its connections open: one
that lost power, or the network. Another host's kernel answers also for a process that is busy, so
that silence of this kind is never a long prompt. Seconds, the last one milliseconds."""


class UpstreamPool:
    """Idle connections by address, and the deadlines of the busy ones."""

    def __init__(
        self,
        monotonic_seconds: Callable[[], float],
        *,
        connect_timeout_seconds: float,
        silence_timeout_seconds: float,
        max_idle_per_address: int = 64,
    ) -> None:
        self._monotonic_seconds = monotonic_seconds
        self._connect_timeout_seconds = connect_timeout_seconds
        self._silence_timeout_seconds = silence_timeout_seconds
        self._max_idle_per_address = max_idle_per_address
        self._idle: dict[Address, list[UpstreamConnection]] = {}
        self._all: dict[UpstreamConnection, Address] = {}

    def take_idle(self, address: Address) -> UpstreamConnection | None:
        """Return a kept connection that is young enough, or None."""
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            age_seconds = self._monotonic_seconds() - connection.idle_since_seconds
            if connection.is_open and age_seconds < MAX_IDLE_SECONDS:
                return connection
            connection.close()
        return None

    async def connect(self, address: Address) -> UpstreamConnection:
        """Open a new connection.

        Raises:
            UpstreamFailure: If that does not work in time.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_seconds):
                transport, connection = await loop.create_connection(self._new_connection, *address)
        except TimeoutError:
            raise UpstreamFailure(FailureKind.CONNECT, "connecting took too long") from None
        except OSError as error:
            raise UpstreamFailure(FailureKind.CONNECT, f"cannot connect: {error}") from error
        self._all[connection] = address
        for option in DEAD_HOST_OPTIONS:
            transport.get_extra_info("socket").setsockopt(*option)
        return connection

    def _new_connection(self) -> UpstreamConnection:
        return UpstreamConnection(
            self._monotonic_seconds,
            silence_timeout_seconds=self._silence_timeout_seconds,
            on_idle=self._keep,
            on_closed=self._forget,
        )

    def _keep(self, connection: UpstreamConnection) -> None:
        address = self._all.get(connection)
        if address is None:
            connection.close()
            return
        idle = self._idle.setdefault(address, [])
        if len(idle) >= self._max_idle_per_address:
            connection.close()
        else:
            idle.append(connection)

    def _forget(self, connection: UpstreamConnection) -> None:
        address = self._all.pop(connection, None)
        if address is None:
            return
        idle = self._idle.get(address)
        if idle is not None and connection in idle:
            idle.remove(connection)
            if not idle:
                del self._idle[address]

    async def fetch(self, address: Address, request: bytes) -> tuple[int, bytes]:
        """Send a small request that may safely be repeated; return status and body.

        Raises:
            UpstreamFailure: If there is no complete answer.
        """
        connection = self.take_idle(address)
        if connection is not None:
            try:
                return await _exchange(connection, request)
            except UpstreamFailure as failure:
                if not failure.is_stale_connection:
                    raise
        return await _exchange(await self.connect(address), request)

    def sweep(self) -> None:
        """Close connections that are idle too long, fail answers that are silent too long."""
        now_seconds = self._monotonic_seconds()
        for idle in list(self._idle.values()):
            for connection in list(idle):
                if now_seconds - connection.idle_since_seconds >= MAX_IDLE_SECONDS:
                    idle.remove(connection)
                    connection.close()
        for connection in list(self._all):
            if connection.deadline_seconds <= now_seconds:
                connection.expire()

    def close(self) -> None:
        """Close everything."""
        for connection in list(self._all):
            connection.close()


class _WholeAnswer:
    """Collects an answer."""

    def __init__(self) -> None:
        self.done: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._body = bytearray()

    def response_started(self, status: int, headers: dict[bytes, bytes]) -> None:
        del headers
        self._status = status

    def body_received(self, data: bytes) -> None:
        self._body += data

    def response_complete(self) -> None:
        if not self.done.done():
            self.done.set_result((self._status, bytes(self._body)))

    def response_failed(self, failure: UpstreamFailure) -> None:
        if not self.done.done():
            self.done.set_exception(failure)


async def _exchange(connection: UpstreamConnection, request: bytes) -> tuple[int, bytes]:
    answer = _WholeAnswer()
    connection.send(request, answer)
    try:
        return await answer.done
    except asyncio.CancelledError:
        connection.close()
        raise
