"""Clients that cost little: a closed loop of plain requests, and many paced streams."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time
from collections.abc import Callable, Sequence

import httptools

STAMP = re.compile(rb"@(\d+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Timings:
    """What a client saw.

    Attributes:
        requests: Complete answers.
        events: Streamed events.
        seconds: Length of the measurement.
        cpu_seconds: CPU time the contender used in it.
        latencies_seconds: Of plain requests.
        first_event_seconds: From sending a request to its first event.
        event_delays_seconds: From the engine's send to the client's receive.
        errors: Answers that were not complete or not 200.
    """

    requests: int
    events: int
    seconds: float
    cpu_seconds: float
    latencies_seconds: Sequence[float] = ()
    first_event_seconds: Sequence[float] = ()
    event_delays_seconds: Sequence[float] = ()
    errors: int = 0


class Client(asyncio.Protocol):
    """Sends the same request again and again until told to stop."""

    def __init__(self, request: bytes, *, until: float, warm_up_until: float) -> None:
        self._request = request
        self._until = until
        self._warm_up_until = warm_up_until
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.requests = 0
        self.events = 0
        self.errors = 0
        self.latencies_seconds: list[float] = []
        self.first_event_seconds: list[float] = []
        self.event_delays_seconds: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._seen_event = False
        self._status = 0
        self._ended = False
        self._sent_at = time.monotonic()
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; early is an error."""
        if not self.done.done():
            self.errors += 1
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Take stamps and look for the end."""
        now_ns = time.monotonic_ns()
        counts = self._sent_at >= self._warm_up_until
        for match in STAMP.finditer(data):
            if not self._seen_event:
                self._seen_event = True
                if counts:
                    self.first_event_seconds.append(now_ns / 1e9 - self._sent_at)
            if self._warm_up_until <= now_ns / 1e9 < self._until:
                self.events += 1
                self.event_delays_seconds.append((now_ns - int(match[1])) / 1e9)
        self._parser.feed_data(data)
        if self._ended:
            if counts and time.monotonic() < self._until:
                self.requests += 1
                self.latencies_seconds.append(time.monotonic() - self._sent_at)
                self.errors += self._status != 200
            if time.monotonic() < self._until:
                self._send()
            elif not self.done.done():
                self.done.set_result(None)
                self._transport.close()

    def on_headers_complete(self) -> None:
        """Keep the status."""
        self._status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        """Note the end."""
        self._ended = True


async def run_clients(
    port: int,
    request: bytes,
    count: int,
    *,
    seconds: float,
    warm_up_seconds: float,
    ramp_seconds: float = 0.0,
    cpu_seconds: Callable[[], float] = lambda: 0.0,
) -> Timings:
    """Run ``count`` closed-loop clients and return what they saw after the warm-up.

    Args:
        port: Of the contender.
        request: Whole HTTP request.
        count: Clients, each with one connection.
        seconds: After the warm-up.
        warm_up_seconds: Not counted.
        ramp_seconds: Over which the clients begin, so that streams do not beat in step; a part of
            the warm-up.
        cpu_seconds: CPU time used so far by the contender.
    """
    loop = asyncio.get_running_loop()
    begin = time.monotonic()
    warm_up_until = begin + warm_up_seconds
    until = warm_up_until + seconds
    clients: list[Client] = []
    for _ in range(count):
        _, client = await loop.create_connection(
            lambda: Client(request, until=until, warm_up_until=warm_up_until), "127.0.0.1", port
        )
        clients.append(client)
        if ramp_seconds:
            await asyncio.sleep(ramp_seconds / count)
    await asyncio.sleep(max(0.0, warm_up_until - time.monotonic()))
    cpu_before = cpu_seconds()
    await asyncio.sleep(max(0.0, until - time.monotonic()))
    cpu_used = cpu_seconds() - cpu_before
    await asyncio.gather(*(client.done for client in clients))
    return Timings(
        cpu_seconds=cpu_used,
        requests=sum(client.requests for client in clients),
        events=sum(client.events for client in clients),
        seconds=seconds,
        latencies_seconds=[v for c in clients for v in c.latencies_seconds],
        first_event_seconds=[v for c in clients for v in c.first_event_seconds],
        event_delays_seconds=[v for c in clients for v in c.event_delays_seconds],
        errors=sum(client.errors for client in clients),
    )
