"""Makes the cluster what a model deployment asks for, one object at a time.

Reads the cache only, and writes only what differs from it. Everything decided here
follows from what is seen, so a restart repeats nothing that is done.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import yaml
from pydantic import ValidationError

from trierarch.adapters.kubernetes import Refused
from trierarch.api.v1alpha1 import GROUP
from trierarch.api.v1alpha1.model_deployment import ModelDeployment, Variant
from trierarch.controller.outcomes import Outcome
from trierarch.core.errors import InvalidInput
from trierarch.core.replicas import ReplicaState
from trierarch_operators.conditions import holds
from trierarch_operators.context import ControllerContext
from trierarch_operators.events import EventRecorder
from trierarch_operators.fleet import PlannedVariant
from trierarch_operators.group_plan import CannotRun
from trierarch_operators.groups import Group, is_coming, replica_endpoints
from trierarch_operators.labels import DEPLOYMENT_LABEL, RUNNER_ANNOTATION, VARIANT_LABEL
from trierarch_operators.model_deployment.failures import find_failure
from trierarch_operators.model_deployment.manifests import (
    SERVE_REPLICAS_ANNOTATION,
    Counts,
    Owner,
    RaySettings,
    build_ray_service,
    ray_service_name,
)
from trierarch_operators.model_deployment.reporting import FIELD_MANAGER, StatusReporter
from trierarch_operators.model_deployment.retirement import ClusterRetirement
from trierarch_operators.model_deployment.rollout import TrialSettings, plan_rollout
from trierarch_operators.model_deployment.scaling import ClusterScaler
from trierarch_operators.model_deployment.status import VariantState
from trierarch_operators.object_cache import (
    Key,
    Object,
    controller_of,
    key_of,
    version_of,
)
from trierarch_operators.resources import (
    MODEL_DEPLOYMENTS,
    RAY_SERVICES,
)
from trierarch_operators.revisions import read_previous, read_refused
from trierarch_operators.status_writes import apply_finalizers
from trierarch_operators.succession import NOTICE_SECONDS

_logger = logging.getLogger(__name__)

FINALIZER = f"{GROUP}/drain"

_LOOK_AGAIN_SECONDS = 5.0
"""While groups come or go: what replicas say changes without an event of the API server."""


class Reconciler:
    """Looks after model deployments.

    Args:
        context: What it works with.
        scaler: Adds and removes groups of a Ray cluster.
        retirement: Removes clusters that others have replaced.
        outcomes: Returns how requests ended at a variant's replicas.
        events: Tells people.
        reporter: Writes what is found into the status.
        settings: What is the same for all clusters.
        trial: How long an update is looked at.
        drain_seconds: The longest that running answers hold up a deletion.
    """

    def __init__(
        self,
        context: ControllerContext,
        scaler: ClusterScaler,
        retirement: ClusterRetirement,
        outcomes: Callable[[Key, str], Mapping[str, Outcome]],
        events: EventRecorder,
        reporter: StatusReporter,
        settings: RaySettings,
        trial: TrialSettings,
        drain_seconds: float,
    ) -> None:
        self._api = context.api
        self._cache = context.cache
        self._fleet = context.fleet
        self._scaler = scaler
        self._retirement = retirement
        self._outcomes = outcomes
        self._trial = trial
        self._events = events
        self._reporter = reporter
        self._settings = settings
        self._drain_seconds = drain_seconds
        self._clock = context.clock
        self._leads = context.leads
        self._held: dict[Key, dict[str, object]] = {}

    def forget(self, key: Key) -> None:
        """Drop what is remembered of a deployment that is gone."""
        self._held.pop(key, None)

    async def reconcile(self, key: Key) -> float | None:
        """Look at one model deployment; return when to look again.

        Raises:
            Refused: If the API server will not take a write.
            Unavailable: If it did not answer.
        """
        found = self._cache.get(MODEL_DEPLOYMENTS, key)
        if found is None or not self._leads():
            return None
        try:
            deployment = self._fleet.read(found)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            state = VariantState(
                name="", problem=f"{field}: {first['msg']}", problem_reason="InvalidSpec"
            )
            self._reporter.report(found, [state])
            return None
        if found["metadata"].get("deletionTimestamp"):
            return await self._finish(found, deployment)
        states = [await self._look_at(found, deployment, v) for v in deployment.spec.variants]
        # After the writes that people wait for: until then the owner reference cleans up.
        await self._hold(found)
        if not deployment.spec.paused:
            await self._remove_others(found, {v.name for v in deployment.spec.variants})
        self._reporter.report(
            found,
            states,
            is_paused=deployment.spec.paused,
            is_suspended=deployment.spec.suspend,
        )
        # Without pods everything that can happen is an event of the API server.
        is_moving = any(
            state.waiting
            or state.failure
            or state.starting
            or state.draining
            or state.is_updating
            or state.is_replacing
            for state in states
        )
        return _LOOK_AGAIN_SECONDS if is_moving else None

    async def _look_at(
        self, found: Object, deployment: ModelDeployment, variant: Variant
    ) -> VariantState:
        """Make one variant what it should be and return what is known of it."""
        key = key_of(found)
        desired = desired_groups(deployment, variant)
        try:
            planned = self._fleet.plan(found, deployment, variant)
        except InvalidInput as error:
            return VariantState(
                name=variant.name,
                desired=desired,
                problem=str(error),
                problem_reason=_problem_reason(error),
            )
        groups = self._fleet.groups(key, variant.name)
        name = ray_service_name(key.name, variant.name)
        problem = ("", "")
        waiting = ""
        is_replacing = False
        if not deployment.spec.paused:
            try:
                await self._apply_service(found, deployment, planned, desired, groups)
            except (InvalidInput, Refused) as error:
                if isinstance(error, Refused) and error.status not in (400, 409, 422):
                    raise
                problem = (str(error), _problem_reason(error))
            service = self._cache.get(RAY_SERVICES, Key(key.namespace, name))
            clusters = self._fleet.clusters(key, variant.name)
            for cluster in clusters:
                if service is not None and await self._retirement.retire(
                    found, service, cluster, clusters, groups
                ):
                    is_replacing = True
                    continue
                waiting = await self._scaler.scale(found, cluster, groups, desired) or waiting
        service = self._cache.get(RAY_SERVICES, Key(key.namespace, name))
        refused = read_refused(service)
        counts = count_groups(groups, self._clock.monotonic_seconds())
        failure = None
        if desired:
            heads = self._fleet.heads(key, variant.name)
            failure = find_failure(list(filter(is_coming, groups)), heads, service)
        return VariantState(
            name=variant.name,
            ray_service=name if service is not None else "",
            layout=str(planned.plan.layout),
            desired=desired,
            is_updating=_is_updating(service) or read_previous(service) is not None,
            is_replacing=is_replacing,
            rolled_back=refused.message if refused is not None else "",
            problem=problem[0],
            problem_reason=problem[1],
            waiting=waiting,
            failure=failure,
            **counts,
        )

    async def _apply_service(
        self,
        found: Object,
        deployment: ModelDeployment,
        planned: PlannedVariant,
        desired: int,
        groups: Sequence[Group],
    ) -> None:
        metadata = found["metadata"]
        owner = Owner(
            metadata["namespace"],
            metadata["name"],
            metadata["uid"],
            metadata.get("annotations") or {},
        )
        name = ray_service_name(owner.name, planned.variant.name)
        live = self._cache.get(RAY_SERVICES, Key(owner.namespace, name))
        if live is not None and live["metadata"].get("deletionTimestamp"):
            return
        controller = controller_of(live) if live is not None else None
        if controller is not None and controller["uid"] != owner.uid:
            raise CannotRun(
                "NameTaken",
                f"RayService {name} belongs to {controller['kind']} {controller['name']}:"
                " rename this ModelDeployment or its variant",
            )
        counts = Counts(desired, _serve_replicas(live, desired, groups))
        # Most looks find what the one before has found, and comparing takes longer than all else.
        held = self._held.setdefault(key_of(found), {})
        basis = (
            metadata["uid"],
            metadata["generation"],
            owner.annotations.get(RUNNER_ANNOTATION),
            planned,
            counts,
            live and version_of(live),
        )
        # An update on trial is judged at every look.
        if live is not None and held.get(planned.variant.name) == basis and not _is_tried(live):
            return
        wanted = build_ray_service(
            owner,
            deployment.spec,
            planned.variant,
            planned.accelerator_class,
            planned.plan,
            counts,
            self._settings,
        )
        rollout = plan_rollout(
            wanted,
            live,
            groups,
            self._outcomes(key_of(found), planned.variant.name),
            counts,
            self._clock.unix_seconds(),
            self._trial,
        )
        manifest = rollout.manifest
        if live is not None and holds(manifest, live):
            held[planned.variant.name] = basis
            return
        applied = await self._api.apply(RAY_SERVICES, manifest, field_manager=FIELD_MANAGER)
        self._cache.put(RAY_SERVICES, applied, Key(owner.namespace, owner.name))
        what, reason = ("created", "RayServiceCreated")
        if live is not None:
            what, reason = ("changed", "RayServiceChanged")
            if controller is None:
                what, reason = ("adopted", "RayServiceAdopted")
        if rollout.is_turning and rollout.refused is not None:
            note = f"RayService {name} is as before its update: {rollout.refused.message}"
            self._events.record(found, "RollBack", "RolledBack", note, "Warning")
            return
        self._events.record(
            found, "Apply", reason, f"{what} RayService {name} for {count_groups_in_words(desired)}"
        )

    async def _remove_others(self, found: Object, variants: set[str]) -> None:
        """Remove the RayServices of variants that are no longer in the spec."""
        for service in list(self._services(found)):
            if service["metadata"]["labels"].get(VARIANT_LABEL) not in variants:
                await self._delete_service(found, service)

    def _services(self, found: Object) -> list[Object]:
        return [
            service
            for service in self._cache.labelled(RAY_SERVICES, DEPLOYMENT_LABEL, key_of(found))
            if (controller_of(service) or {}).get("uid") == found["metadata"]["uid"]
        ]

    async def _delete_service(self, found: Object, service: Object) -> None:
        metadata = service["metadata"]
        if metadata.get("deletionTimestamp"):
            return
        await self._api.delete(
            RAY_SERVICES, metadata["namespace"], metadata["name"], metadata["uid"]
        )
        self._events.record(
            found, "Delete", "RayServiceDeleted", f"deleted RayService {metadata['name']}"
        )

    async def _hold(self, found: Object) -> None:
        """Keep the object until its answers are out, should someone delete it."""
        if FINALIZER in found["metadata"].get("finalizers", ()):
            return
        await apply_finalizers(self._api, self._cache, found, [FINALIZER], FIELD_MANAGER)

    async def _finish(self, found: Object, deployment: ModelDeployment) -> float | None:
        """Let running answers end, remove everything, and let the object go."""
        if FINALIZER not in found["metadata"].get("finalizers", ()):
            return None
        waited_seconds = self._clock.unix_seconds() - _unix_seconds(
            found["metadata"]["deletionTimestamp"]
        )
        states = []
        holds_up = False
        for variant in deployment.spec.variants:
            groups = self._fleet.groups(key_of(found), variant.name)
            working = [group for group in groups if group.is_working]
            states.append(VariantState(name=variant.name, draining=len(working)))
            # While an update starts, KubeRay tells only the new cluster's Serve to drain: the old
            # one's replicas say ready to the end, and what counts is whether they answer somebody.
            holds_up |= any(g.in_flight or waited_seconds < NOTICE_SECONDS for g in working)
        services = self._services(found)
        if holds_up and waited_seconds < self._drain_seconds:
            await self._drain(services)
        else:
            for service in services:
                await self._delete_service(found, service)
        if services:
            self._reporter.report(found, states)
            return 1.0
        await apply_finalizers(self._api, self._cache, found, [], FIELD_MANAGER)
        return None

    async def _drain(self, services: Sequence[Object]) -> None:
        """Tell Serve to work towards no replica: each finishes what it has."""
        for service in services:
            annotations = service["metadata"].get("annotations", {})
            if annotations.get(SERVE_REPLICAS_ANNOTATION) == "0":
                continue
            config = empty_serve_config(service["spec"]["serveConfigV2"])
            metadata = service["metadata"]
            path = f"/metadata/annotations/{SERVE_REPLICAS_ANNOTATION.replace('/', '~1')}"
            patched = await self._api.patch(
                RAY_SERVICES,
                metadata["namespace"],
                metadata["name"],
                [
                    {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
                    {"op": "add", "path": path, "value": "0"},
                    {"op": "replace", "path": "/spec/serveConfigV2", "value": config},
                ],
            )
            owner = metadata["labels"][DEPLOYMENT_LABEL]
            self._cache.put(RAY_SERVICES, patched, Key(metadata["namespace"], owner))


def desired_groups(deployment: ModelDeployment, variant: Variant) -> int:
    """Return how many groups a variant should have: the last decision inside the bounds."""
    if deployment.spec.suspend or deployment.spec.replicas == 0:
        return 0
    entries = deployment.status.variants or ()
    decided = next((e.desired_replicas for e in entries if e.name == variant.name), None)
    low, high = variant.min_replicas, variant.max_replicas
    return low if decided is None else min(max(decided, low), high)


def count_groups_in_words(count: int) -> str:
    """Return a number of groups as people say it."""
    return f"{count} {'group' if count == 1 else 'groups'}"


def count_groups(groups: Sequence[Group], now_seconds: float) -> dict[str, int]:
    """Return ready, starting and draining groups."""
    counted = {"ready": 0, "starting": 0, "draining": 0}
    for endpoint in replica_endpoints(groups, "", "", now_seconds):
        match endpoint.state:
            case ReplicaState.READY:
                counted["ready"] += 1
            case ReplicaState.DRAINING:
                counted["draining"] += 1
            case _:
                counted["starting"] += 1
    return counted


def empty_serve_config(config: str) -> str:
    """Return a Serve configuration without applications, and all else as it was: Serve drains."""
    document: dict[str, Any] = {**yaml.safe_load(config), "applications": []}
    return json.dumps(document, indent=1)


def _serve_replicas(live: Object | None, desired: int, groups: Sequence[Group]) -> int:
    """Return how many replicas Serve shall work towards: pods first, then replicas."""
    if live is None:
        return desired
    annotations = live["metadata"].get("annotations") or {}
    told = annotations.get(SERVE_REPLICAS_ANNOTATION, "")
    if not told.isdigit():
        return desired
    placed = sum(group.is_placed for group in groups)
    return min(desired, max(int(told), placed))


def _is_tried(service: Object) -> bool:
    """Return whether an update is on trial beside what served before."""
    return read_previous(service) is not None and read_refused(service) is None


def _is_updating(service: Object | None) -> bool:
    conditions = (service or {}).get("status", {}).get("conditions", ())
    return any(c["type"] == "UpgradeInProgress" and c["status"] == "True" for c in conditions)


def _problem_reason(error: Exception) -> str:
    if isinstance(error, Refused):
        return "RayServiceRefused"
    return error.reason if isinstance(error, CannotRun) else "InvalidSpec"


def _unix_seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
