"""The operator as a process: watches, workers, the Lease and the HTTP surface side by side."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx
import kopf
import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trierarch.adapters.http_server import HttpServer, build_http_server
from trierarch.adapters.kubernetes import ClusterAccess, KubernetesApi, Resource
from trierarch.adapters.ledger import Ledger
from trierarch.controller.accounting import Accountant
from trierarch.controller.deciding import Decider, DecidingParts
from trierarch.controller.server import build_app
from trierarch.controller.telemetry import ControllerMetrics, build_tracer
from trierarch.core.clock import Clock, SystemClock
from trierarch.core.errors import InvalidInput, TrierarchError
from trierarch.observability.logging import configure_logging
from trierarch.observability.tracing import Tracer
from trierarch.settings.operator import OperatorSettings
from trierarch_operators.announced import AnnouncementBook
from trierarch_operators.autoscaler.reconcile import AutoscalerReconciler
from trierarch_operators.context import ControllerContext
from trierarch_operators.cost_controller.reconcile import CostReconciler
from trierarch_operators.events import EventRecorder
from trierarch_operators.fleet import ClusterFleet
from trierarch_operators.labels import APPROVAL_ANNOTATION
from trierarch_operators.leader_election import LeaderElection
from trierarch_operators.model_deployment.manifests import RaySettings
from trierarch_operators.model_deployment.pod_templates import PodSettings
from trierarch_operators.model_deployment.reconcile import Reconciler
from trierarch_operators.model_deployment.reporting import StatusReporter
from trierarch_operators.model_deployment.retirement import ClusterRetirement
from trierarch_operators.model_deployment.rollout import TrialSettings
from trierarch_operators.model_deployment.scaling import ClusterScaler
from trierarch_operators.object_cache import Key, Object, ObjectCache, key_of
from trierarch_operators.resources import (
    ACCELERATOR_CLASSES,
    LABELLED,
    MODEL_DEPLOYMENTS,
    PODS,
    TENANTS,
)
from trierarch_operators.tenants.reconcile import TenantReconciler
from trierarch_operators.token_reviews import TokenReviewer
from trierarch_operators.watching import (
    Resync,
    build_registry,
    build_settings,
    owner_of,
    wait_for_kinds,
)
from trierarch_operators.work_queue import WorkQueue

_logger = logging.getLogger(__name__)

FIELD_MANAGER = "trierarch-operator"

_FORGET_INTERVAL_SECONDS = 30.0
_FLUSH_SECONDS = 2.0
_DECIDE_AFTER_SECONDS = 1.0


def run(settings: OperatorSettings, clock: Clock | None = None) -> None:
    """Run the operator until SIGTERM or SIGINT.

    Raises:
        InvalidInput: If a file it is configured by cannot be read, or there is no cluster.
    """
    configure_logging(settings.log_level)
    for name in ("httpx", "kopf"):
        logging.getLogger(name).setLevel("WARNING")
    asyncio.run(_serve(settings, clock or SystemClock(), ClusterAccess.find()))


def build_ray_settings(settings: OperatorSettings) -> RaySettings:
    """Return what is the same for all Ray clusters of this installation.

    Raises:
        InvalidInput: If the pod template cannot be read.
    """
    return RaySettings(
        pods=PodSettings(
            image=settings.engine_image,
            download_image=settings.download_image,
            huggingface_token_secret=settings.huggingface_token_secret,
            service_account=settings.engine_service_account,
            drain_seconds=settings.drain_seconds,
            template=_read_template(settings.pod_template_file),
        ),
        ray_version=settings.ray_version,
        announce_url=settings.announce_url,
        otlp_endpoint=settings.otlp_endpoint,
    )


def _read_template(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{path} holds no pod template")
    return found


class Operator:
    """The parts of one process.

    Args:
        settings: How it behaves.
        clock: Time.
        api: The API server.
        client: For the gateway and the engines.
        ledger: The books; None where there are none.
        tracer: Of decisions.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        clock: Clock,
        api: KubernetesApi,
        client: httpx.AsyncClient,
        ledger: Ledger | None,
        tracer: Tracer,
    ) -> None:
        identity = settings.identity or f"{socket.gethostname()}-{os.getpid()}"
        self.settings = settings
        self.metrics = ControllerMetrics()
        self.cache = ObjectCache(self._on_change)
        self.announced = AnnouncementBook()
        self._addresses: dict[str, Key] = {}
        self._clock = clock
        self.election = LeaderElection(
            api, settings.namespace, identity, settings.lease_seconds, clock, self._on_lead
        )
        events = EventRecorder(api, "trierarch.dev/model-deployment", identity, clock)
        decision_events = EventRecorder(api, "trierarch.dev/autoscaler", identity, clock)
        tenant_events = EventRecorder(api, "trierarch.dev/tenants", identity, clock)
        self._recorders = (events, decision_events, tenant_events)
        self._reporter = StatusReporter(api, self.cache, events, clock)
        self._scaler = ClusterScaler(
            api,
            self.cache,
            events,
            clock,
            settings.placement_grace_seconds,
            settings.placement_pause_seconds,
            hears_replicas=bool(settings.announce_url),
        )
        self.fleet = ClusterFleet(self.cache, self.announced, clock, self._on_announcement)
        context = ControllerContext(api, self.cache, self.fleet, clock, self.may_act)
        decider = Decider(
            DecidingParts(
                client=client,
                ledger=ledger,
                metrics=self.metrics,
                tracer=tracer,
                clock=clock,
                admissions=self.fleet.admissions,
                gateway_admin_url=settings.gateway_admin_url,
                cost_window_seconds=settings.cost_window_seconds,
            )
        )
        self.reconciler = Reconciler(
            context,
            self._scaler,
            ClusterRetirement(api, events, clock),
            lambda key, variant: decider.outcomes(str(key), variant),
            events,
            self._reporter,
            build_ray_settings(settings),
            TrialSettings(settings.update_observation_seconds, settings.update_deadline_seconds),
            settings.drain_seconds,
        )
        self.queue = WorkQueue(self.reconciler.reconcile)
        self.costs = CostReconciler(context, ledger, settings.cost_window_seconds)
        self.accountant = None
        if ledger is not None:
            self.accountant = Accountant(
                ledger, self.costs.priced, self.metrics, settings.cost_window_seconds
            )
        self.tenants = TenantReconciler(
            context, ledger, self.metrics, tenant_events, self.costs.prices
        )
        self.autoscaler = AutoscalerReconciler(
            context,
            decider,
            decision_events,
            self.costs.prices,
            self.tenants.budgets_of,
        )
        self.decisions = WorkQueue(self.autoscaler.reconcile)
        self._decided: dict[Key, object] = {}
        self.resync = Resync(api, self.cache, settings.namespaces)
        self._reviewer = TokenReviewer(api, settings.engine_service_account, clock)

    def may_act(self) -> bool:
        """Return whether this process may change anything now."""
        return self.election.leads

    def build_server(self) -> HttpServer:
        """Return the HTTP surface."""
        app = build_app(self.fleet, self.metrics, self._clock, self._reviewer.authenticate)

        async def readyz(_request: Request) -> Response:
            body = {"synced": self.fleet.is_known, "leads": self.election.leads}
            return JSONResponse(body, status_code=200 if self.fleet.is_known else 503)

        app.router.routes.append(Route("/readyz", readyz))
        return build_http_server(app, host=self.settings.host, port=self.settings.port)

    async def flush(self) -> None:
        """Write reports and Events that still wait, before the process ends."""
        if self.may_act():
            try:
                await asyncio.wait_for(self._reporter.flush(), _FLUSH_SECONDS)
            except (TimeoutError, TrierarchError) as error:
                _logger.warning("the last reports were not written: %r", error)
        await asyncio.gather(*(recorder.flush() for recorder in self._recorders))

    async def forget(self) -> None:
        """Drop what replicas said that are gone, for ever."""
        while True:
            await asyncio.sleep(_FORGET_INTERVAL_SECONDS)
            self.announced.forget(self._clock.monotonic_seconds())

    def _on_change(self, resource: Resource, found: Object) -> None:
        if resource == MODEL_DEPLOYMENTS:
            key = key_of(found)
            if self.cache.get(MODEL_DEPLOYMENTS, key) is None:
                self.queue.forget(key)
                self.decisions.forget(key)
                self.fleet.forget(key)
                self.reconciler.forget(key)
                self._reporter.forget(key)
                self._decided.pop(key, None)
                return
            self.queue.add(key)
            metadata = found["metadata"]
            asked = (metadata["uid"], metadata["generation"], _approval(found))
            if self._decided.get(key) != asked:
                # A status that changes is no reason to decide again before its time.
                self._decided[key] = asked
                # The RayService comes first: that is what people wait for.
                self.decisions.add(key, _DECIDE_AFTER_SECONDS)
                if "tenant" in found["spec"]:
                    self.tenants.note_change()
            return
        if resource == TENANTS:
            self.tenants.note_change()
            return
        if resource == ACCELERATOR_CLASSES:
            self._look_at_all()
            return
        if resource not in LABELLED:
            return
        owner = owner_of(found)
        if owner is None:
            return
        address = (found.get("status") or {}).get("podIP") if resource == PODS else None
        if address and self.cache.get(PODS, key_of(found)) is not None:
            self._addresses[address] = owner
        elif address and self._addresses.get(address) == owner:
            del self._addresses[address]
        self.queue.add(owner)

    def _on_announcement(self, address: str) -> None:
        owner = self._addresses.get(address)
        if owner is not None:
            self.queue.add(owner)

    def _on_lead(self) -> None:
        self._scaler.begin()
        self.tenants.note_change()
        self._look_at_all()

    def _look_at_all(self) -> None:
        for key in self.cache.keys(MODEL_DEPLOYMENTS):
            self.queue.add(key)
            self.decisions.add(key)

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return everything that runs for ever, beside kopf."""
        settings = self.settings
        loops = [
            self.election.run(),
            self.resync.run(settings.resync_seconds),
            self.forget(),
            self.costs.run(settings.cost_interval_seconds),
            self.tenants.run(settings.cost_interval_seconds),
            self._reporter.work(),
            *(recorder.run() for recorder in self._recorders),
            *(self.queue.work() for _ in range(settings.workers)),
            *(self.decisions.work() for _ in range(settings.workers)),
        ]
        if self.accountant is not None:
            loops.append(self.accountant.run_capacity(settings.capacity_interval_seconds))
            loops.append(self.accountant.run_allocation(settings.cost_interval_seconds))
        return loops


def _approval(found: Object) -> str | None:
    return (found["metadata"].get("annotations") or {}).get(APPROVAL_ANNOTATION)


async def _serve(settings: OperatorSettings, clock: Clock, access: ClusterAccess) -> None:
    async with contextlib.AsyncExitStack() as stack:
        api = KubernetesApi(access, FIELD_MANAGER, clock.monotonic_seconds)
        stack.push_async_callback(api.close)
        # Gateway and engines are inside the cluster; a proxy would only be in the way.
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        ledger = None
        if settings.ledger_url:
            ledger = await asyncio.to_thread(Ledger.open, settings.ledger_url, clock)
            stack.callback(ledger.close)
        tracer = build_tracer(settings.otlp_endpoint, stack)
        operator = Operator(settings, clock, api, client, ledger, tracer)
        server = operator.build_server()
        # Probes are answered while the cluster's own parts are still being installed.
        listening = asyncio.ensure_future(server.serve())
        try:
            await wait_for_kinds(api)
            await operator.resync.once()
            # What is there by now stays: no later collection has to walk through it again.
            gc.freeze()
            operator.fleet.begin(hears_replicas=bool(settings.announce_url))
            watching = kopf.operator(
                registry=build_registry(operator.cache),
                settings=build_settings(),
                standalone=True,
                clusterwide=not settings.namespaces,
                namespaces=settings.namespaces,
            )
            await _run_side_by_side(watching, *operator.loops())
        finally:
            await operator.flush()
            await operator.election.release()
            server.should_exit = True
            await listening
    _logger.info("operator ended")


async def _run_side_by_side(watching: Coroutine[Any, Any, None], *others: Any) -> None:
    """Run until kopf has ended, which a signal makes it do; a part that fails ends all.

    Raises:
        Exception: Of the part that failed.
    """
    tasks = [asyncio.ensure_future(work) for work in (watching, *others)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        if not task.cancelled():
            task.result()
