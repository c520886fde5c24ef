"""The simulated engine in the place of vLLM's, inside a replica."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette

from trierarch.core.clock import SystemClock
from trierarch.serving.simulated_engine import SimulatedEngine
from trierarch.serving.simulated_scheduler import ServiceModel
from trierarch.serving.specification import EngineSpec


class SimulatedReplicaEngine:
    """An engine without weights that a replica can wrap.

    Attributes:
        app: Its HTTP surface.
        max_model_tokens: Longest prompt plus answer.
    """

    def __init__(self, spec: EngineSpec) -> None:
        self.max_model_tokens = spec.max_model_tokens
        service = ServiceModel(
            max_model_tokens=spec.max_model_tokens,
            max_batch=spec.max_running_requests,
        )
        self.app: Starlette = SimulatedEngine(spec.served_name, service, SystemClock()).build_app()
        self._lifespan = self.app.router.lifespan_context(self.app)

    async def start(self) -> None:
        """Start its scheduler, which the application's lifespan holds."""
        await self._lifespan.__aenter__()

    async def check_health(self) -> None:
        """Return: it cannot break."""

    def attach_server(self, server: Any) -> None:
        """Need nothing of the server."""

    async def close(self) -> None:
        """End its scheduler."""
        await self._lifespan.__aexit__(None, None, None)
