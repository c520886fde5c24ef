"""The Kubernetes API as operators write to it: server-side apply, patches, Events, Leases.

Reads come from watches elsewhere; here are writes and the few reads that have to be
fresh. What may pass by itself (conflicts, throttling, server errors, a lost
connection) is tried again with growing pauses; everything else is said at once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes.client
import kubernetes.config
import orjson

from trierarch.core.errors import InvalidInput, TrierarchError, Unavailable

RETRIED_STATUSES = frozenset({429, 500, 502, 503, 504})

PAGE_OBJECTS = 100
"""Of one answer to a list: as objects of Python they take ten times the space of their text."""

_TIMEOUT_SECONDS = 15.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_MOST_TRIES = 6
_TOKEN_LIFE_SECONDS = 60.0
"""Kubelet renews the token in its file; it is read again this often."""


@dataclasses.dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object, by its address."""

    group: str
    version: str
    plural: str
    is_namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the address of an object, or of the whole list without a name."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{namespace}" if self.is_namespaced and namespace else ""
        parts = [part for part in (name, subresource) if part]
        return "/".join([f"{root}{place}/{self.plural}", *parts])

    @property
    def api_version(self) -> str:
        """As in a manifest."""
        return f"{self.group}/{self.version}" if self.group else self.version


LEASES = Resource("coordination.k8s.io", "v1", "leases")
EVENTS = Resource("events.k8s.io", "v1", "events")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", is_namespaced=False)


class Refused(TrierarchError):
    """The API server will not do this however often it is asked.

    Attributes:
        status: HTTP status.
        reason: Kubernetes' word, for example ``Invalid``.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Conflict(Refused):
    """Somebody else has changed the object since it was read."""


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterAccess:
    """Where the API server is and who we are there.

    Attributes:
        server: Base address.
        verify: TLS settings.
        token: Returns the bearer token of now; empty where a certificate says who we are.
    """

    server: str
    verify: ssl.SSLContext | bool
    token: Callable[[], str]

    @staticmethod
    def find(kubeconfig: Path | None = None) -> ClusterAccess:
        """Return the access of the pod, or else of the kubeconfig.

        Raises:
            InvalidInput: If there is neither.
        """
        configuration = kubernetes.client.Configuration()
        try:
            if kubeconfig is None:
                try:
                    kubernetes.config.load_incluster_config(client_configuration=configuration)
                except kubernetes.config.ConfigException:
                    kubernetes.config.load_kube_config(client_configuration=configuration)
            else:
                kubernetes.config.load_kube_config(
                    str(kubeconfig), client_configuration=configuration
                )
        except (kubernetes.config.ConfigException, OSError) as error:
            raise InvalidInput(f"no access to a cluster: {error}") from error
        verify: ssl.SSLContext | bool = False
        if configuration.verify_ssl:
            verify = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
            if configuration.cert_file:
                verify.load_cert_chain(configuration.cert_file, configuration.key_file)

        def token() -> str:
            for name in ("BearerToken", "authorization"):
                found = configuration.get_api_key_with_prefix(name)
                if found:
                    return str(found).removeprefix("Bearer ").removeprefix("bearer ")
            return ""

        return ClusterAccess(str(configuration.host).rstrip("/"), verify, token)


class KubernetesApi:
    """A client of one API server.

    Args:
        access: Where it is.
        field_manager: Whose fields what is applied becomes.
        now_seconds: Monotonic time.

    Attributes:
        requests: How many were sent, by method; a benchmark counts them.
    """

    def __init__(
        self, access: ClusterAccess, field_manager: str, now_seconds: Callable[[], float]
    ) -> None:
        self.field_manager = field_manager
        self.requests: dict[str, int] = {}
        self._access = access
        self._now_seconds = now_seconds
        self._token = ""
        self._token_read_seconds = float("-inf")
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def apply(
        self,
        resource: Resource,
        manifest: Mapping[str, Any],
        *,
        subresource: str = "",
        field_manager: str = "",
    ) -> dict[str, Any]:
        """Apply a manifest: its fields become ours, fields of others stay theirs.

        Raises:
            Refused: If the manifest is not allowed.
            Unavailable: If the API server did not take it in time.
        """
        metadata = manifest["metadata"]
        path = resource.path(metadata.get("namespace", ""), metadata["name"], subresource)
        return await self.ask(
            "PATCH",
            path,
            manifest,
            query={"fieldManager": field_manager or self.field_manager, "force": "true"},
            content_type="application/apply-patch+yaml",
        )

    async def patch(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Apply a JSON patch; its ``test`` operations make it conditional.

        Raises:
            Refused: If a test does not hold or the result is not allowed.
            Unavailable: If the API server did not take it in time.
        """
        return await self.ask(
            "PATCH",
            resource.path(namespace, name),
            list(operations),
            query={"fieldManager": self.field_manager},
            content_type="application/json-patch+json",
        )

    async def create(
        self, resource: Resource, namespace: str, manifest: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Create an object.

        Raises:
            Conflict: If it exists.
            Refused: If it is not allowed.
            Unavailable: If the API server did not take it in time.
        """
        query = {"fieldManager": self.field_manager}
        return await self.ask("POST", resource.path(namespace), manifest, query=query)

    async def replace(self, resource: Resource, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object of the ``resourceVersion`` in the manifest.

        Raises:
            Conflict: If it has changed since.
            Unavailable: If the API server did not take it in time.
        """
        metadata = manifest["metadata"]
        path = resource.path(metadata.get("namespace", ""), metadata["name"])
        return await self.ask("PUT", path, manifest, retry=False)

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any] | None:
        """Return an object as it is now; None if there is none.

        Raises:
            Unavailable: If the API server did not answer in time.
        """
        try:
            return await self.ask("GET", resource.path(namespace, name))
        except Refused as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, resource: Resource, namespace: str = "", label_selector: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield all objects; only one page of them is in memory at a time.

        Raises:
            Unavailable: If the API server did not answer in time.
        """
        query = {"limit": str(PAGE_OBJECTS)}
        if label_selector:
            query["labelSelector"] = label_selector
        while True:
            page = await self.ask("GET", resource.path(namespace), query=query)
            for found in page["items"]:
                yield found
            going_on = page["metadata"].get("continue")
            if not going_on:
                return
            query["continue"] = going_on

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """Delete the object with this uid, if it is still there.

        Raises:
            Unavailable: If the API server did not take it in time.
        """
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self.ask("DELETE", resource.path(namespace, name), options)
        except Refused as error:
            # Gone, or another of the same name: either way, this one is not there.
            if error.status not in (404, 409):
                raise

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        retry: bool = True,
    ) -> dict[str, Any]:
        """Send one request, again where that may help, and return the answer's JSON.

        Raises:
            Conflict: If the object has changed (409).
            Refused: If the answer is another error that stays.
            Unavailable: If no answer came in time.
        """
        problem = ""
        pause_seconds = _FIRST_PAUSE_SECONDS
        for attempt in range(_MOST_TRIES if retry else 1):
            if attempt:
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
            self.requests[method] = self.requests.get(method, 0) + 1
            headers = {"content-type": content_type} if body is not None else {}
            if token := self._bearer():
                headers["authorization"] = f"Bearer {token}"
            try:
                async with self._connected().request(
                    method,
                    path,
                    data=None if body is None else orjson.dumps(body),
                    params=query,
                    headers=headers,
                ) as answer:
                    content = await answer.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                problem = repr(error)
                continue
            if answer.ok:
                found: dict[str, Any] = orjson.loads(content)
                return found
            problem = _describe(answer.status, content)
            if answer.status not in RETRIED_STATUSES:
                raise _refusal(answer.status, content, f"{method} {path}: {problem}")
            wait = answer.headers.get("retry-after", "")
            if wait.isdigit():
                pause_seconds = max(pause_seconds, float(wait))
        raise Unavailable(f"the API server did not take {method} {path}: {problem}")

    def _connected(self) -> aiohttp.ClientSession:
        # Made here because it belongs to the event loop that runs now.
        if self._session is None:
            verify = self._access.verify
            self._session = aiohttp.ClientSession(
                self._access.server,
                connector=aiohttp.TCPConnector(ssl=verify),
                timeout=aiohttp.ClientTimeout(
                    sock_connect=_TIMEOUT_SECONDS, sock_read=_TIMEOUT_SECONDS
                ),
            )
        return self._session

    def _bearer(self) -> str:
        now = self._now_seconds()
        if now - self._token_read_seconds >= _TOKEN_LIFE_SECONDS:
            self._token, self._token_read_seconds = self._access.token(), now
        return self._token


def _status(content: bytes) -> Mapping[str, Any]:
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _describe(status: int, content: bytes) -> str:
    text = content.decode(errors="replace")[:500].strip()
    return str(_status(content).get("message") or text or status)


def _refusal(status: int, content: bytes, message: str) -> Refused:
    kind = Conflict if status == 409 else Refused
    return kind(status, str(_status(content).get("reason", "")), message)
