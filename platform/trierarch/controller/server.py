"""The controller's HTTP surface, on the loopback interface: lists, state, announcements."""

from __future__ import annotations

import hmac
import logging

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trierarch.controller.fleet import Fleet
from trierarch.controller.replica_records import parse_announcement
from trierarch.controller.telemetry import ControllerMetrics
from trierarch.core.clock import Clock

_logger = logging.getLogger(__name__)

_MAX_ANNOUNCEMENT_BYTES = 65_536


def build_app(fleet: Fleet, metrics: ControllerMetrics, clock: Clock, token: str) -> Starlette:
    """Return the application.

    Args:
        fleet: What it tells of.
        metrics: For ``/metrics``.
        clock: Stamps announcements.
        token: What a replica has to bring to announce itself.
    """
    expected = f"Bearer {token}".encode()

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def replicas(_request: Request) -> Response:
        if fleet.applications is None:
            # An empty list would tell gateways that nothing runs, which nobody knows yet.
            return JSONResponse({"error": "Ray Serve has not answered yet"}, status_code=503)
        return JSONResponse(fleet.replicas_document())

    async def status(_request: Request) -> Response:
        return JSONResponse(fleet.status_document())

    async def show_metrics(_request: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def announce(request: Request) -> Response:
        brought = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(brought, expected):
            return JSONResponse({"error": "the token is missing or wrong"}, status_code=401)
        if int(request.headers.get("content-length") or 0) > _MAX_ANNOUNCEMENT_BYTES:
            return JSONResponse({"error": "too large"}, status_code=413)
        try:
            document = await request.json()
            announcement = parse_announcement(document, clock.monotonic_seconds())
        except (ValueError, KeyError, TypeError) as error:
            return JSONResponse({"error": f"no announcement: {error!r}"}, status_code=400)
        fleet.announcements.add(announcement)
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
