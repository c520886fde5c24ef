"""What the controller knows now: the one mutable picture that its loops share."""

from __future__ import annotations

import dataclasses
from typing import Any

from trierarch.adapters.ray_serve import ServeApplication
from trierarch.controller.accounting import Priced
from trierarch.controller.admissions import AdmissionBook
from trierarch.controller.deployment import ModelDeployment
from trierarch.controller.replica_records import Announcement, Announcements, join_replica
from trierarch.core.clock import Clock
from trierarch.core.identifiers import ModelName, VariantName
from trierarch.core.replicas import ReplicaEndpoint, ReplicaState

_BROKEN = frozenset({"DEPLOY_FAILED"})


class Fleet:
    """Models, their replicas, and what replicas say of themselves.

    Args:
        models: What is to run.
        clock: For ages.

    Attributes:
        announcements: Last words of every replica.
        admissions: Last words on every model's lanes.
        applications: Ray Serve's last answer; None before the first.
    """

    def __init__(self, models: tuple[ModelDeployment, ...], clock: Clock) -> None:
        self.models = models
        self.announcements = Announcements()
        self.applications: dict[str, ServeApplication] | None = None
        self.admissions = AdmissionBook(clock)
        self._clock = clock

    @property
    def is_known(self) -> bool:
        """Whether Ray Serve has answered."""
        return self.applications is not None

    def add(self, announcement: Announcement) -> None:
        """Take what a replica says of itself."""
        self.announcements.add(announcement)

    def update(self, applications: dict[str, ServeApplication]) -> None:
        """Take Ray Serve's latest answer."""
        self.applications = applications
        living = [r.replica_id for app in applications.values() for r in app.replicas]
        self.announcements.forget(living, self._clock.monotonic_seconds())

    def application(self, model: ModelDeployment) -> ServeApplication | None:
        """Return a model's application; None if it is not known to exist."""
        return (self.applications or {}).get(model.application)

    def replicas(self, model: ModelDeployment) -> list[ReplicaEndpoint]:
        """Return a model's replicas as they are now."""
        application = self.application(model)
        if application is None:
            return []
        now_seconds = self._clock.monotonic_seconds()
        return [
            join_replica(
                replica,
                self.announcements.get(replica.replica_id),
                ModelName(model.name),
                VariantName(model.engine.variant),
                now_seconds,
            )
            for replica in application.replicas
        ]

    def priced(self) -> list[Priced] | None:
        """Return all replicas with what prices them; None before Ray Serve has answered."""
        if self.applications is None:
            return None
        return [
            Priced(
                model=ModelName(model.name),
                variant=VariantName(model.engine.variant),
                replicas=self.replicas(model),
                accelerator=model.accelerator,
                accelerators=model.accelerators,
            )
            for model in self.models
        ]

    def replicas_document(self) -> dict[str, Any]:
        """Return the list that gateways read."""
        return {
            "replicas": [
                {**dataclasses.asdict(replica), "state": replica.state.value}
                for model in self.models
                for replica in self.replicas(model)
            ],
            "models": [model.name for model in self.models],
            "admissions": self.admissions.document(),
        }

    def status_document(self) -> dict[str, Any]:
        """Return what people and the supervisor want to know."""
        failed = next((f for model in self.models if (f := self._failure(model))), None)
        models = [self._describe(model) for model in self.models]
        if self.applications is None:
            phase = "waiting for Ray Serve"
        elif any(model["ready"] < model["desired"] for model in models):
            phase = "starting replicas"
        else:
            phase = "serving"
        return {"phase": phase, "models": models, "failed": failed}

    def _describe(self, model: ModelDeployment) -> dict[str, Any]:
        replicas = self.replicas(model)
        counts = {s: sum(r.state is s for r in replicas) for s in ReplicaState}
        application = self.application(model)
        target = application.target_replicas if application is not None else None
        unready = next((r for r in replicas if r.state is not ReplicaState.READY), None)
        announcement = unready and self.announcements.get(unready.replica_id)
        return {
            "name": model.name,
            "desired": model.scaling.min_replicas if target is None else target,
            "ready": counts[ReplicaState.READY],
            "starting": counts[ReplicaState.STARTING],
            "draining": counts[ReplicaState.DRAINING],
            "reason": unready.reason if unready is not None else "",
            "message": announcement.message if announcement else "",
        }

    def _failure(self, model: ModelDeployment) -> str | None:
        """Return why a model will not come up by itself; None if it may."""
        application = self.application(model)
        if application is None or application.status not in _BROKEN:
            return None
        for replica in application.replicas:
            said = self.announcements.get(replica.replica_id)
            if said is not None and said.message:
                return f"{model.name} cannot start: {said.message}"
        for line in reversed(application.message.splitlines()):
            if line.strip():
                return f"{model.name} cannot start: {line.strip()}"
        return f"{model.name} cannot start; see Ray Serve's log of its replica"
