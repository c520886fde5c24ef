"""A proxy between a client and the API server that notes which rights each request needs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import AsyncIterator, Iterator
from urllib.parse import parse_qs

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from tests.cluster.ports import free_ports

from trierarch.adapters.http_server import HttpServer, build_http_server
from trierarch.adapters.kubernetes import ClusterAccess

_VERBS = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}


@dataclasses.dataclass(frozen=True, order=True)
class Right:
    """What a rule of a role allows."""

    group: str
    resource: str
    verb: str


def right_of(method: str, path: str, query: str) -> Right | None:
    """Return what a request needs; None for discovery, which everybody may."""
    parts = [part for part in path.split("/") if part]
    if len(parts) < 3 or parts[0] not in ("api", "apis"):
        return None
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    if not rest:
        return None
    resource, name, subresource = (*rest, "", "")[:3]
    if method == "GET":
        is_watch = parse_qs(query).get("watch", ["false"])[0] in ("true", "1")
        verb = "get" if name else "watch" if is_watch else "list"
    else:
        verb = _VERBS[method]
    return Right(group, f"{resource}/{subresource}" if subresource else resource, verb)


@dataclasses.dataclass
class Recording:
    """What went through.

    Attributes:
        url: Where the proxy listens.
        used: Rights that were needed and given.
        refused: Requests that were answered with 401 or 403.
    """

    url: str
    used: set[Right] = dataclasses.field(default_factory=set)
    refused: list[str] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def recording_proxy(access: ClusterAccess) -> Iterator[Recording]:
    """Run a proxy in a thread until the block ends.

    Args:
        access: The API server; who asks is said by the requests themselves.
    """
    (port,) = free_ports(1)
    recording = Recording(f"http://127.0.0.1:{port}")

    async def serve() -> None:
        async with httpx.AsyncClient(
            base_url=access.server,
            verify=access.verify,
            timeout=None,  # noqa: S113  # watches
        ) as client:

            async def forward(request: Request) -> StreamingResponse:
                return await _forward(client, request, recording)

            methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
            app = Starlette(routes=[Route("/{path:path}", forward, methods=methods)])
            server = build_http_server(app, port=port)
            servers.append(server)
            await server.serve()

    servers: list[HttpServer] = []
    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    try:
        yield recording
    finally:
        for server in servers:
            server.should_exit = True
        thread.join(20)


async def _forward(
    client: httpx.AsyncClient, request: Request, recording: Recording
) -> StreamingResponse:
    kept = {"authorization", "content-type", "accept"}
    headers = {name: value for name, value in request.headers.items() if name in kept}
    # Compressed answers would have to be counted and encoded again.
    headers["accept-encoding"] = "identity"
    outgoing = client.build_request(
        request.method,
        request.url.path,
        params=request.query_params,
        content=await request.body(),
        headers=headers,
    )
    answer = await client.send(outgoing, stream=True)
    right = right_of(request.method, request.url.path, request.url.query)
    if answer.status_code in (401, 403):
        recording.refused.append(f"{request.method} {request.url.path}: {answer.status_code}")
    elif right is not None:
        recording.used.add(right)
        if request.method == "PATCH" and answer.status_code == 201:
            # An apply that makes the object needs the right to create it too.
            recording.used.add(dataclasses.replace(right, verb="create"))

    async def body() -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.aiter_bytes():
                yield chunk
        except httpx.HTTPError:
            # The server went away; the client sees the connection end.
            return
        finally:
            await answer.aclose()

    return StreamingResponse(
        body(),
        status_code=answer.status_code,
        media_type=answer.headers.get("content-type", "application/json"),
    )
