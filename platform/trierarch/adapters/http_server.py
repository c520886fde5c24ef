"""An HTTP server inside a process that has other work: metrics, announcements, an engine's routes.

uvicorn with its signal handlers left out: a signal ends the whole process in
the process's own order, and Ray owns the signals of a replica.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import uvicorn


class HttpServer(uvicorn.Server):
    """uvicorn without signal handlers; ``serve(sockets=...)`` runs it, ``should_exit`` ends it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signal handlers alone."""
        yield


def build_http_server(
    app: Any,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    keep_alive_seconds: int = 5,
    shutdown_seconds: int | None = 1,
) -> HttpServer:
    """Return a server for an ASGI application, ready to serve.

    Args:
        app: The application.
        host: Where it listens unless it is given sockets.
        port: TCP port; not used with sockets.
        keep_alive_seconds: How long an idle connection stays open.
        shutdown_seconds: How long running answers may hold up the end; None waits for all.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=keep_alive_seconds,
        timeout_graceful_shutdown=shutdown_seconds,
    )
    # Imports its protocols now and not on the running event loop.
    config.load()
    return HttpServer(config)
