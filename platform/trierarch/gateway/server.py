"""Wires a gateway together, runs it, and takes it down without losing an answer."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import logging
import socket
from collections.abc import Callable

from trierarch.adapters.http_server import build_http_server
from trierarch.core.errors import InvalidInput
from trierarch.core.identifiers import ModelName
from trierarch.gateway.admin import build_admin_app
from trierarch.gateway.handler import GatewayHandler, GatewayParts
from trierarch.gateway.replicas import (
    FixedReplicas,
    HttpReplicaSource,
    ReplicaDirectory,
    parse_list_address,
)
from trierarch.gateway.telemetry import GatewayMetrics
from trierarch.gateway.wire.message import WireLimits
from trierarch.gateway.wire.pool import UpstreamPool
from trierarch.gateway.wire.server import ServerConnections
from trierarch.observability.tracing import Tracer
from trierarch.ports import ReplicaSource
from trierarch.settings.gateway import GatewaySettings

_logger = logging.getLogger(__name__)

BACKLOG = 2048
"""Connections the kernel keeps while the loop is busy; a burst of clients must not be refused."""

CLIENT_READ_TIMEOUT_SECONDS = 2.0
"""How long clients may take at the end to read what is already sent."""

SWEEP_INTERVAL_SECONDS = 0.5
"""Resolution of time-outs on the wire."""


def bind(host: str, port: int, what: str) -> socket.socket:
    """Return a listening socket.

    Args:
        host: Address.
        port: TCP port; 0 takes a free one.
        what: Name for the message, with the setting that changes it.

    Raises:
        InvalidInput: If the port cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise InvalidInput(f"cannot listen on {host}:{port} ({what}): {error.strerror}") from error
    listener.setblocking(False)
    return listener


def check_replica_settings(settings: GatewaySettings) -> None:
    """Refuse settings that name no replicas.

    Raises:
        InvalidInput: If so.
    """
    if settings.static_replicas:
        return
    if not settings.replicas_url:
        raise InvalidInput(
            "no replicas: set TRIERARCH_GATEWAY_REPLICAS_URL or TRIERARCH_GATEWAY_STATIC_REPLICAS"
        )
    parse_list_address(settings.replicas_url)


class GatewayServer:
    """A gateway process without the process: sockets, timers, shutdown.

    Args:
        settings: How it runs.
        parts: What it is connected to.
        metrics: Its metrics.
        tracer: Its traces.
        replica_source: Where replicas come from; by the settings if None.
        spool_problem: Returns why usage cannot be kept, or an empty string.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        parts: GatewayParts,
        metrics: GatewayMetrics,
        tracer: Tracer,
        *,
        replica_source: ReplicaSource | None = None,
        spool_problem: Callable[[], str] = lambda: "",
    ) -> None:
        self._settings = settings
        self._clock = parts.clock
        self.pool = UpstreamPool(
            parts.clock.monotonic_seconds,
            connect_timeout_seconds=settings.connect_timeout_seconds,
            silence_timeout_seconds=settings.upstream_silence_timeout_seconds,
        )
        source = replica_source or self._configured_source()
        self.handler = GatewayHandler(
            settings,
            parts,
            lambda new_dispatcher, take_promises: ReplicaDirectory(
                source, parts.clock, new_dispatcher, map(ModelName, settings.models), take_promises
            ),
            self.pool,
            metrics,
            tracer,
        )
        self._connections = ServerConnections(
            self.handler,
            WireLimits(
                max_header_bytes=settings.max_header_bytes,
                max_body_bytes=settings.max_body_bytes,
                header_timeout_seconds=settings.header_timeout_seconds,
                body_timeout_seconds=settings.body_timeout_seconds,
                idle_timeout_seconds=settings.idle_timeout_seconds,
                write_stall_timeout_seconds=settings.write_stall_timeout_seconds,
            ),
            parts.clock.monotonic_seconds,
        )
        self._admin = build_http_server(build_admin_app(self.handler, spool_problem))
        self._server: asyncio.Server | None = None
        self._background: list[asyncio.Task[None]] = []
        self._admin_task: asyncio.Task[None] | None = None

    def _configured_source(self) -> ReplicaSource:
        check_replica_settings(self._settings)
        if self._settings.static_replicas:
            return FixedReplicas(self._settings.static_replicas)
        return HttpReplicaSource(self._settings.replicas_url, self.pool)

    async def start(self, data: socket.socket, admin: socket.socket) -> None:
        """Begin to serve on two listening sockets."""
        self._sweep()
        await self.handler.directory.refresh()
        loop = asyncio.get_running_loop()
        self.handler.tenants.keeper.start()
        self._background = [
            loop.create_task(
                self.handler.directory.poll(self._settings.replica_poll_interval_seconds)
            ),
            loop.create_task(self._sweep_for_ever()),
        ]
        self._admin_task = loop.create_task(self._admin.serve(sockets=[admin]))
        self._server = await loop.create_server(
            self._connections.new_connection, sock=data, backlog=BACKLOG
        )
        _logger.info(
            "gateway listens",
            extra={"address": data.getsockname(), "admin_address": admin.getsockname()},
        )

    def _sweep(self) -> None:
        date = email.utils.formatdate(self._clock.unix_seconds(), usegmt=True)
        self._connections.sweep(date.encode())
        self.pool.sweep()

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_SECONDS)
            self._sweep()

    async def stop(self) -> None:
        """Take nothing new, let running answers end within their time, close everything.

        The admin port answers until the end, so that a probe sees the draining.
        """
        self.handler.is_draining = True
        if self._server is not None:
            self._server.close()
        self._connections.drain()
        running = list(self.handler.exchanges)
        if running:
            _logger.info("waiting for %d running answers", len(running))
            _, late = await asyncio.wait(running, timeout=self._settings.drain_timeout_seconds)
            for task in late:
                task.cancel()
            if late:
                _logger.warning("ended %d answers that took too long", len(late))
                await asyncio.wait(late, timeout=1.0)
        await self._let_clients_read()
        await self.handler.tenants.keeper.close()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._admin.should_exit = True
        if self._admin_task is not None:
            await self._admin_task
        self._connections.abort_all()
        self.pool.close()
        # Transports close in the next turn of the loop.
        await asyncio.sleep(0)

    async def _let_clients_read(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLIENT_READ_TIMEOUT_SECONDS):
                await self._connections.wait_all_closed()
