"""The gateway as a process: sockets first, then the ledger, signals, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import BinaryIO

import uvloop

from trierarch import __version__
from trierarch.core.clock import Clock, SystemClock
from trierarch.gateway.access_log import AccessEntry, write_access_lines
from trierarch.gateway.books import LedgerBooks, open_books
from trierarch.gateway.handler import GatewayParts
from trierarch.gateway.random_ids import BufferedRandom
from trierarch.gateway.server import GatewayServer, bind, check_replica_settings
from trierarch.gateway.telemetry import GatewayMetrics
from trierarch.observability.logging import configure_logging
from trierarch.observability.offload import BatchWriter
from trierarch.observability.tracing import Tracer, start_otlp_writer
from trierarch.settings.gateway import GatewaySettings

_logger = logging.getLogger(__name__)

SWITCH_INTERVAL_SECONDS = 0.0005
"""A telemetry or spool thread that computes gives the event loop its turn after this time; the
interpreter's default of 5 ms would be visible in the time to first token."""


GARBAGE_COLLECTION_THRESHOLD = 20_000
"""Requests leave next to no cycles behind; the default of 700 would look for them every few."""


def run(settings: GatewaySettings, clock: Clock | None = None) -> None:
    """Run a gateway until SIGTERM or SIGINT.

    Raises:
        InvalidInput: If a setting cannot work here, a busy port for example.
        TrierarchError: If something it needs does not answer.
    """
    clock = clock or SystemClock()
    configure_logging(settings.log_level)
    _allow_many_connections()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    check_replica_settings(settings)
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(bind(settings.host, settings.port, "TRIERARCH_GATEWAY_PORT"))
        admin = stack.enter_context(
            bind(settings.host, settings.admin_port, "TRIERARCH_GATEWAY_ADMIN_PORT")
        )
        books = stack.enter_context(open_books(settings, clock))
        uvloop.run(_serve(settings, clock, books, data, admin))


def _allow_many_connections() -> None:
    """Raise the soft limit on open files to the hard one: each client is a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(
    settings: GatewaySettings,
    clock: Clock,
    books: LedgerBooks,
    data: socket.socket,
    admin: socket.socket,
) -> None:
    metrics = GatewayMetrics()
    with contextlib.ExitStack() as stack:
        export = None
        if settings.otlp_endpoint:
            spans = start_otlp_writer(
                settings.otlp_endpoint,
                service_name="trierarch-gateway",
                service_version=__version__,
                on_drop=functools.partial(metrics.count_dropped, "spans"),
            )
            stack.callback(spans.close)
            export = spans.put
        write_access = _start_access_log(settings, metrics, stack, sys.stderr.buffer)
        server = GatewayServer(
            settings,
            GatewayParts(
                keys=books.keys,
                rates=books.rates,
                usage=books.spool,
                tenant_usage=books.tenant_usage,
                tenants=books.tenants,
                clock=clock,
                random_bytes=os.urandom,
                write_access=write_access,
            ),
            metrics,
            Tracer(
                sample_ratio=settings.trace_sample_ratio,
                random_bytes=BufferedRandom(os.urandom),
                export=export,
            ),
            spool_problem=books.problem,
        )
        await serve_until_signal(server, data, admin)


async def serve_until_signal(
    server: GatewayServer, data: socket.socket, admin: socket.socket
) -> None:
    """Serve until SIGTERM or SIGINT, then let running answers end; a second signal ends them."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            for task in list(server.handler.exchanges):
                task.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await server.start(data, admin)
    # What exists now lives as long as the process; looking through it again and again for
    # garbage would stop the loop for tens of milliseconds.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_COLLECTION_THRESHOLD)
    try:
        await stop.wait()
    finally:
        await server.stop()
        _logger.info("gateway ended")


def _start_access_log(
    settings: GatewaySettings,
    metrics: GatewayMetrics,
    stack: contextlib.ExitStack,
    stream: BinaryIO,
) -> Callable[[AccessEntry], None]:
    if not settings.access_log:
        return lambda _entry: None
    lines: BatchWriter[AccessEntry] = BatchWriter(
        "access-log",
        lambda entries: write_access_lines(entries, stream),
        on_drop=functools.partial(metrics.count_dropped, "access_log"),
    )
    lines.start()
    stack.callback(lines.close)
    return lines.put
