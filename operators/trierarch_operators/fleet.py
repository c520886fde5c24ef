"""All model deployments of this cluster as decisions, gateways and people see them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from trierarch.adapters.kubernetes import Resource
from trierarch.api.v1alpha1.accelerator_class import AcceleratorClass, AcceleratorClassSpec
from trierarch.api.v1alpha1.model_deployment import ModelDeployment, Variant
from trierarch.controller.admissions import AdmissionBook
from trierarch.controller.replica_records import Announcement
from trierarch.core.clock import Clock
from trierarch.core.errors import InvalidInput
from trierarch.core.replicas import ReplicaEndpoint, ReplicaState
from trierarch_operators.announced import AnnouncementBook
from trierarch_operators.group_plan import (
    GroupPlan,
    choose_layout,
    find_class,
    plan_group,
    price_key,
)
from trierarch_operators.groups import Group, group_pods, replica_endpoints
from trierarch_operators.labels import DEPLOYMENT_LABEL, ROLE_LABEL, VARIANT_LABEL
from trierarch_operators.object_cache import Key, Object, ObjectCache, key_of, version_of
from trierarch_operators.resources import (
    ACCELERATOR_CLASSES,
    MODEL_DEPLOYMENTS,
    PODS,
    RAY_CLUSTERS,
    RAY_SERVICES,
)
from trierarch_operators.succession import DELETING, find_leaving, send_away

HEAR_SECONDS = 3.0
"""Every replica speaks each second; one second more may pass until it knows our address."""


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedVariant:
    """A variant that this cluster can run.

    Attributes:
        price_key: The accelerator's name in price books.
    """

    variant: Variant
    accelerator_class: AcceleratorClassSpec
    price_key: str
    plan: GroupPlan


class ClusterFleet:
    """Plans of variants, and their replicas from pods and announcements.

    Args:
        cache: What the cluster looks like.
        announced: What replicas say.
        clock: Time.
        on_announcement: Called with the address of the pod whose replica has a new state.

    Attributes:
        admissions: Last words on every model's lanes, of the process that decides.
    """

    def __init__(
        self,
        cache: ObjectCache,
        announced: AnnouncementBook,
        clock: Clock,
        on_announcement: Callable[[str], None],
    ) -> None:
        self.admissions = AdmissionBook(clock)
        self._known_from_seconds = float("inf")
        self._cache = cache
        self._announced = announced
        self._clock = clock
        self._on_announcement = on_announcement
        self._plans: dict[Key, dict[str, tuple[object, PlannedVariant]]] = {}
        self._read: dict[Key, tuple[Object, ModelDeployment]] = {}

    @property
    def is_known(self) -> bool:
        """Whether the cluster has been looked at, and its replicas had time to speak."""
        return self._clock.monotonic_seconds() >= self._known_from_seconds

    def begin(self, *, hears_replicas: bool) -> None:
        """Say that the cache is filled.

        Until replicas that run have spoken they look as if they did not serve, and gateways
        that read so would stop to send to them.
        """
        wait = hears_replicas and any(self._cache.all(PODS))
        self._known_from_seconds = self._clock.monotonic_seconds() + wait * HEAR_SECONDS

    def read(self, found: Object) -> ModelDeployment:
        """Return a model deployment with types.

        Raises:
            ValidationError: If it holds what its definition refuses.
        """
        key = key_of(found)
        known = self._read.get(key)
        if known is None or known[0] is not found:
            known = self._read[key] = (found, ModelDeployment.model_validate(found))
        return known[1]

    def plan(self, found: Object, deployment: ModelDeployment, variant: Variant) -> PlannedVariant:
        """Return how a variant is run in this cluster.

        Raises:
            CannotRun: If it cannot be; says why.
        """
        metadata = found["metadata"]
        classes = tuple(self._cache.all(ACCELERATOR_CLASSES))
        basis = (metadata["uid"], metadata["generation"], tuple(map(version_of, classes)))
        plans = self._plans.setdefault(key_of(found), {})
        known = plans.get(variant.name)
        # A layout of the planner takes milliseconds, and every look asks for it.
        if known is not None and known[0] == basis:
            return known[1]
        name, accelerator_class = find_class(
            variant, {key_of(one).name: AcceleratorClass.model_validate(one) for one in classes}
        )
        layout = choose_layout(deployment.spec, variant, (name, accelerator_class))
        spec = accelerator_class.spec
        what = f"variants[{variant.name}]"
        plan = plan_group(layout, spec.accelerators_per_node, what=what)
        planned = PlannedVariant(variant, spec, price_key(name, spec), plan)
        plans[variant.name] = (basis, planned)
        return planned

    def forget(self, key: Key) -> None:
        """Drop what is remembered of a deployment that is gone."""
        self._read.pop(key, None)
        self._plans.pop(key, None)

    def groups(self, key: Key, variant: str) -> list[Group]:
        """Return the groups of one variant that have pods."""
        known = self._plans.get(key, {}).get(variant)
        pods = self._pods(key, variant, "engine")
        addresses = [ip for pod in pods if (ip := pod.get("status", {}).get("podIP"))]
        hosts = 1 if known is None else known[1].plan.hosts
        announced = self._announced
        groups = group_pods(pods, hosts, announced.at(addresses), announced.failures_at(addresses))
        deployment = self._cache.get(MODEL_DEPLOYMENTS, key)
        if deployment is not None and deployment["metadata"].get("deletionTimestamp"):
            return send_away(groups, {group.cluster: DELETING for group in groups})
        clusters = self.clusters(key, variant)
        service = next(self._of_variant(RAY_SERVICES, key, variant), None)
        return send_away(groups, find_leaving(service, clusters, groups))

    def clusters(self, key: Key, variant: str) -> list[Object]:
        """Return the Ray clusters of one variant."""
        return list(self._of_variant(RAY_CLUSTERS, key, variant))

    def _of_variant(self, resource: Resource, key: Key, variant: str) -> Iterator[Object]:
        for found in self._cache.labelled(resource, DEPLOYMENT_LABEL, key):
            if found["metadata"]["labels"].get(VARIANT_LABEL) == variant:
                yield found

    def heads(self, key: Key, variant: str) -> list[Object]:
        """Return the pods of the Ray heads of one variant."""
        return self._pods(key, variant, "head")

    def _pods(self, key: Key, variant: str, role: str) -> list[Object]:
        return [
            pod
            for pod in self._of_variant(PODS, key, variant)
            if pod["metadata"]["labels"].get(ROLE_LABEL) == role
        ]

    def replicas(self, key: Key, model: str, variant: str) -> list[ReplicaEndpoint]:
        """Return the replicas of one variant."""
        now_seconds = self._clock.monotonic_seconds()
        return replica_endpoints(self.groups(key, variant), model, variant, now_seconds)

    def add(self, announcement: Announcement) -> None:
        """Take what a replica says of itself."""
        if self._announced.add(announcement):
            self._on_announcement(announcement.address)

    def planned(self) -> list[tuple[Object, ModelDeployment, PlannedVariant]]:
        """Return every variant that can be run, of every deployment that can be read."""
        found = []
        for one in self._cache.all(MODEL_DEPLOYMENTS):
            try:
                deployment = self.read(one)
            except ValidationError:
                continue
            for variant in deployment.spec.variants:
                try:
                    found.append((one, deployment, self.plan(one, deployment, variant)))
                except InvalidInput:
                    continue
        return found

    def _endpoints(self, found: Object) -> list[ReplicaEndpoint]:
        spec = found["spec"]
        return [
            endpoint
            for variant in spec["variants"]
            for endpoint in self.replicas(key_of(found), spec["model"]["name"], variant["name"])
        ]

    def replicas_document(self) -> dict[str, Any]:
        """Return the list that gateways read."""
        deployments = self._cache.all(MODEL_DEPLOYMENTS)
        return {
            "replicas": [
                {**dataclasses.asdict(endpoint), "state": endpoint.state.value}
                for found in deployments
                for endpoint in self._endpoints(found)
            ],
            "models": sorted({found["spec"]["model"]["name"] for found in deployments}),
            "objectives": {
                found["spec"]["model"]["name"]: {
                    "ttft_seconds": slo.get("ttftSeconds"),
                    "tpot_seconds": slo.get("tpotSeconds"),
                }
                for found in deployments
                if (slo := found["spec"].get("scaling", {}).get("slo"))
            },
            "admissions": self.admissions.document(),
        }

    def status_document(self) -> dict[str, Any]:
        """Return what people want to know."""
        models = [self._describe(found) for found in self._cache.all(MODEL_DEPLOYMENTS)]
        waits = any(model["ready"] < model["desired"] for model in models)
        return {
            "phase": "starting replicas" if waits else "serving",
            "models": sorted(models, key=lambda model: str(model["deployment"])),
            "failed": None,
        }

    def _describe(self, found: Object) -> Mapping[str, Any]:
        endpoints = self._endpoints(found)
        counts = {s: sum(e.state is s for e in endpoints) for s in ReplicaState}
        return {
            "name": found["spec"]["model"]["name"],
            "deployment": str(key_of(found)),
            "desired": (found.get("status") or {}).get("desiredReplicas", 0),
            "ready": counts[ReplicaState.READY],
            "starting": counts[ReplicaState.STARTING],
            "draining": counts[ReplicaState.DRAINING],
        }
