"""The autoscaler of embedded mode: every model of the deployment file, at every interval."""

from __future__ import annotations

import asyncio
import dataclasses
import logging

from trierarch.adapters.ray_serve import RayServe
from trierarch.autoscaling.decision import ScalingDecision
from trierarch.controller.deciding import Decider, Subject, VariantSubject
from trierarch.controller.deployment import ModelDeployment
from trierarch.controller.fleet import Fleet
from trierarch.core.errors import Unavailable
from trierarch.core.identifiers import ModelName, VariantName
from trierarch.serving.names import DEPLOYMENT_NAME

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Autoscaler:
    """Decides for every model of a fleet, for ever.

    Attributes:
        decider: Makes decisions.
        serve: Carries them out.
        fleet: What exists.
        interval_seconds: Between two decisions.
    """

    decider: Decider
    serve: RayServe
    fleet: Fleet
    interval_seconds: float

    async def run(self) -> None:
        """Decide at every interval."""
        while True:
            await asyncio.sleep(self.interval_seconds)
            if self.fleet.applications is None:
                continue
            document = await self.decider.ask_gateway()
            for model in self.fleet.models:
                if self.fleet.application(model) is not None:
                    await self.decide_once(model, document)

    async def decide_once(
        self, model: ModelDeployment, document: dict[str, object] | None
    ) -> ScalingDecision:
        """Make one decision and act on it.

        Args:
            model: For which.
            document: The gateway's signals; None if it did not answer.
        """
        variant = VariantSubject(
            name=VariantName(model.engine.variant),
            replicas=self.fleet.replicas(model),
            accelerators=model.accelerators,
        )
        subject = Subject(
            deployment=model.deployment,
            model=ModelName(model.name),
            spec=model.build_spec(self.interval_seconds),
            variants=(variant,),
        )

        async def act(decision: ScalingDecision) -> None:
            await self._act(model, decision)

        return await self.decider.decide(subject, document, act)

    async def _act(self, model: ModelDeployment, decision: ScalingDecision) -> None:
        application = self.fleet.application(model)
        if application is None or application.target_replicas in (None, decision.desired_replicas):
            return
        try:
            await self.serve.scale(model.application, DEPLOYMENT_NAME, decision.desired_replicas)
        except Unavailable as error:
            # The next decision finds the same difference and tries again.
            _logger.warning("decision %s was not carried out: %s", decision.id, error)
