"""The account of one request: what it was, how it ended, what it used, what it costs.

``end`` is called once, whoever gets there first, and writes everything that
outlives the request: the usage record, metrics, signals, spans and the access
line. It runs before the last bytes of the answer leave.
"""

from __future__ import annotations

import logging
from typing import Protocol

from trierarch.core.clock import Clock
from trierarch.core.identifiers import ModelName, ReplicaId, RequestId, VariantName
from trierarch.core.quantities import ZERO_USD, Money, TokenCounts
from trierarch.core.replicas import ReplicaEndpoint
from trierarch.core.usage import NO_HOLDER, Outcome, ServiceTier, UsageRecord
from trierarch.cost.rates import is_charged
from trierarch.gateway.access_log import AccessEntry
from trierarch.gateway.admission.limits import KeyLimits
from trierarch.gateway.endpoints.endpoint import GenerationRequest
from trierarch.gateway.request_spans import Attempt, RequestFacts, note_request_spans
from trierarch.gateway.signals import ModelSignals
from trierarch.gateway.spending import Spending
from trierarch.gateway.telemetry import GatewayMetrics
from trierarch.gateway.wire.message import HttpRequest
from trierarch.observability.tracing import RequestTrace, Tracer
from trierarch.ports import ApiKey, RateCardSource
from trierarch.routing.ejection import FailureKind
from trierarch.routing.replica_selection import ReplicaLoad

_logger = logging.getLogger(__name__)

_NO_TOKENS = TokenCounts()


class Books(Protocol):
    """Where accounts are written to."""

    @property
    def clock(self) -> Clock:
        """Time."""
        ...

    @property
    def rates(self) -> RateCardSource:
        """What a request is charged."""
        ...

    def record(self, usage: UsageRecord) -> None:
        """Take the record of a finished request."""
        ...

    @property
    def metrics(self) -> GatewayMetrics:
        """Prometheus."""
        ...

    @property
    def tracer(self) -> Tracer:
        """Traces."""
        ...

    def signals_of(self, model: ModelName) -> ModelSignals:
        """Return the signals of a model."""
        ...

    def write_access(self, entry: AccessEntry) -> None:
        """Take a line of the access log."""
        ...


class Account:
    """Collects facts about one request and writes them when it ends.

    Attributes:
        request_id: Made here: the ledger's key must not be chosen by a client.
        key: Who asks.
        trace: Of this request.
        attempts: Replicas tried so far.
    """

    __slots__ = (
        "_attempts",
        "_books",
        "_call",
        "_ended",
        "_first_token_seconds",
        "_last_charge",
        "_limits",
        "_operation",
        "_queue_span",
        "_queue_wait_seconds",
        "_rate_tokens",
        "_replica",
        "_request",
        "_spending",
        "_started_unix_seconds",
        "key",
        "request_id",
        "trace",
    )

    def __init__(
        self, books: Books, request: HttpRequest, key: ApiKey, request_id: RequestId
    ) -> None:
        self._books = books
        self._request = request
        self.key = key
        self.request_id = request_id
        headers = request.headers
        self.trace: RequestTrace = books.tracer.start(
            headers.get(b"traceparent"), headers.get(b"tracestate")
        )
        self._started_unix_seconds = books.clock.unix_seconds()
        self._call: GenerationRequest | None = None
        self._operation = ""
        self._limits: KeyLimits | None = None
        self._rate_tokens = 0
        self._spending: Spending | None = None
        self._replica: ReplicaEndpoint | None = None
        self._queue_wait_seconds: float | None = None
        self._queue_span: tuple[float, float] | None = None
        self._first_token_seconds: float | None = None
        self._attempts: list[Attempt] = []
        self._last_charge: tuple[TokenCounts, Money] | None = None
        self._ended = False

    # --- facts ------------------------------------------------------------------------

    def admit(
        self,
        call: GenerationRequest,
        operation: str,
        limits: KeyLimits,
        rate_tokens: int,
        spending: Spending | None,
    ) -> None:
        """From here on the request is accounted, however it ends."""
        self._spending = spending
        self._call = call
        self._operation = operation
        self._limits = limits
        self._rate_tokens = rate_tokens
        self._books.signals_of(call.model).arrivals[call.tier] += 1

    def forget(self) -> None:
        """Undo ``admit``: the engine found that the request was never valid."""
        if self._limits is not None:
            self._limits.tokens.take(-self._rate_tokens)
        self._limits = None

    def note_place(self, load: ReplicaLoad, wait_seconds: float) -> None:
        """The request has a place at a replica, after waiting that long."""
        self._replica = load.endpoint
        self._queue_wait_seconds = (self._queue_wait_seconds or 0.0) + wait_seconds
        now_seconds = self._books.clock.monotonic_seconds()
        if wait_seconds:
            self._queue_span = (now_seconds - wait_seconds, now_seconds)
        if self._call is not None and not self._attempts:
            model, tier = self._call.model, self._call.tier
            self._books.metrics.observe_queue_wait(model, tier, wait_seconds)
            # What flex waits for is spare capacity; it says nothing about the promise.
            if tier is not ServiceTier.FLEX:
                self._books.signals_of(model).note_queue_wait(now_seconds, wait_seconds)

    def start_attempt(self) -> str:
        """Begin an attempt at the replica of the last place; return its span id."""
        if self._replica is None:
            raise RuntimeError("an attempt needs a place first")
        span_id = self.trace.new_span_id()
        self._attempts.append(
            Attempt(self._replica, span_id, self._books.clock.monotonic_seconds())
        )
        return span_id

    def attempt_failed(self, kind: FailureKind) -> None:
        """The last attempt failed, before the client saw a byte or in the middle of a stream."""
        attempt = self._attempts[-1]
        attempt.ended_seconds = self._books.clock.monotonic_seconds()
        attempt.error = kind.value

    @property
    def attempts(self) -> int:
        """Replicas tried so far."""
        return len(self._attempts)

    def note_first_token(self) -> None:
        """The first event of a stream is on its way to the client."""
        now_seconds = self._books.clock.monotonic_seconds()
        self._first_token_seconds = now_seconds - self._request.received_seconds
        if self._call is not None and self._call.tier is not ServiceTier.FLEX:
            signals = self._books.signals_of(self._call.model)
            signals.note_first_token(now_seconds, self._first_token_seconds)

    def price(self, tokens: TokenCounts) -> Money:
        """Return the charge by the rates in force when the request started."""
        if self._last_charge is not None and self._last_charge[0] is tokens:
            return self._last_charge[1]
        if self._call is None:
            return ZERO_USD
        charge = self._books.rates.charge(
            self._call.model, self._call.tier, tokens, self._started_unix_seconds
        )
        self._last_charge = (tokens, charge)
        return charge

    def answer_headers(self) -> bytes:
        """Return the header lines that every answer carries."""
        elapsed_seconds = self._books.clock.monotonic_seconds() - self._request.received_seconds
        variant = self._replica.variant if self._replica is not None else ""
        lines = (
            f"x-request-id: {self.request_id}\r\n"
            f"openai-processing-ms: {max(0, round(elapsed_seconds * 1000))}\r\n"
        )
        if variant:
            lines += f"x-trierarch-model-variant: {variant}\r\n"
        return lines.encode()

    # --- the end ----------------------------------------------------------------------

    def end(
        self,
        outcome: Outcome,
        status: int,
        tokens: TokenCounts | None = None,
        *,
        code: str = "",
    ) -> None:
        """Write the account; every call but the first does nothing.

        Args:
            outcome: How it ended.
            status: HTTP status sent, or 499 if the client had left.
            tokens: What the engine counted; None if it never did.
            code: Error code, if it ended with one.
        """
        if self._ended:
            return
        self._ended = True
        call = self._call
        counted = tokens or _NO_TOKENS
        charge = ZERO_USD
        now_seconds = self._books.clock.monotonic_seconds()
        unix_seconds = self._books.clock.unix_seconds()
        if call is not None and self._limits is not None:
            if tokens is not None and is_charged(outcome):
                charge = self.price(tokens)
            elif outcome.is_whole:
                _logger.warning(
                    "the engine reported no usage; the request is charged nothing",
                    extra={"request_id": self.request_id, "model": call.model},
                )
            self._limits.tokens.take(counted.total_tokens - self._rate_tokens)
            if self._spending is not None:
                charge = self._settle(self._spending, charge)
            self._record(call, outcome, counted, charge, unix_seconds)
        self._measure(outcome, status, counted, charge, now_seconds)
        if self.trace.sampled and self._books.tracer.is_exporting:
            self._trace(outcome, status, counted, charge, code)
        self._log(outcome, status, counted, charge, code, now_seconds, unix_seconds)

    def _settle(self, spending: Spending, charge: Money) -> Money:
        """Return what of a charge the tenant's budgets can pay."""
        paid = Money(spending.settle(charge.amount), charge.currency)
        if paid != charge:
            _logger.warning(
                "an answer cost more than was left of its tenant's budget; the rest is not charged",
                extra={"request_id": self.request_id, "cost": str(charge), "charge": str(paid)},
            )
        return paid

    def _record(
        self,
        call: GenerationRequest,
        outcome: Outcome,
        tokens: TokenCounts,
        charge: Money,
        unix_seconds: float,
    ) -> None:
        replica = self._replica if self._attempts else None
        self._books.record(
            UsageRecord(
                request_id=self.request_id,
                tenant=self.key.tenant,
                key_id=self.key.key_id,
                model=call.model,
                variant=replica.variant if replica else VariantName(""),
                tier=call.tier,
                tokens=tokens,
                outcome=outcome,
                charge=charge,
                replica_id=replica.replica_id if replica else ReplicaId(""),
                started_unix_seconds=self._started_unix_seconds,
                finished_unix_seconds=unix_seconds,
                trace_id=self.trace.trace_id,
                holder=NO_HOLDER if self._spending is None else self._spending.holder,
            )
        )
        self._books.signals_of(call.model).note_end(outcome, tokens)

    def _measure(
        self,
        outcome: Outcome,
        status: int,
        tokens: TokenCounts,
        charge: Money,
        now_seconds: float,
    ) -> None:
        call, metrics = self._call, self._books.metrics
        variant = self._replica.variant if self._replica is not None else None
        if call is None:
            metrics.lane(None, None, self.key.tenant, None).answers[status] += 1
            return
        lane = metrics.lane(call.model, variant, self.key.tenant, call.tier)
        lane.answers[status] += 1
        lane.meter(tokens, float(charge.amount))
        timings = metrics.timings(call.model, variant, call.tier)
        duration_seconds = now_seconds - self._request.received_seconds
        timings.duration.observe(duration_seconds)
        first_token_seconds, per_token_seconds = self._first_token_seconds, None
        if first_token_seconds is not None:
            timings.time_to_first_token.observe(first_token_seconds)
            if outcome.is_whole and tokens.output_tokens > 1:
                per_token_seconds = (duration_seconds - first_token_seconds) / (
                    tokens.output_tokens - 1
                )
                timings.time_per_output_token.observe(per_token_seconds)
        # What was forgotten was never a request that anybody could have served.
        if self._limits is None:
            return
        if call.tier is ServiceTier.FLEX:
            return
        signals = self._books.signals_of(call.model)
        if per_token_seconds is not None:
            signals.note_time_per_output_token(now_seconds, per_token_seconds)
        signals.interactive.note_end(outcome, first_token_seconds, per_token_seconds)

    def _trace(
        self, outcome: Outcome, status: int, tokens: TokenCounts, charge: Money, code: str
    ) -> None:
        note_request_spans(
            self.trace,
            RequestFacts(
                request=self._request,
                request_id=self.request_id,
                tenant=self.key.tenant,
                clock=self._books.clock,
                call=self._call,
                operation=self._operation,
                queue_span=self._queue_span,
                attempts=self._attempts,
                first_token_seconds=self._first_token_seconds,
                outcome=outcome,
                status=status,
                code=code,
                tokens=tokens,
                charge=charge,
            ),
        )
        self._books.tracer.finish(self.trace)

    def _log(
        self,
        outcome: Outcome,
        status: int,
        tokens: TokenCounts,
        charge: Money,
        code: str,
        now_seconds: float,
        unix_seconds: float,
    ) -> None:
        request, call, replica = self._request, self._call, self._replica
        entry = AccessEntry(
            unix_seconds=unix_seconds,
            request_id=self.request_id,
            trace_id=self.trace.trace_id,
            method=request.method,
            path=request.path,
            status=status,
            code=code,
            peer=request.peer,
            duration_seconds=now_seconds - request.received_seconds,
            client_request_id=client_request_id(request.headers),
            tenant=self.key.tenant,
            key_id=self.key.key_id,
        )
        if call is not None:
            entry.model = call.model
            entry.tier = call.tier.value
            entry.outcome = outcome.value
            entry.is_stream = call.is_stream
            entry.attempts = len(self._attempts)
            entry.input_tokens = tokens.input_tokens
            entry.cached_tokens = tokens.cached_tokens
            entry.output_tokens = tokens.output_tokens
            entry.charge = str(charge)
            entry.queue_wait_seconds = self._queue_wait_seconds
            entry.time_to_first_token_seconds = self._first_token_seconds
        if replica is not None:
            entry.variant = replica.variant
            entry.replica_id = replica.replica_id
        self._books.write_access(entry)


MAX_CLIENT_REQUEST_ID_BYTES = 128
"""Enough for any id scheme; the rest of a longer one is cut."""


def client_request_id(headers: dict[bytes, bytes]) -> str:
    """Return the id a client gave its request, for joining its logs with ours."""
    value = headers.get(b"x-client-request-id") or headers.get(b"x-request-id") or b""
    return value[:MAX_CLIENT_REQUEST_ID_BYTES].decode("latin-1")
