"""Keeps Ray Serve at what the deployment file asks for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from trierarch.adapters.ray_serve import RayServe, ServeApplication
from trierarch.controller.deployment import ModelDeployment
from trierarch.controller.fleet import Fleet
from trierarch.core.errors import Unavailable

_logger = logging.getLogger(__name__)

BuildApplication = Callable[[ModelDeployment, int], dict[str, Any]]
"""Returns a model's application with so many replicas."""


class Deployer:
    """Deploys once and looks for ever.

    Args:
        serve: Ray Serve.
        fleet: Is told what there is.
        build_application: Makes an application from a model.
    """

    def __init__(self, serve: RayServe, fleet: Fleet, build_application: BuildApplication) -> None:
        self._serve = serve
        self._fleet = fleet
        self._build_application = build_application

    async def run(self, interval_seconds: float) -> None:
        """Look at Ray Serve for ever; deploy what is missing or different."""
        is_failing = False
        while True:
            try:
                await self.reconcile()
                if is_failing:
                    _logger.info("Ray Serve answers again")
                is_failing = False
            except Unavailable as error:
                # What serves goes on serving; only its number cannot be changed now.
                if not is_failing:
                    _logger.warning("%s", error)
                is_failing = True
            await asyncio.sleep(interval_seconds)

    async def reconcile(self) -> None:
        """Look once and deploy if something is missing or different.

        Raises:
            Unavailable: If Ray Serve does not answer.
        """
        applications = await self._serve.applications()
        self._fleet.update(applications)
        wanted = []
        is_different = False
        for model in self._fleet.models:
            found = applications.get(model.application)
            target = count_replicas(model, found)
            application = self._build_application(model, target)
            is_different |= found is None or not is_same(found, application)
            wanted.append(application)
        if is_different:
            _logger.info("deploying %s", ", ".join(a["name"] for a in wanted))
            await self._serve.deploy(wanted)
            self._fleet.update(await self._serve.applications())


def count_replicas(model: ModelDeployment, found: ServeApplication | None) -> int:
    """Return how many replicas a deployment begins with: what there was, inside the bounds."""
    before = found.target_replicas if found is not None else None
    low, high = model.scaling.min_replicas, model.scaling.max_replicas
    return low if before is None else min(max(before, low), high)


def is_same(found: ServeApplication, wanted: dict[str, Any]) -> bool:
    """Return whether an application runs what it should; its number of replicas does not count."""
    have = found.configuration

    def strip(arguments: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in arguments.items() if name != "replicas"}

    return have.get("import_path") == wanted["import_path"] and strip(
        have.get("args") or {}
    ) == strip(wanted["args"])
