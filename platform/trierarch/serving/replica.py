"""One replica: an engine, its own HTTP server, and honest words about its state.

The gateway talks straight to the replica's server, so a token passes no Ray
process on its way. Ray Serve places, replaces and ends replicas. A replica that
Serve ends takes nothing new, lets every running answer finish, and only then
ends its engine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.util import get_node_ip_address

from trierarch import __version__
from trierarch.adapters.http_server import build_http_server
from trierarch.core.clock import SystemClock
from trierarch.core.replicas import DRAINED_REASON, ReplicaState
from trierarch.observability.logging import configure_logging
from trierarch.observability.tracing import Tracer, start_otlp_writer
from trierarch.serving.announcing import AnnouncementTarget, Announcer
from trierarch.serving.expert_group import ExpertGroup, choose_rendezvous
from trierarch.serving.layout import build_vllm_arguments
from trierarch.serving.request_gate import RequestGate
from trierarch.serving.simulated_replica_engine import SimulatedReplicaEngine
from trierarch.serving.specification import EngineSpec
from trierarch.serving.vllm_engine import Engine, VllmEngine

_logger = logging.getLogger(__name__)

DRAIN_QUIET_SECONDS = 1.0
"""After the last answer: a request that is on its way from a gateway that does not know yet
still gets its "elsewhere"."""

_DRAIN_LOOK_SECONDS = 0.05

_LAST_WORD_SECONDS = 1.0


class ReplicaArguments(BaseModel):
    """What a replica is made from; travels as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    engine: EngineSpec
    """What it runs."""
    runner: Literal["vllm", "simulated"] = "vllm"
    """Which engine runs it."""
    announce: AnnouncementTarget | None = None
    """Who is told; None tells nobody, and clients come through Ray Serve's own proxy."""


class Replica:
    """The class that Ray Serve deploys, behind ``serve.ingress``."""

    # Ray Serve awaits the constructor, on the loop that then serves.
    async def __init__(self, arguments: dict[str, Any]) -> None:  # type: ignore[misc]  # see above
        self._arguments = ReplicaArguments.model_validate(arguments)
        self._clock = SystemClock()
        self._state = ReplicaState.STARTING
        self._reason = "LoadingModel"
        self._message = ""
        self._node_address = str(get_node_ip_address())
        self._address = ("", 0)
        self._started_unix_seconds = self._clock.unix_seconds()
        self._ready_unix_seconds: float | None = None
        self._engine: Engine | None = None
        self._group: ExpertGroup | None = None
        self._gate: RequestGate | None = None
        self._announcer: Announcer | None = None
        self._replica_id = str(serve.get_replica_context().replica_id.unique_id)
        configure_logging("INFO")
        if self._arguments.announce is not None:
            self._announcer = Announcer(self._arguments.announce, self._describe, self._clock)
            self._announcer.start()
        try:
            await self._start()
        except BaseException as error:
            self._become(ReplicaState.FAILED, "StartFailed", f"{type(error).__name__}: {error}")
            raise
        self._ready_unix_seconds = self._clock.unix_seconds()
        self._become(ReplicaState.READY, "Serving", "")

    def __serve_build_asgi_app__(self) -> RequestGate:
        """Return the application for clients that come through Ray Serve's proxy."""
        if self._gate is None:
            raise RuntimeError("the replica has not started")
        return self._gate

    async def check_health(self) -> None:
        """Return if the replica serves; asked by Ray Serve, which replaces one that raises.

        Raises:
            RuntimeError: If the server has ended.
            Exception: Of the engine, if it cannot serve.
        """
        if self._engine is None or self._state is ReplicaState.DRAINING:
            return
        try:
            await self._engine.check_health()
            if self._server_task.done():
                raise RuntimeError("the replica's server has ended")
        except Exception as error:
            self._become(ReplicaState.FAILED, "EngineDead", f"{type(error).__name__}: {error}")
            raise

    async def __del__(self) -> None:
        """Drain, then end; awaited by Ray Serve before it ends the process."""
        if self._engine is None or self._gate is None:
            return
        self._gate.is_draining = True
        if self._state is not ReplicaState.FAILED:
            self._become(ReplicaState.DRAINING, "ScaledDown", "")
        quiet_since_seconds = self._clock.monotonic_seconds()
        while self._clock.monotonic_seconds() - quiet_since_seconds < DRAIN_QUIET_SECONDS:
            await asyncio.sleep(_DRAIN_LOOK_SECONDS)
            if self._gate.in_flight and not self._server_task.done():
                quiet_since_seconds = self._clock.monotonic_seconds()
        self._server.should_exit = True
        await self._server_task
        if self._group is not None:
            self._group.close()
        engine, self._engine = self._engine, None
        await engine.close()
        if self._state is not ReplicaState.FAILED:
            self._become(ReplicaState.DRAINING, DRAINED_REASON, "", wait_seconds=_LAST_WORD_SECONDS)
        if self._announcer is not None:
            self._announcer.close()
        _logger.info("replica ended", extra={"replica_id": self._replica_id})

    async def _start(self) -> None:
        spec = self._arguments.engine
        host = self._node_address
        self._engine = await self._start_engine(spec)
        self._gate = RequestGate(
            self._engine.app, self._clock, self._replica_id, self._build_tracer(spec)
        )
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((host, 0))
        listener.listen(1024)
        # Keeps a connection longer than the gateway does, so that the gateway ends it first.
        self._server = build_http_server(self._gate, keep_alive_seconds=75, shutdown_seconds=None)
        self._engine.attach_server(self._server)
        self._server_task = asyncio.create_task(self._server.serve(sockets=[listener]))
        self._address = (host, listener.getsockname()[1])

    async def _start_engine(self, spec: EngineSpec) -> Engine:
        if self._arguments.runner == "simulated":
            simulated = SimulatedReplicaEngine(spec)
            await simulated.start()
            return simulated
        if spec.parallelism.data == 1:
            return await VllmEngine.start(build_vllm_arguments(spec))
        rendezvous = choose_rendezvous()
        self._group = ExpertGroup(spec, rendezvous, self._end_with_group)
        arguments = build_vllm_arguments(spec, rendezvous)
        return await VllmEngine.start(arguments, rendezvous.first_group_port)

    def _end_with_group(self, problem: str) -> None:
        """End this process at once: Ray Serve makes a whole new group."""
        _logger.error("%s", problem, extra={"replica_id": self._replica_id})
        self._become(ReplicaState.FAILED, "RankLost", problem, wait_seconds=1.0)
        os._exit(1)

    def _build_tracer(self, spec: EngineSpec) -> Tracer:
        export = None
        if spec.otlp_traces_endpoint:
            writer = start_otlp_writer(
                spec.otlp_traces_endpoint,
                service_name="trierarch-replica",
                service_version=__version__,
                on_drop=lambda count: _logger.warning("gave up %d traces", count),
            )
            export = writer.put
        # The gateway decides what is sampled; without its word nothing is.
        return Tracer(sample_ratio=0.0, random_bytes=os.urandom, export=export)

    def _become(
        self, state: ReplicaState, reason: str, message: str, *, wait_seconds: float = 0.0
    ) -> None:
        self._state, self._reason, self._message = state, reason, message
        _logger.info(
            "replica is %s", state.value, extra={"replica_id": self._replica_id, "reason": reason}
        )
        if self._announcer is not None:
            self._announcer.tell(wait_seconds=wait_seconds)

    def _describe(self) -> dict[str, Any]:
        spec = self._arguments.engine
        host, port = self._address
        return {
            "replica_id": self._replica_id,
            "model": spec.served_name,
            "variant": spec.variant,
            "state": self._state.value,
            "address": self._node_address,
            "host": host,
            "port": port,
            "pid": os.getpid(),
            "started_unix_seconds": self._started_unix_seconds,
            "ready_unix_seconds": self._ready_unix_seconds,
            "reason": self._reason,
            "message": self._message,
            "max_model_tokens": self._engine.max_model_tokens if self._engine else 0,
            "in_flight": self._gate.in_flight if self._gate else 0,
        }
