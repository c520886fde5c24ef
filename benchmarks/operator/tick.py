"""How long the autoscaler takes to decide once for every model deployment of a cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from trierarch.adapters.kubernetes import ClusterAccess, KubernetesApi
from trierarch.core.clock import SystemClock
from trierarch.observability.tracing import Tracer
from trierarch.settings.operator import OperatorSettings
from trierarch_operators.object_cache import key_of
from trierarch_operators.process import Operator
from trierarch_operators.resources import MODEL_DEPLOYMENTS

TICKS = 4
"""The first one fills memories; the slowest of the others counts."""


class Leader(Operator):
    """Decides without a Lease, which is not what is measured."""

    def may_act(self) -> bool:
        """Always."""
        return True


class Gateway(httpx.AsyncBaseTransport):
    """Answers as the gateway's admin port does, for all models at once."""

    def __init__(self) -> None:
        self.models: Sequence[str] = ()
        self._arrivals = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return signals of a gateway at which a few requests wait."""
        self._arrivals += 10
        entry: dict[str, Any] = {
            "arrivals_total": self._arrivals,
            "completed_total": self._arrivals,
            "ended_total": {},
            "tokens_total": {"input": 100 * self._arrivals, "output": 50 * self._arrivals},
            "waiting": {"priority": 0, "default": 2, "flex": 0},
            "waiting_tokens": {"priority": 0, "default": 200, "flex": 0},
            "in_flight": 3,
            "queue_wait_seconds": None,
            "ttft_seconds": None,
            "tpot_seconds": None,
        }
        document = {"at": time.time(), "models": dict.fromkeys(self.models, entry)}
        return httpx.Response(200, json=document, request=request)


async def measure_tick(kubeconfig: Path) -> dict[str, float]:
    """Decide for everything, several times, and return the time of one pass."""
    clock = SystemClock()
    api = KubernetesApi(ClusterAccess.find(kubeconfig), "benchmark", clock.monotonic_seconds)
    tracer = Tracer(sample_ratio=0.0, random_bytes=lambda count: bytes([1]) * count, export=None)
    gateway = Gateway()
    seconds = []
    async with httpx.AsyncClient(transport=gateway) as client:
        settings = OperatorSettings(gateway_admin_url="http://gateway")
        operator = Leader(settings, clock, api, client, None, tracer)
        await operator.resync.once()
        found = operator.cache.all(MODEL_DEPLOYMENTS)
        gateway.models = [one["spec"]["model"]["name"] for one in found]
        for _ in range(TICKS):
            began_seconds = time.perf_counter()
            for one in found:
                await operator.autoscaler.reconcile(key_of(one))
            seconds.append(time.perf_counter() - began_seconds)
    await api.close()
    return {
        "autoscaler_first_tick_seconds": seconds[0],
        "autoscaler_tick_seconds": max(seconds[1:]),
    }
