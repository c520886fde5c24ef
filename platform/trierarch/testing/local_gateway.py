"""A whole gateway on free local ports, connected to fakes, in its own thread.

The data path is the real one, sockets and all; only the ledger and the
controller are replaced.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import uvloop

from trierarch.core.clock import SystemClock
from trierarch.core.replicas import ReplicaEndpoint
from trierarch.gateway.access_log import AccessEntry
from trierarch.gateway.handler import GatewayParts
from trierarch.gateway.server import GatewayServer, bind
from trierarch.gateway.telemetry import GatewayMetrics
from trierarch.observability.tracing import Tracer, start_otlp_writer
from trierarch.settings.gateway import GatewaySettings
from trierarch.testing.books import (
    FixedRateCard,
    InMemoryKeySource,
    InMemoryTenants,
    InMemoryUsageSink,
)
from trierarch.testing.replica_source import StaticReplicaSource

TEST_KEY = "test-key"
"""A live key of the tenant "tenant"."""


class LocalGateway:
    """Runs while used as a context manager.

    Args:
        replicas: First replica list; edit ``replica_source`` later.
        settings: How it runs; ports are replaced by free ones. With a ``replicas_url`` the list
            is read from there.
        models: Models that exist even without a replica.

    Attributes:
        keys: Add and revoke keys here.
        usage: What was recorded.
        tenants: Tenants' terms; set ``tenants.read`` to others.
        access: Access log entries.
        replica_source: The replica list.
        server: The gateway; touch it only from its own loop.
    """

    def __init__(
        self,
        replicas: Iterable[ReplicaEndpoint] = (),
        settings: GatewaySettings | None = None,
        *,
        models: Iterable[str] = (),
    ) -> None:
        self.settings = settings or GatewaySettings(replica_poll_interval_seconds=0.05)
        self.keys = InMemoryKeySource()
        self.keys.add(TEST_KEY)
        self.usage = InMemoryUsageSink()
        self.tenants = InMemoryTenants()
        self.access: list[AccessEntry] = []
        self.replica_source = StaticReplicaSource(replicas, models)
        self.metrics = GatewayMetrics()
        self._data = bind("127.0.0.1", 0, "test")
        self._admin = bind("127.0.0.1", 0, "test")
        self.port: int = self._data.getsockname()[1]
        self.admin_port: int = self._admin.getsockname()[1]
        self.server: GatewayServer | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="local gateway", daemon=True)

    @property
    def base_url(self) -> str:
        """For an OpenAI client."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def admin_url(self) -> str:
        """Of the admin port."""
        return f"http://127.0.0.1:{self.admin_port}"

    def _run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as error:
            self._error = error
            self._started.set()
            raise

    async def _serve(self) -> None:
        clock = SystemClock()
        writer = None
        if self.settings.otlp_endpoint:
            writer = start_otlp_writer(
                self.settings.otlp_endpoint,
                service_name="trierarch-gateway",
                service_version="test",
                on_drop=lambda count: self.metrics.count_dropped("spans", count),
            )
        server = GatewayServer(
            self.settings,
            GatewayParts(
                keys=self.keys,
                rates=FixedRateCard(),
                usage=self.usage,
                tenant_usage=self.usage,
                tenants=self.tenants,
                clock=clock,
                random_bytes=os.urandom,
                write_access=self.access.append,
            ),
            self.metrics,
            Tracer(
                sample_ratio=self.settings.trace_sample_ratio,
                random_bytes=os.urandom,
                export=writer.put if writer else None,
            ),
            replica_source=None if self.settings.replicas_url else self.replica_source,
        )
        self.server = server
        self.loop = asyncio.get_running_loop()
        await server.start(self._data, self._admin)
        self._started.set()
        await self._stop.wait()
        await server.stop()
        if writer is not None:
            writer.close()

    def begin_stop(self) -> None:
        """Do what SIGTERM does; return at once."""
        if self.loop is not None and self.loop.is_running():
            self.loop.call_soon_threadsafe(self._stop.set)

    def join(self, timeout_seconds: float = 15.0) -> bool:
        """Wait for the end and return whether it came."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(10.0)
        if self._error is not None:
            raise self._error
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.begin_stop()
        self.join()
        self._data.close()
        self._admin.close()
