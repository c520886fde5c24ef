"""The gateway's picture of the replicas: polled in the background, never asked for on the way.

A list that cannot be read keeps the last one in force: an engine does not stop
serving because its controller is restarting. What the list says is completed by
what this gateway sees itself (failures, and the work it has outstanding).

With the list comes what the autoscaler decided of the lanes. That is a matter of the moment:
it holds for the time that its decider gives it, and is forgotten then, so that a controller
that is gone leaves no lane closed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

import orjson

from trierarch.core.admission import OPEN, Admission
from trierarch.core.clock import Clock
from trierarch.core.errors import InvalidInput, Unavailable
from trierarch.core.identifiers import ModelName, ReplicaId, VariantName
from trierarch.core.objectives import LatencyPromise
from trierarch.core.replicas import ReplicaEndpoint, ReplicaState
from trierarch.core.usage import ServiceTier
from trierarch.gateway.admission.dispatch import ModelDispatcher
from trierarch.gateway.endpoints.endpoint import ServedModel
from trierarch.gateway.wire.client import UpstreamFailure
from trierarch.gateway.wire.pool import Address, UpstreamPool
from trierarch.ports import ReplicaSource
from trierarch.routing.replica_selection import ReplicaLoad
from trierarch.settings.gateway import StaticReplica

_logger = logging.getLogger(__name__)

NewDispatcher = Callable[[ModelName], ModelDispatcher]
"""Makes the dispatcher of a model seen for the first time."""

TakePromises = Callable[[Mapping[ModelName, LatencyPromise]], None]
"""Takes the latency objectives of the newest list."""


@dataclasses.dataclass(frozen=True, slots=True)
class TimedAdmission:
    """The autoscaler's word on a model's lanes, and for how long it holds.

    Attributes:
        admission: What it says.
        valid_seconds: From now.
    """

    admission: Admission
    valid_seconds: float


class FixedReplicas:
    """Replicas at fixed addresses, always called ready; failures are found by using them."""

    def __init__(self, replicas: Iterable[StaticReplica]) -> None:
        self._replicas = tuple(
            ReplicaEndpoint(
                replica_id=ReplicaId(f"{replica.model}@{replica.host}:{replica.port}"),
                model=ModelName(replica.model),
                variant=VariantName(replica.variant),
                state=ReplicaState.READY,
                host=replica.host,
                port=replica.port,
                reason="Static",
                max_model_tokens=replica.max_model_tokens,
            )
            for replica in replicas
        )

    async def replicas(self) -> Sequence[ReplicaEndpoint]:
        """Return the fixed replicas."""
        return self._replicas


class HttpReplicaSource:
    """Reads the list that a controller publishes.

    The answer is ``{"replicas": [...]}`` with the fields of ``ReplicaEndpoint``, and
    optionally ``"models": [...]``: names of models that exist even without a replica, and
    ``"objectives": {MODEL: {"ttft_seconds": ..., "tpot_seconds": ...}}`` and ``"admissions":
    {MODEL: {"flex_open": ..., "shed_tiers": [...], "valid_seconds": ...}}``.

    Args:
        url: ``http://HOST:PORT/PATH``.
        pool: Connections.

    Attributes:
        models: Names from the last answer.
        promises: Latency objectives from the last answer; a model without one is left out.
        admissions: What the last answer says of the lanes; nothing of models that nobody has
            decided on lately.

    Raises:
        InvalidInput: If the address cannot be used.
    """

    def __init__(self, url: str, pool: UpstreamPool) -> None:
        parts = parse_list_address(url)
        self._url = url
        self._address: Address = (parts.hostname or "", parts.port or 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._request = (
            f"GET {target} HTTP/1.1\r\nhost: {parts.netloc}\r\naccept: application/json\r\n\r\n"
        ).encode()
        self._pool = pool
        self.models: frozenset[ModelName] = frozenset()
        self.promises: Mapping[ModelName, LatencyPromise] = {}
        self.admissions: Mapping[ModelName, TimedAdmission] = {}

    async def replicas(self) -> Sequence[ReplicaEndpoint]:
        """Return the published list.

        Raises:
            Unavailable: If it cannot be read or is not such a list.
        """
        try:
            status, body = await self._pool.fetch(self._address, self._request)
        except UpstreamFailure as failure:
            raise Unavailable(f"the replica list at {self._url}: {failure}") from failure
        if status != 200:
            raise Unavailable(f"the replica list at {self._url} answered with status {status}")
        try:
            answer = orjson.loads(body)
            found = [parse_replica(entry) for entry in answer["replicas"]]
            models = frozenset(ModelName(str(name)) for name in answer.get("models", ()))
            promises = {
                ModelName(str(name)): parse_promise(entry)
                for name, entry in answer.get("objectives", {}).items()
            }
            admissions = {
                ModelName(str(name)): parse_admission(entry)
                for name, entry in answer.get("admissions", {}).items()
            }
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise Unavailable(f"the replica list at {self._url} is not one: {error!r}") from error
        self.models, self.promises, self.admissions = models, promises, admissions
        return found


def parse_promise(entry: Mapping[str, Any]) -> LatencyPromise:
    """Return a latency objective from its JSON object.

    Raises:
        TypeError: If a member is no number.
        ValueError: If a member is no number.
    """
    limits = {
        name: None if entry.get(name) is None else float(entry[name])
        for name in ("ttft_seconds", "tpot_seconds")
    }
    return LatencyPromise(**limits)


def parse_admission(entry: Mapping[str, Any]) -> TimedAdmission:
    """Return the autoscaler's word on the lanes from its JSON object.

    Raises:
        KeyError: If a member is missing.
        TypeError: If a member has a wrong type.
        ValueError: If a member has a wrong value.
    """
    tiers = tuple(ServiceTier(tier) for tier in entry["shed_tiers"])
    return TimedAdmission(Admission(bool(entry["flex_open"]), tiers), float(entry["valid_seconds"]))


def parse_list_address(url: str) -> SplitResult:
    """Return the parts of a replica list's address.

    Raises:
        InvalidInput: If it is not an http address.
    """
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise InvalidInput(f"'{url}' is not an http:// address of a replica list")
    return parts


def parse_replica(entry: Mapping[str, Any]) -> ReplicaEndpoint:
    """Return a replica from its JSON object; unknown members are ignored.

    Raises:
        KeyError: If a needed member is missing.
        ValueError: If a member has a wrong value.
    """
    ready_at = entry.get("ready_unix_seconds")
    return ReplicaEndpoint(
        replica_id=ReplicaId(str(entry["replica_id"])),
        model=ModelName(str(entry["model"])),
        variant=VariantName(str(entry["variant"])),
        state=ReplicaState(entry["state"]),
        host=str(entry.get("host") or ""),
        port=int(entry.get("port") or 0),
        started_unix_seconds=float(entry.get("started_unix_seconds") or 0.0),
        ready_unix_seconds=None if ready_at is None else float(ready_at),
        reason=str(entry.get("reason") or ""),
        max_model_tokens=int(entry.get("max_model_tokens") or 0),
    )


class ReplicaDirectory:
    """Keeps every model's dispatcher supplied with the replicas known now.

    Args:
        source: Where replicas come from.
        clock: For ages.
        new_dispatcher: Makes the dispatcher of a model seen for the first time.
        declared_models: Models that exist even without a replica.
        take_promises: Called with the objectives of every list.

    Attributes:
        dispatchers: By model; a model once seen stays, its replicas may come back.
        replicas: Last list.
        read_at_seconds: Monotonic time of the last list; None before the first.
        has_been_ready: Some replica has been ready since the start.
        promises: Latency objective of each model that has one, from the last list.
    """

    def __init__(
        self,
        source: ReplicaSource,
        clock: Clock,
        new_dispatcher: NewDispatcher,
        declared_models: Iterable[ModelName] = (),
        take_promises: TakePromises = lambda _promises: None,
    ) -> None:
        self._source = source
        self._clock = clock
        self._new_dispatcher = new_dispatcher
        self._take_promises = take_promises
        self._admitted_until_seconds: dict[ModelName, float] = {}
        self._first_seen_unix_seconds: dict[ModelName, float] = {}
        self._max_model_tokens: dict[ModelName, int] = {}
        self._loads: dict[ReplicaId, ReplicaLoad] = {}
        self._is_failing = False
        self.dispatchers: dict[ModelName, ModelDispatcher] = {}
        self.replicas: Sequence[ReplicaEndpoint] = ()
        self.read_at_seconds: float | None = None
        self.has_been_ready = False
        self.promises: Mapping[ModelName, LatencyPromise] = {}
        for model in declared_models:
            self._add_model(model)

    async def refresh(self) -> None:
        """Read the list once; on failure the last one stays in force."""
        try:
            found = await self._source.replicas()
        except Unavailable as error:
            if not self._is_failing:
                _logger.warning("keeping the last replica list: %s", error)
            self._is_failing = True
            self._expire_admissions()
            return
        if self._is_failing:
            _logger.info("the replica list can be read again")
        self._is_failing = False
        self.read_at_seconds = self._clock.monotonic_seconds()
        for model in getattr(self._source, "models", ()):
            self._add_model(model)
        self.promises = getattr(self._source, "promises", {})
        for model, dispatcher in self.dispatchers.items():
            dispatcher.promise = self.promises.get(model)
        self._take_promises(self.promises)
        if found != self.replicas:
            self._apply(found)
        self._take_admissions(getattr(self._source, "admissions", {}))

    async def poll(self, interval_seconds: float) -> None:
        """Refresh for ever."""
        while True:
            await asyncio.sleep(interval_seconds)
            await self.refresh()

    def _add_model(self, model: ModelName) -> None:
        if model not in self.dispatchers:
            dispatcher = self.dispatchers[model] = self._new_dispatcher(model)
            dispatcher.promise = self.promises.get(model)
            self._first_seen_unix_seconds[model] = self._clock.unix_seconds()

    def _take_admissions(self, heard: Mapping[ModelName, TimedAdmission]) -> None:
        """Take what a list says of lanes; where it says nothing, the last word runs out."""
        now_seconds = self._clock.monotonic_seconds()
        for model, timed in heard.items():
            dispatcher = self.dispatchers.get(model)
            if dispatcher is not None:
                self._admitted_until_seconds[model] = now_seconds + timed.valid_seconds
                dispatcher.set_admission(timed.admission)
        self._expire_admissions()

    def _expire_admissions(self) -> None:
        now_seconds = self._clock.monotonic_seconds()
        for model, until_seconds in list(self._admitted_until_seconds.items()):
            if now_seconds >= until_seconds:
                del self._admitted_until_seconds[model]
                if self.dispatchers[model].admission != OPEN:
                    _logger.warning(
                        "the autoscaler's word on %s's lanes has run out: all are open",
                        model,
                        extra={"model": model},
                    )
                self.dispatchers[model].set_admission(OPEN)

    def _apply(self, found: Sequence[ReplicaEndpoint]) -> None:
        before = {replica.replica_id: replica for replica in self.replicas}
        self.replicas = found
        loads: dict[ReplicaId, ReplicaLoad] = {}
        for replica in found:
            self._add_model(replica.model)
            if replica.max_model_tokens:
                self._max_model_tokens[replica.model] = replica.max_model_tokens
            load = self._loads.get(replica.replica_id)
            if load is None:
                load = ReplicaLoad(replica)
            load.endpoint = replica
            loads[replica.replica_id] = load
            known = before.pop(replica.replica_id, None)
            if known is None or known.state is not replica.state:
                self._log(replica, replica.state.value)
        for gone in before.values():
            self._log(gone, "gone")
        self._loads = loads
        self.has_been_ready |= self.has_ready_replica
        for model, dispatcher in self.dispatchers.items():
            dispatcher.set_replicas(load for load in loads.values() if load.endpoint.model == model)

    @staticmethod
    def _log(replica: ReplicaEndpoint, state: str) -> None:
        _logger.info(
            "replica %s of %s is %s",
            replica.replica_id,
            replica.model,
            state,
            extra={"replica_id": replica.replica_id, "model": replica.model, "state": state},
        )

    def dispatcher_of(self, model: ModelName) -> ModelDispatcher | None:
        """Return a model's dispatcher, or None if no list has named it yet."""
        return self.dispatchers.get(model)

    @property
    def is_loaded(self) -> bool:
        """Whether a list has been read since the start."""
        return self.read_at_seconds is not None

    @property
    def age_seconds(self) -> float | None:
        """Age of the list; None before the first."""
        if self.read_at_seconds is None:
            return None
        return self._clock.monotonic_seconds() - self.read_at_seconds

    @property
    def has_ready_replica(self) -> bool:
        """Whether any replica is ready."""
        return any(replica.state is ReplicaState.READY for replica in self.replicas)

    @property
    def loads(self) -> Mapping[ReplicaId, ReplicaLoad]:
        """What this gateway has outstanding at each replica."""
        return self._loads

    def served_models(self) -> Sequence[ServedModel]:
        """Return every model, by name."""
        return [
            ServedModel(
                model, self._first_seen_unix_seconds[model], self._max_model_tokens.get(model, 0)
            )
            for model in sorted(self.dispatchers)
        ]
