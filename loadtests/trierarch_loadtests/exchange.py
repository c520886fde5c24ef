"""One HTTP exchange, with the instant of every arrival and no work in between.

While a response arrives, each read takes what is there (never a full block) and
notes the instant and how many bytes there are so far; nothing is parsed until
the response has ended. Every exchange has its own connection: what is measured
does not depend on what a pool had idle, and a server that closes idle
connections causes no false failures. The standard library sets TCP_NODELAY.

Under locust the sockets are gevent's, because locust patches the standard
library when it is imported; this module needs neither.
"""

import dataclasses
import http.client
import ssl
import urllib.parse
from collections.abc import Callable, Mapping

from trierarch_loadtests.errors import UsageError

READ_BYTES = 65536
"""Most bytes one read takes; a read returns as soon as there is one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API is; ``prefix`` ends in ``/v1`` as in ``OPENAI_BASE_URL``."""

    scheme: str
    host: str
    port: int
    prefix: str
    api_key: str | None = dataclasses.field(repr=False)

    @property
    def base_url(self) -> str:
        """The address without the key, for messages and results."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"

    def target(self, path: str) -> str:
        """Return the whole path of an API path such as ``/models``."""
        return self.prefix + path


def parse_endpoint(base_url: str, api_key: str | None) -> Endpoint:
    """Return the endpoint that a base URL names; ``/v1`` is added if the URL has no path.

    Raises:
        UsageError: If it is not an HTTP URL with a host.
    """
    parts = urllib.parse.urlsplit(base_url)
    try:
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{base_url!r} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{base_url!r} is not a URL like http://127.0.0.1:8080/v1")
    return Endpoint(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port or (443 if parts.scheme == "https" else 80),
        prefix=parts.path.rstrip("/") or "/v1",
        api_key=api_key or None,
    )


@dataclasses.dataclass(slots=True)
class Exchange:
    """What happened, with instants of one monotonic clock."""

    started_seconds: float
    connected_seconds: float | None = None
    head_seconds: float | None = None
    """When the status line and headers were there."""
    ended_seconds: float = 0.0
    status: int | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Names in lower case."""
    body: bytes = b""
    arrivals: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    """For each read: its instant and the length of the body by then."""
    failure: str | None = None
    """Why the response did not end as HTTP says it should; ``None`` if it did."""


def exchange(
    endpoint: Endpoint,
    method: str,
    target: str,
    payload: bytes | None,
    *,
    connect_seconds: float,
    silence_seconds: float,
    now: Callable[[], float],
) -> Exchange:
    """Send one request and read the whole response; a failure is part of the answer.

    Args:
        endpoint: The server and the key to send.
        method: HTTP method.
        target: The whole path, usually from ``Endpoint.target``.
        payload: JSON body, if any.
        connect_seconds: Limit for connecting.
        silence_seconds: Limit for the time without a byte.
        now: The monotonic clock.
    """
    result = Exchange(started_seconds=now())
    connection = _connection(endpoint, connect_seconds)
    body = bytearray()
    try:
        connection.connect()
        result.connected_seconds = now()
        connection.sock.settimeout(silence_seconds)
        connection.request(method, target, body=payload, headers=_headers(endpoint, payload))
        response = connection.getresponse()
        result.head_seconds = now()
        result.status = response.status
        result.headers = {name.lower(): value for name, value in response.getheaders()}
        while data := response.read1(READ_BYTES):
            body += data
            result.arrivals.append((now(), len(body)))
        if response.length:  # announced by content-length and never sent
            result.failure = f"connection closed {response.length} bytes early"
    except TimeoutError:
        limit = connect_seconds if result.connected_seconds is None else silence_seconds
        result.failure = f"timeout: nothing came for {limit:g} s"
    except (OSError, http.client.HTTPException) as error:
        result.failure = f"{type(error).__name__}: {error}".rstrip(": ")
    finally:
        result.ended_seconds = now()
        result.body = bytes(body)
        connection.close()
    return result


def _connection(endpoint: Endpoint, connect_seconds: float) -> http.client.HTTPConnection:
    if endpoint.scheme == "https":
        return http.client.HTTPSConnection(
            endpoint.host,
            endpoint.port,
            timeout=connect_seconds,
            context=ssl.create_default_context(),
        )
    return http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=connect_seconds)


def _headers(endpoint: Endpoint, payload: bytes | None) -> dict[str, str]:
    headers = {"Accept": "text/event-stream, application/json", "Connection": "close"}
    if payload is not None:
        headers["Content-Type"] = "application/json"
    if endpoint.api_key is not None:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    return headers
