"""The admin port: health, metrics, and what the controller reads. Not for tenants.

An ordinary web framework on the same event loop: these are a few requests per
second. Nothing here changes anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trierarch.gateway.handler import GatewayHandler


def readiness_problems(gateway: GatewayHandler, spool_problem: str) -> list[str]:
    """Return why this process should get no new requests; empty if it should.

    It becomes ready with the first ready replica. After that a lack of replicas is
    no reason to take it away: requests wait here while replicas start, and that
    wait is what starts them. A model declared without any replica is scaled to
    zero, which is ready for the same reason. Where gateways outlive models, in a
    cluster, a setting spares them the wait for the first one.
    """
    problems = []
    directory = gateway.directory
    has_nothing_yet = not directory.has_been_ready and bool(
        directory.replicas or not directory.dispatchers
    )
    if gateway.is_draining:
        problems.append("the gateway is shutting down")
    if not directory.is_loaded:
        problems.append("the replica list has not been read yet")
    elif has_nothing_yet and not gateway.settings.ready_without_replicas:
        problems.append("no replica has been ready yet")
    if spool_problem:
        problems.append(spool_problem)
    return problems


def build_admin_app(gateway: GatewayHandler, spool_problem: Callable[[], str]) -> Starlette:
    """Return the admin application.

    Args:
        gateway: What it reports on.
        spool_problem: Returns why usage cannot be kept, or an empty string.
    """

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        problems = readiness_problems(gateway, spool_problem())
        if problems:
            return JSONResponse({"status": "not ready", "problems": problems}, status_code=503)
        return JSONResponse({"status": "ready", "problems": []})

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(gateway.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def replicas(_request: Request) -> Response:
        directory = gateway.directory
        now_seconds = gateway.clock.monotonic_seconds()
        listed = []
        for load in directory.loads.values():
            entry = dataclasses.asdict(load.endpoint)
            entry["state"] = load.endpoint.state.value
            entry["in_flight"] = load.ongoing_requests
            entry["outstanding_tokens"] = load.outstanding_tokens
            entry["consecutive_failures"] = load.health.consecutive_failures
            entry["ejected_for_seconds"] = max(0.0, load.health.ejected_until_seconds - now_seconds)
            listed.append(entry)
        return JSONResponse({"list_age_seconds": directory.age_seconds, "replicas": listed})

    async def requests(_request: Request) -> Response:
        document = gateway.signals_document()
        members = ("arrivals_total", "ended_total", "waiting", "in_flight", "replicas")
        models = {
            name: {member: signals[member] for member in members}
            for name, signals in document["models"].items()
        }
        return JSONResponse({"at": document["at"], "models": models})

    async def signals(_request: Request) -> Response:
        return JSONResponse(gateway.signals_document())

    async def unknown(request: Request, _error: Exception) -> Response:
        return JSONResponse({"error": f"unknown path {request.url.path}"}, status_code=404)

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/api/v1/replicas", replicas),
            Route("/api/v1/requests", requests),
            Route("/api/v1/signals", signals),
        ],
        exception_handlers={404: unknown},
    )
