"""The controller's HTTP surface: lists, state, announcements."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trierarch.controller.replica_records import Announcement, parse_announcement
from trierarch.controller.telemetry import ControllerMetrics
from trierarch.core.clock import Clock

_logger = logging.getLogger(__name__)

_MAX_ANNOUNCEMENT_BYTES = 65_536


Authenticate = Callable[[str], Awaitable[bool]]
"""Tells whether the ``authorization`` header of a replica is one to believe."""


class FleetView(Protocol):
    """What this surface tells of."""

    @property
    def is_known(self) -> bool:
        """Whether the cluster has been looked at."""
        ...

    def add(self, announcement: Announcement) -> None:
        """Take what a replica says of itself."""
        ...

    def replicas_document(self) -> dict[str, Any]:
        """Return the list that gateways read."""
        ...

    def status_document(self) -> dict[str, Any]:
        """Return what people want to know."""
        ...


def expect_token(token: str) -> Authenticate:
    """Return the check of one fixed token."""
    expected = f"Bearer {token}".encode()

    async def authenticate(header: str) -> bool:
        return hmac.compare_digest(header.encode(), expected)

    return authenticate


def build_app(
    fleet: FleetView, metrics: ControllerMetrics, clock: Clock, authenticate: Authenticate
) -> Starlette:
    """Return the application.

    Args:
        fleet: What it tells of.
        metrics: For ``/metrics``.
        clock: Stamps announcements.
        authenticate: Checks what a replica brings to announce itself.
    """

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def replicas(_request: Request) -> Response:
        if not fleet.is_known:
            # An empty list would tell gateways that nothing runs, which nobody knows yet.
            return JSONResponse({"error": "the cluster was not seen yet"}, status_code=503)
        return JSONResponse(fleet.replicas_document())

    async def status(_request: Request) -> Response:
        return JSONResponse(fleet.status_document())

    async def show_metrics(_request: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def announce(request: Request) -> Response:
        if not await authenticate(request.headers.get("authorization", "")):
            return JSONResponse({"error": "the token is missing or wrong"}, status_code=401)
        if int(request.headers.get("content-length") or 0) > _MAX_ANNOUNCEMENT_BYTES:
            return JSONResponse({"error": "too large"}, status_code=413)
        try:
            document = await request.json()
            announcement = parse_announcement(document, clock.monotonic_seconds())
        except ClientDisconnect:
            # A replica that waits no longer: it comes again with the next announcement.
            return JSONResponse({"error": "the sender has gone"}, status_code=400)
        except (ValueError, KeyError, TypeError) as error:
            return JSONResponse({"error": f"no announcement: {error!r}"}, status_code=400)
        fleet.add(announcement)
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/replicas", replicas),
            Route("/status", status),
            Route("/metrics", show_metrics),
            Route("/announcements", announce, methods=["POST"]),
        ]
    )
