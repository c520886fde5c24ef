"""The controller as a process: its loops side by side, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import Any

import httpx

from trierarch.adapters.http_server import build_http_server
from trierarch.adapters.ledger import Ledger
from trierarch.adapters.ray_serve import RayServe
from trierarch.controller.accounting import Accountant
from trierarch.controller.deciding import Decider, DecidingParts
from trierarch.controller.deploying import Deployer
from trierarch.controller.deployment import ModelDeployment, ModelDeploymentFile
from trierarch.controller.fleet import Fleet
from trierarch.controller.scaling import Autoscaler
from trierarch.controller.server import build_app, expect_token
from trierarch.controller.telemetry import ControllerMetrics, build_tracer
from trierarch.core.clock import Clock, SystemClock
from trierarch.core.errors import InvalidInput
from trierarch.observability.logging import configure_logging
from trierarch.settings.controller import ControllerSettings

_logger = logging.getLogger(__name__)

LOCALHOST = "127.0.0.1"


def run(settings: ControllerSettings, clock: Clock | None = None) -> None:
    """Run the controller until SIGTERM or SIGINT.

    Raises:
        InvalidInput: If a file it is configured by cannot be read.
        TrierarchError: If something it needs does not answer.
    """
    clock = clock or SystemClock()
    configure_logging(settings.log_level)
    logging.getLogger("httpx").setLevel("WARNING")
    models = ModelDeploymentFile.read(settings.deployment_file).models
    token = _read_token(settings)
    ledger = Ledger.open(settings.ledger_url, clock)
    try:
        asyncio.run(_serve(settings, models, token, ledger, clock))
    finally:
        ledger.close()


def _read_token(settings: ControllerSettings) -> str:
    try:
        return settings.token_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{settings.token_file} cannot be read: {error}") from error


async def _serve(
    settings: ControllerSettings,
    models: tuple[ModelDeployment, ...],
    token: str,
    ledger: Ledger,
    clock: Clock,
) -> None:
    metrics = ControllerMetrics()
    fleet = Fleet(models, clock)
    async with contextlib.AsyncExitStack() as stack:
        # Everything it talks to is on this machine; a proxy would only be in the way.
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        serve = RayServe(client, settings.ray_dashboard_url)
        announce_url = f"http://{LOCALHOST}:{settings.port}/announcements"

        def build_application(model: ModelDeployment, replicas: int) -> dict[str, Any]:
            return model.build_application(
                replicas, announce_url, settings.token_file, settings.otlp_endpoint
            )

        deployer = Deployer(serve, fleet, build_application)
        accountant = Accountant(ledger, fleet.priced, metrics, settings.cost_window_seconds)
        decider = Decider(
            DecidingParts(
                client=client,
                ledger=ledger,
                metrics=metrics,
                tracer=build_tracer(settings.otlp_endpoint, stack),
                clock=clock,
                admissions=fleet.admissions,
                gateway_admin_url=settings.gateway_admin_url,
                cost_window_seconds=settings.cost_window_seconds,
            )
        )
        autoscaler = Autoscaler(decider, serve, fleet, settings.decision_interval_seconds)
        server = build_http_server(
            build_app(fleet, metrics, clock, expect_token(token)),
            host=LOCALHOST,
            port=settings.port,
        )
        await _run_until_signal(
            server.serve(),
            deployer.run(settings.look_interval_seconds),
            accountant.run_capacity(settings.capacity_interval_seconds),
            accountant.run_allocation(settings.allocation_interval_seconds),
            autoscaler.run(),
        )


async def _run_until_signal(*loops: Any) -> None:
    """Run loops until SIGTERM or SIGINT; a loop that fails ends all of them.

    Raises:
        Exception: Of the loop that failed.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tasks = [asyncio.ensure_future(work) for work in loops]
    waiter = asyncio.ensure_future(stop.wait())
    await asyncio.wait([*tasks, waiter], return_when=asyncio.FIRST_COMPLETED)
    failed = [task for task in tasks if task.done()]
    for task in (*tasks, waiter):
        task.cancel()
    await asyncio.gather(*tasks, waiter, return_exceptions=True)
    for task in failed:
        task.result()
    _logger.info("controller ended")
