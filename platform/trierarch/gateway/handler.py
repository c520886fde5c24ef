"""What happens to a request from its headers on: the state that all requests share.

``check_head`` runs before a body is read: route and key are decided there, so a
caller without a key cannot make the gateway hold its body.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from trierarch.core.clock import Clock
from trierarch.core.identifiers import ModelName, RequestId, TenantId
from trierarch.core.objectives import LatencyPromise
from trierarch.core.quantities import TokenCounts
from trierarch.core.usage import ServiceTier, UsageRecord
from trierarch.gateway.access_log import AccessEntry
from trierarch.gateway.admission.authenticate import find_key
from trierarch.gateway.admission.dispatch import ModelDispatcher
from trierarch.gateway.admission.limits import KeyLimits, RateLimiter, limit_headers
from trierarch.gateway.admission.tenants import BudgetLeft, TenantDesk
from trierarch.gateway.endpoints import load_endpoints
from trierarch.gateway.endpoints.endpoint import (
    Endpoint,
    GenerationRequest,
    Routes,
    ServedModel,
)
from trierarch.gateway.errors import (
    GatewayError,
    invalid_api_key,
    shutting_down,
    unsupported_encoding,
)
from trierarch.gateway.exchange import Exchange
from trierarch.gateway.random_ids import BufferedRandom
from trierarch.gateway.replicas import NewDispatcher, ReplicaDirectory, TakePromises
from trierarch.gateway.settlement import Account, client_request_id
from trierarch.gateway.signals import ModelSignals
from trierarch.gateway.telemetry import GatewayMetrics
from trierarch.gateway.wire.message import HttpRequest, HttpResponse
from trierarch.gateway.wire.pool import UpstreamPool
from trierarch.gateway.wire.server import ServerConnection
from trierarch.observability.tracing import Tracer
from trierarch.ports import (
    ApiKey,
    KeySource,
    RateCardSource,
    TenantSource,
    TenantUsage,
    UsageSink,
)
from trierarch.settings.gateway import GatewaySettings

MIN_RETRY_AFTER_SECONDS = 1.0
MAX_RETRY_AFTER_SECONDS = 60.0


class TenantUsageSource(Protocol):
    """Totals by tenant; the gateway does not know where they are kept."""

    async def usage_of(self, tenant: TenantId) -> TenantUsage:
        """Return a tenant's totals, every request recorded until now included.

        Raises:
            Unavailable: If the ledger does not answer.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class GatewayParts:
    """What a gateway is connected to.

    Attributes:
        keys: API keys.
        rates: Charges.
        usage: Takes usage records.
        tenant_usage: Answers ``/v1/usage``.
        tenants: What tenants may do and spend.
        random_bytes: Source of ids.
        write_access: Takes access log lines; does not block.
    """

    keys: KeySource
    rates: RateCardSource
    usage: UsageSink
    tenant_usage: TenantUsageSource
    tenants: TenantSource
    clock: Clock
    random_bytes: Callable[[int], bytes]
    write_access: Callable[[AccessEntry], None]


@dataclasses.dataclass(frozen=True, slots=True)
class _Admitted:
    """What ``check_head`` found out, carried on the request."""

    endpoint: Endpoint
    key: ApiKey
    request_id: RequestId


@dataclasses.dataclass(frozen=True, slots=True)
class _Refused:
    """The id that the refusal of a request has told its client."""

    request_id: RequestId


class GatewayHandler:
    """Implements ``RequestHandler``, ``LocalContext`` and ``Books``."""

    def __init__(
        self,
        settings: GatewaySettings,
        parts: GatewayParts,
        directory: Callable[[NewDispatcher, TakePromises], ReplicaDirectory],
        pool: UpstreamPool,
        metrics: GatewayMetrics,
        tracer: Tracer,
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.metrics = metrics
        self.tracer = tracer
        self.clock = parts.clock
        self.rates = parts.rates
        self.tenants = TenantDesk(parts.tenants, parts.clock)
        self._parts = parts
        self._routes = Routes(load_endpoints())
        self._signals: dict[ModelName, ModelSignals] = {}
        self._rated: set[tuple[ModelName, ServiceTier]] = set()
        self._random_bytes = BufferedRandom(parts.random_bytes)
        self.limiter = RateLimiter(
            parts.clock.monotonic_seconds,
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
        )
        self.directory = directory(self._new_dispatcher, self._take_promises)
        self.exchanges: set[asyncio.Task[None]] = set()
        self.is_draining = False
        metrics.watch(self._depths, self._ongoing, self._flex_open, self._replica_list_age_seconds)

    def _new_dispatcher(self, model: ModelName) -> ModelDispatcher:
        return ModelDispatcher(
            self.clock.monotonic_seconds,
            max_ongoing_requests=self.settings.max_ongoing_requests_per_replica,
            max_queued_requests=self.settings.max_queued_requests_per_model,
            note_relegated=partial(self.metrics.count_relegated, model),
        )

    # --- RequestHandler ---------------------------------------------------------------

    def check_head(self, request: HttpRequest) -> HttpResponse | None:
        """Route and authenticate; return the refusal if there is one."""
        request_id = self._new_request_id()
        key = find_key(request.headers, self._parts.keys)
        try:
            endpoint = self._routes.find(request.method, request.path)
            if key is None:
                raise invalid_api_key()
            if self.is_draining:
                raise shutting_down()
            if request.headers.get(b"content-encoding", b"identity").lower() != b"identity":
                raise unsupported_encoding()
        except GatewayError as error:
            request.context = _Refused(request_id)
            return error.as_response(self._headers(request_id, key))
        request.context = _Admitted(endpoint, key, request_id)
        return None

    def refuse(
        self, status: int, code: str, message: str, request: HttpRequest | None = None
    ) -> HttpResponse:
        """Return the answer to something that is no acceptable HTTP request."""
        admitted = request.context if request is not None else None
        if isinstance(admitted, _Admitted):
            headers = self._headers(admitted.request_id, admitted.key)
        else:
            request_id = self._new_request_id()
            headers = self._headers(request_id, None)
            if request is not None:
                request.context = _Refused(request_id)
            else:
                # Nobody will be told of this one as an early answer.
                self.metrics.lane(None, None, None, None).answers[status] += 1
        return GatewayError(status, code, message).as_response(headers)

    def _headers(self, request_id: RequestId, key: ApiKey | None) -> bytes:
        headers = b"x-request-id: " + request_id.encode() + b"\r\n"
        return headers if key is None else headers + self._limit_headers(key)

    def _limit_headers(self, key: ApiKey) -> bytes:
        return limit_headers(self.limits_of(key))

    def limits_of(self, key: ApiKey) -> KeyLimits:
        """Return the buckets that a key's requests are taken from."""
        return self.limiter.limits_of(key.key_id, self.tenants.terms_of(key.tenant))

    def start(self, request: HttpRequest, connection: ServerConnection) -> Exchange | None:
        """Begin to answer a request whose headers were accepted."""
        admitted = request.context
        if not isinstance(admitted, _Admitted):
            raise TypeError(f"a request without route and key: {request.path}")
        account = Account(self, request, admitted.key, admitted.request_id)
        exchange = Exchange(self, account, request, connection, admitted.endpoint)
        self.exchanges.add(exchange.task)
        exchange.task.add_done_callback(self.exchanges.discard)
        return exchange

    def note_early(self, request: HttpRequest, response: HttpResponse) -> None:
        """Count and log a request that was refused on its headers."""
        self.metrics.lane(None, None, None, None).answers[response.status] += 1
        admitted = request.context
        entry = AccessEntry(
            unix_seconds=self.clock.unix_seconds(),
            request_id="",
            trace_id="",
            method=request.method,
            path=request.path,
            status=response.status,
            code=response.code,
            peer=request.peer,
            duration_seconds=0.0,
            client_request_id=client_request_id(request.headers),
        )
        if isinstance(admitted, _Admitted):
            entry.request_id = admitted.request_id
            entry.tenant = admitted.key.tenant
            entry.key_id = admitted.key.key_id
        elif isinstance(admitted, _Refused):
            entry.request_id = admitted.request_id
        self._parts.write_access(entry)

    def _new_request_id(self) -> RequestId:
        return RequestId("req_" + self._random_bytes(16).hex())

    # --- LocalContext -----------------------------------------------------------------

    def served_models(self) -> Sequence[ServedModel]:
        """Return every model."""
        return self.directory.served_models()

    async def usage_of(self, tenant: TenantId) -> TenantUsage:
        """Return a tenant's totals."""
        return await self._parts.tenant_usage.usage_of(tenant)

    def budgets_of(self, tenant: TenantId) -> Sequence[BudgetLeft]:
        """Return a tenant's budgets."""
        return self.tenants.budgets_of(tenant)

    # --- Books ------------------------------------------------------------------------

    def record(self, usage: UsageRecord) -> None:
        """Take the record of a finished request."""
        self._parts.usage.record(usage)
        self.tenants.note_record(usage.tenant, usage.charge.amount)

    def signals_of(self, model: ModelName) -> ModelSignals:
        """Return the signals of a model."""
        signals = self._signals.get(model)
        if signals is None:
            signals = self._signals[model] = ModelSignals()
            signals.interactive.promise = self.directory.promises.get(model)
        return signals

    def _take_promises(self, promises: Mapping[ModelName, LatencyPromise]) -> None:
        for model, signals in self._signals.items():
            signals.interactive.promise = promises.get(model)

    def write_access(self, entry: AccessEntry) -> None:
        """Take a line of the access log."""
        self._parts.write_access(entry)

    def check_rate(self, account: Account, call: GenerationRequest) -> None:
        """Refuse a model that has no rate before an engine works for it.

        Raises:
            TrierarchError: If it has none.
        """
        lane = (call.model, call.tier)
        if lane not in self._rated:
            account.price(TokenCounts())
            self._rated.add(lane)

    # --- for clients and the controller -----------------------------------------------

    def retry_after_seconds(self, model: ModelName) -> float:
        """Return when a refused request may find the queue shorter: the usual wait."""
        now_seconds = self.clock.monotonic_seconds()
        usual_seconds = self.signals_of(model).queue_wait_quantile(now_seconds, 0.5) or 0.0
        return min(MAX_RETRY_AFTER_SECONDS, max(MIN_RETRY_AFTER_SECONDS, usual_seconds))

    def signals_document(self) -> dict[str, Any]:
        """Return what the autoscaler reads."""
        now_seconds, now_unix_seconds = self.clock.monotonic_seconds(), self.clock.unix_seconds()
        models: dict[str, dict[str, Any]] = {}
        for model, dispatcher in self.directory.dispatchers.items():
            models[model] = {
                "waiting": _by_name(dispatcher.depth_by_tier()),
                "waiting_tokens": _by_name(dispatcher.waiting_tokens_by_tier()),
                "in_flight": dispatcher.ongoing_requests,
                "flex_in_flight": dispatcher.ongoing_flex_requests,
                "flex_deadline_unix_seconds": None
                if (deadline := dispatcher.flex_deadline_seconds()) is None
                else now_unix_seconds + deadline - now_seconds,
                "flex_patience_seconds": self.settings.flex_queue_timeout_seconds,
                "outstanding_tokens": dispatcher.outstanding_tokens,
                **dict(self.signals_of(model).members(now_seconds)),
                "replicas": {
                    load.endpoint.replica_id: {
                        "in_flight": load.ongoing_requests,
                        "outstanding_tokens": load.outstanding_tokens,
                    }
                    for load in dispatcher.loads
                },
            }
        return {"at": now_unix_seconds, "models": models}

    def _depths(self) -> dict[ModelName, Mapping[ServiceTier, int]]:
        return {m: d.depth_by_tier() for m, d in self.directory.dispatchers.items()}

    def _ongoing(self) -> dict[ModelName, int]:
        return {m: d.ongoing_requests for m, d in self.directory.dispatchers.items()}

    def _flex_open(self) -> dict[ModelName, bool]:
        return {m: d.admission.flex_open for m, d in self.directory.dispatchers.items()}

    def _replica_list_age_seconds(self) -> float:
        age_seconds = self.directory.age_seconds
        return float("nan") if age_seconds is None else age_seconds


def _by_name(counts: Mapping[ServiceTier, int]) -> dict[str, int]:
    return {tier.value: count for tier, count in counts.items()}
