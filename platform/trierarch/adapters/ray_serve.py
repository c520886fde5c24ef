"""Ray Serve over the REST interface of Ray's dashboard: deploy, look, scale.

REST and not Ray's client: no version of Ray has to be installed where decisions
are made, and a controller that restarts leaves nothing behind in the cluster.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from trierarch.core.errors import Unavailable
from trierarch.core.replicas import ReplicaState

_TIMEOUT_SECONDS = 10.0
_DEPLOY_TIMEOUT_SECONDS = 60.0

_STATES = {
    "STARTING": ReplicaState.STARTING,
    "UPDATING": ReplicaState.STARTING,
    "RECOVERING": ReplicaState.STARTING,
    "PENDING_MIGRATION": ReplicaState.DRAINING,
    "RUNNING": ReplicaState.READY,
    "STOPPING": ReplicaState.DRAINING,
}


@dataclasses.dataclass(frozen=True, slots=True)
class ServeReplica:
    """One replica as Ray Serve sees it.

    Attributes:
        replica_id: Serve's unique id.
        state: What Serve thinks of it; Serve does not know whether its engine serves.
        started_unix_seconds: When its actor was made.
        pid: Of its process; None until it has one.
        node_ip: Of its node; empty until it has one.
    """

    replica_id: str
    state: ReplicaState
    started_unix_seconds: float
    pid: int | None = None
    node_ip: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ServeApplication:
    """One application with a single deployment.

    Attributes:
        name: Of the application.
        status: Serve's word ("RUNNING", "DEPLOYING", "DEPLOY_FAILED", ...).
        message: Serve's explanation; may have many lines.
        target_replicas: How many Serve works towards; None until the deployment exists.
        replicas: Those that exist.
        configuration: As it was last deployed.
    """

    name: str
    status: str
    message: str
    target_replicas: int | None
    replicas: tuple[ServeReplica, ...]
    configuration: Mapping[str, Any]


class RayServe:
    """A client of one Ray cluster's Serve.

    Args:
        client: Used for all calls; its owner closes it.
        dashboard_url: ``http://HOST:PORT``.
    """

    def __init__(self, client: httpx.AsyncClient, dashboard_url: str) -> None:
        self._client = client
        self._url = dashboard_url.rstrip("/")

    async def deploy(self, applications: Sequence[Mapping[str, Any]]) -> None:
        """Make exactly these applications be there.

        Raises:
            Unavailable: If Serve did not take them.
        """
        document = {"proxy_location": "Disabled", "applications": list(applications)}
        await self._ask(
            "PUT", "/api/serve/applications/", document, timeout_seconds=_DEPLOY_TIMEOUT_SECONDS
        )

    async def applications(self) -> dict[str, ServeApplication]:
        """Return what is deployed, by name.

        Raises:
            Unavailable: If Serve does not answer.
        """
        answer = await self._ask("GET", "/api/serve/applications/")
        try:
            return {
                name: parse_application(name, fields)
                for name, fields in answer.json().get("applications", {}).items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Unavailable(f"Ray Serve's answer cannot be read: {error!r}") from error

    async def scale(self, application: str, deployment: str, replicas: int) -> None:
        """Ask for a number of replicas; idempotent.

        Raises:
            Unavailable: If Serve did not take it.
        """
        path = f"/api/v1/applications/{application}/deployments/{deployment}/scale"
        await self._ask("POST", path, {"target_num_replicas": replicas})

    async def _ask(
        self,
        method: str,
        path: str,
        document: Mapping[str, Any] | None = None,
        *,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> httpx.Response:
        try:
            answer = await self._client.request(
                method, self._url + path, json=document, timeout=timeout_seconds
            )
        except httpx.HTTPError as error:
            raise Unavailable(f"Ray Serve does not answer {method} {path}: {error!r}") from error
        if answer.status_code != 200:
            raise Unavailable(
                f"Ray Serve answered {method} {path} with {answer.status_code}:"
                f" {answer.text[:500].strip()}"
            )
        return answer


def parse_application(name: str, fields: Mapping[str, Any]) -> ServeApplication:
    """Return an application from Serve's JSON.

    Raises:
        KeyError: If a member is missing.
    """
    deployments = list((fields.get("deployments") or {}).values())
    deployment: Mapping[str, Any] = deployments[0] if deployments else {}
    return ServeApplication(
        name=name,
        status=str(fields["status"]),
        message=str(fields.get("message") or deployment.get("message") or ""),
        target_replicas=deployment.get("target_num_replicas"),
        replicas=tuple(parse_replica(entry) for entry in deployment.get("replicas") or ()),
        configuration=fields.get("deployed_app_config") or {},
    )


def parse_replica(entry: Mapping[str, Any]) -> ServeReplica:
    """Return a replica from Serve's JSON.

    Raises:
        KeyError: If a member is missing.
    """
    return ServeReplica(
        replica_id=str(entry["replica_id"]),
        # A state that a later Ray brings is "not yet serving" until someone looks at it.
        state=_STATES.get(str(entry["state"]), ReplicaState.STARTING),
        started_unix_seconds=float(entry["start_time_s"]),
        pid=entry.get("pid"),
        node_ip=str(entry.get("node_ip") or ""),
    )
