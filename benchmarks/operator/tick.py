"""How long the autoscaler takes to decide once for every model deployment of a cluster."""

from __future__ import annotations

import time
from pathlib import Path

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


async def measure_tick(kubeconfig: Path, gateway_url: str) -> dict[str, float]:
    """Decide for everything, several times, and return the time of one pass.

    No other operator may run: two that decide in turns would write at every pass.
    """
    clock = SystemClock()
    api = KubernetesApi(ClusterAccess.find(kubeconfig), "benchmark", clock.monotonic_seconds)
    tracer = Tracer(sample_ratio=0.0, random_bytes=lambda count: bytes([1]) * count, export=None)
    seconds = []
    async with httpx.AsyncClient(trust_env=False) as client:
        settings = OperatorSettings(gateway_admin_url=gateway_url)
        operator = Leader(settings, clock, api, client, None, tracer)
        await operator.resync.once()
        found = operator.cache.all(MODEL_DEPLOYMENTS)
        for _ in range(TICKS):
            began_seconds = time.perf_counter()
            for one in found:
                await operator.autoscaler.reconcile(key_of(one))
            seconds.append(time.perf_counter() - began_seconds)
    await api.close()
    return {
        "tick_deployments": float(len(found)),
        "tick_first_seconds": seconds[0],
        "tick_seconds": max(seconds[1:]),
    }
