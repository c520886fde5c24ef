"""One request from its last byte to the end of its answer.

The walk: read the body, check model and limits, get a place at a replica, pass
the answer through, account it. An attempt that fails before the client saw a
byte goes to another replica, and so does the rest of a stream whose replica is
lost. However the walk ends, an admitted request is accounted exactly once.
"""

from __future__ import annotations

import asyncio
import logging
import math
from decimal import Decimal
from typing import TYPE_CHECKING

import orjson

from trierarch.core.errors import TrierarchError
from trierarch.core.identifiers import TenantId
from trierarch.core.quantities import TokenCounts
from trierarch.core.usage import Outcome, ServiceTier
from trierarch.cost.budgets import TenantTerms
from trierarch.gateway.admission.authenticate import check_model_allowed
from trierarch.gateway.admission.dispatch import ModelDispatcher, Ticket
from trierarch.gateway.admission.limits import KeyLimits, limit_headers
from trierarch.gateway.continuation import Continuation, SentText, plan_continuation
from trierarch.gateway.endpoints.endpoint import (
    GenerationEndpoint,
    GenerationRequest,
    LocalEndpoint,
)
from trierarch.gateway.errors import (
    GatewayError,
    from_engine,
    internal_error,
    model_not_found,
    not_ready,
    queue_full,
    queue_timeout,
    shutting_down,
    tier_shed,
    unavailable,
    upstream_error,
)
from trierarch.gateway.metering import StreamMeter, price_answer
from trierarch.gateway.relay import Relay
from trierarch.gateway.settlement import Account
from trierarch.gateway.spending import Spending, most_output_tokens
from trierarch.gateway.wire.client import UpstreamConnection, UpstreamFailure
from trierarch.gateway.wire.message import HttpRequest, HttpResponse
from trierarch.gateway.wire.server import ServerConnection
from trierarch.routing.ejection import FailureKind
from trierarch.routing.replica_selection import ReplicaLoad
from trierarch.routing.retry import RetryVerdict, decide_retry

if TYPE_CHECKING:
    from trierarch.gateway.handler import GatewayHandler

_logger = logging.getLogger(__name__)

FLEX_RELEASE_RATIO = 0.25
"""In this last share of its time a flex request is held no longer by a closed lane."""


class Exchange:
    """Answers one request; a ``ResponseProducer`` and ``RelayOwner``."""

    def __init__(
        self,
        gateway: GatewayHandler,
        account: Account,
        request: HttpRequest,
        client: ServerConnection,
        endpoint: GenerationEndpoint | LocalEndpoint,
    ) -> None:
        self._gateway = gateway
        self._account = account
        self._request = request
        self._client = client
        self._endpoint = endpoint
        self._limits: KeyLimits | None = None
        self._client_left = False
        self._upstream: UpstreamConnection | None = None
        self._is_paused = False
        self._relay: Relay | None = None
        self._sent: SentText | None = None
        self._continuation: Continuation | None = None
        self._place: tuple[ModelDispatcher, ReplicaLoad] | None = None
        self._place_tokens = 0
        self._begun: TenantId | None = None
        self._spending: Spending | None = None
        self._covering: asyncio.Task[None] | None = None
        self._tier = ServiceTier.DEFAULT
        self._input_tokens_to_do = 0
        self.task = asyncio.get_running_loop().create_task(self._run())

    # --- ResponseProducer -------------------------------------------------------------

    def client_gone(self) -> None:
        """Stop everything this request does."""
        self._client_left = True
        self.task.cancel()

    def pause(self) -> None:
        """Stop reading from the replica."""
        self._is_paused = True
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        """Read on."""
        self._is_paused = False
        if self._upstream is not None:
            self._upstream.resume()

    # --- the walk ---------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            if isinstance(self._endpoint, LocalEndpoint):
                await self._answer_here(self._endpoint)
            else:
                await self._generate(self._endpoint)
        except GatewayError as error:
            self._refuse(error)
        except TrierarchError as error:
            self._refuse(unavailable(str(error)))
        except asyncio.CancelledError:
            self._drop_upstream()
            if not self._client_left:
                self._refuse(shutting_down())
                raise
            tokens = self._relay.meter.tokens_so_far() if self._relay is not None else None
            self._account.end(Outcome.ABORTED, 499, tokens, code="client_closed_request")
        except Exception:
            _logger.exception(
                "a request failed inside the gateway",
                extra={"request_id": self._account.request_id},
            )
            self._drop_upstream()
            self._refuse(internal_error())
        finally:
            self._leave_place()
            self._give_back()

    async def _answer_here(self, endpoint: LocalEndpoint) -> None:
        key, name = self._account.key, self._request.path[len(endpoint.path) :]
        answer = await endpoint.answer(self._gateway, key, name)
        self._limits = self._gateway.limits_of(key)
        headers = self._answer_headers()
        self._account.end(Outcome.COMPLETED, 200)
        self._client.respond(HttpResponse(200, orjson.dumps(answer), headers))

    async def _generate(self, endpoint: GenerationEndpoint) -> None:
        gateway, account = self._gateway, self._account
        terms = gateway.tenants.terms_of(account.key.tenant)
        call = await self._read(endpoint, terms)
        dispatcher = gateway.directory.dispatcher_of(call.model)
        if dispatcher is None:
            raise (model_not_found(call.model) if gateway.directory.is_loaded else not_ready())
        expected_output_tokens = self._expected_output(call)
        rate_output_tokens = most_output_tokens(call) or expected_output_tokens
        rate_tokens = call.input_tokens_estimate + rate_output_tokens
        if terms is not None:
            gateway.tenants.check_parallel(terms)
        self._limits = gateway.limiter.admit(account.key.key_id, rate_tokens, terms)
        account.admit(call, endpoint.operation, self._limits, rate_tokens, self._spending)
        gateway.check_rate(account, call)
        if terms is not None:
            gateway.tenants.begin(terms.tenant)
            self._begun = terms.tenant
        self._place_tokens = call.input_tokens_estimate + expected_output_tokens
        self._tier = call.tier
        if call.tier in dispatcher.admission.shed_tiers:
            gateway.metrics.count_shed(call.model, call.tier)
            raise tier_shed(call.model, call.tier, gateway.retry_after_seconds(call.model))
        ticket = self._new_ticket(call, 0 if terms is None else terms.priority)
        load = dispatcher.try_place(ticket)
        if load is None:
            if dispatcher.is_full(call.tier):
                raise queue_full(call.model, gateway.retry_after_seconds(call.model))
            load = await self._wait(dispatcher, ticket, call, came_before=False)
        else:
            account.note_place(load, 0.0)
        await self._attempt_until_answered(dispatcher, ticket, call, load)

    async def _read(
        self, endpoint: GenerationEndpoint, terms: TenantTerms | None
    ) -> GenerationRequest:
        """Return the request as it is to be answered, with what it may cost reserved.

        Raises:
            GatewayError: If it is none, or its key or tenant may not make it.
        """
        gateway, key = self._gateway, self._account.key
        body: bytes | bytearray = self._request.body
        default_max_tokens = gateway.settings.default_max_tokens
        call = endpoint.read(body, default_max_tokens=default_max_tokens)
        check_model_allowed(key, call.model)
        if terms is None:
            return call
        gateway.tenants.check_model(terms, call.model)
        if not terms.budgets:
            return call
        gateway.tenants.check_pace(terms)
        keeper = gateway.tenants.keeper
        while True:
            worst_usd = self._worst_charge(call)
            spending = await Spending.begin(keeper, terms, call.model, worst_usd)
            if isinstance(spending, Spending):
                self._spending = spending
                return call
            body = orjson.dumps({**orjson.loads(body), "model": spending})
            call = endpoint.read(body, default_max_tokens=default_max_tokens)
            check_model_allowed(key, spending)

    def _worst_charge(self, call: GenerationRequest) -> Decimal:
        """Return the most that a request may cost; the usual output where it sets no limit."""
        output = most_output_tokens(call) or self._expected_output(call)
        tokens = TokenCounts(call.input_tokens_estimate, 0, output)
        now_unix_seconds = self._gateway.clock.unix_seconds()
        return self._gateway.rates.charge(call.model, call.tier, tokens, now_unix_seconds).amount

    def _new_ticket(self, call: GenerationRequest, priority: int) -> Ticket:
        settings, came_seconds = self._gateway.settings, self._request.received_seconds
        patience_seconds, release_seconds = settings.queue_timeout_seconds, -math.inf
        if call.tier is ServiceTier.FLEX:
            patience_seconds = settings.flex_queue_timeout_seconds
            release_seconds = came_seconds + (1.0 - FLEX_RELEASE_RATIO) * patience_seconds
        return Ticket(
            call.tier,
            self._place_tokens,
            came_seconds + patience_seconds,
            release_seconds,
            priority,
            came_seconds=came_seconds,
        )

    def _expected_output(self, call: GenerationRequest) -> int:
        per_choice = int(self._gateway.signals_of(call.model).expected_output_tokens)
        if call.max_output_tokens is not None:
            per_choice = min(per_choice, call.max_output_tokens)
        return max(1, per_choice * call.choice_count * call.prompt_count)

    async def _wait(
        self,
        dispatcher: ModelDispatcher,
        ticket: Ticket,
        call: GenerationRequest,
        *,
        came_before: bool,
    ) -> ReplicaLoad:
        clock = self._gateway.clock
        began_seconds = clock.monotonic_seconds()

        def timeout_error() -> GatewayError:
            return queue_timeout(call.model, clock.monotonic_seconds() - began_seconds)

        load = await dispatcher.wait(ticket, came_before=came_before, timeout_error=timeout_error)
        self._account.note_place(load, clock.monotonic_seconds() - began_seconds)
        return load

    async def _attempt_until_answered(
        self,
        dispatcher: ModelDispatcher,
        ticket: Ticket,
        call: GenerationRequest,
        load: ReplicaLoad,
    ) -> None:
        settings = self._gateway.settings
        self._sent = SentText() if call.can_go_on else None
        while True:
            self._place = (dispatcher, load)
            self._place_tokens = ticket.tokens
            self._input_tokens_to_do = call.input_tokens_estimate
            failure = await self._attempt(call, load)
            if failure is None:
                broke_off = self._relay.broke_off if self._relay is not None else None
                if broke_off is None:
                    dispatcher.note_success(load)
                else:
                    dispatcher.note_failure(load, broke_off)
                return
            self._account.attempt_failed(failure.kind)
            dispatcher.note_failure(load, failure.kind)
            ticket.excluded.add(load.endpoint.replica_id)
            self._leave_place()
            is_cut = self._relay is not None and self._relay.is_cut
            verdict = decide_retry(
                failure.kind,
                failed_attempts=self._account.attempts,
                max_attempts=settings.max_attempts,
                other_replica_ready=dispatcher.has_other_ready(ticket.excluded),
                is_over=is_cut and not self._can_go_on(call),
            )
            how = "The engine's answer broke off" if is_cut else "The engine failed"
            error = upstream_error(f"{how}: {failure}.")
            if verdict is RetryVerdict.GIVE_UP:
                raise error
            if is_cut:
                self._gateway.metrics.count_continuation(call.model, failure.kind)
                now_seconds = self._gateway.clock.monotonic_seconds()
                ticket.renew(now_seconds + settings.queue_timeout_seconds)
            else:
                self._gateway.metrics.count_retry(call.model, failure.kind)
            try:
                load = await self._wait(dispatcher, ticket, call, came_before=True)
            except GatewayError:
                if is_cut:  # what waiting is like tells nothing to a client that has a part
                    raise error from None
                raise

    def _can_go_on(self, call: GenerationRequest) -> bool:
        """Prepare to have a cut stream continued; return whether that is possible."""
        endpoint, relay = self._endpoint, self._relay
        if relay is None or self._sent is None or isinstance(endpoint, LocalEndpoint):
            return False
        tokens = relay.meter.tokens_so_far()
        body = call.upstream_body
        self._continuation = plan_continuation(endpoint.go_on, body, self._sent, tokens)
        return self._continuation is not None

    async def _attempt(self, call: GenerationRequest, load: ReplicaLoad) -> UpstreamFailure | None:
        """Try one replica; return None if the client has its answer."""
        replica = load.endpoint
        address = (replica.host, replica.port)
        pool = self._gateway.pool
        span_id = self._account.start_attempt()
        payload = self._upstream_request(call, replica.host, replica.port, span_id)
        try:
            connection = pool.take_idle(address)
            if connection is not None:
                failure = await self._exchange_on(connection, payload, call)
                if failure is None or not failure.is_stale_connection:
                    return await self._judge(call, failure)
            connection = await pool.connect(address)
        except UpstreamFailure as failure:
            return failure
        return await self._judge(call, await self._exchange_on(connection, payload, call))

    async def _exchange_on(
        self, connection: UpstreamConnection, payload: bytes, call: GenerationRequest
    ) -> UpstreamFailure | None:
        meter = StreamMeter(
            self._account.price,
            wants_usage=call.wants_usage,
            wants_continuous_usage=call.wants_continuous_usage,
            prompt_count=call.prompt_count,
            choice_count=call.choice_count,
            before=self._continuation.before if self._continuation else None,
        )
        watch = self._spending.watch(call, self._account.price) if self._spending else None
        relay = Relay(self, self._client, connection, meter, watch, self._sent, self._continuation)
        self._upstream, self._relay = connection, relay
        try:
            connection.send(payload, relay)
            if self._is_paused:
                connection.pause()
            return await relay.done
        except UpstreamFailure as failure:
            return failure
        finally:
            # A cancelled wait means that the answer still runs: whoever cancelled closes it.
            if relay.done.done() and not relay.done.cancelled():
                if self._upstream is not None:
                    connection.resume()
                self._upstream = None

    async def _judge(
        self, call: GenerationRequest, failure: UpstreamFailure | None
    ) -> UpstreamFailure | None:
        """Return the failure of an attempt, or answer the client and return None.

        Raises:
            GatewayError: If the engine refused the request itself, or no budget can pay for it.
        """
        relay = self._relay
        if relay is None:
            return failure
        if relay.error is not None and relay.error.status < 500 and not relay.has_started:
            self._account.forget()
            raise relay.error
        if relay.refusal is not None:
            raise relay.refusal
        if failure is not None or relay.has_started:
            return failure
        status, body = relay.status, bytes(relay.body)
        if status == 200:
            answer, tokens = price_answer(body, self._account.price, call.tier.value)
            if self._spending is not None:
                charge_usd = self._account.price(tokens).amount
                if not await self._spending.cover(charge_usd):
                    raise self._spending.refusal()
            headers = self._answer_headers()
            self._account.end(Outcome.COMPLETED, 200, tokens)
            self._client.respond(HttpResponse(200, answer, headers))
            return None
        error = from_engine(status, body)
        if status >= 500:
            kind = FailureKind.UNAVAILABLE if status == 503 else FailureKind.SERVER_ERROR
            return UpstreamFailure(kind, error.message, response_begun=True)
        if error.status < 500:
            # The engine found the request invalid: it was never admitted.
            self._account.forget()
        raise error

    def _upstream_request(
        self, call: GenerationRequest, host: str, port: int, span_id: str
    ) -> bytes:
        trace = self._account.trace
        body = self._continuation.body if self._continuation else call.upstream_body
        tracestate = b"tracestate: " + trace.tracestate + b"\r\n" if trace.tracestate else b""
        head = (
            f"POST {self._endpoint.path} HTTP/1.1\r\n"
            f"host: {f'[{host}]' if ':' in host else host}:{port}\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n"
            f"x-request-id: {self._account.request_id}\r\n"
            f"traceparent: {trace.traceparent(span_id)}\r\n"
        )
        return b"%b%b\r\n%b" % (head.encode(), tracestate, body)

    # --- RelayOwner -------------------------------------------------------------------

    def stream_headers(self) -> bytes:
        """Note the first event; return the header lines of the answer."""
        self._account.note_first_token()
        if self._place is not None:
            # The prompt is worked off; what is left is the output.
            dispatcher, load = self._place
            dispatcher.reduce_work(load, self._input_tokens_to_do)
            self._place_tokens -= self._input_tokens_to_do
            self._input_tokens_to_do = 0
        return self._answer_headers()

    def stream_lacks(self, usd: Decimal) -> None:
        """Ask the ledger for more while the stream is held."""
        if self._spending is not None and self._relay is not None:
            cover = self._cover(self._spending, self._relay, usd)
            self._covering = asyncio.get_running_loop().create_task(cover)

    async def _cover(self, spending: Spending, relay: Relay, usd: Decimal) -> None:
        if await spending.cover(usd):
            relay.go_on()
        else:
            relay.end_unpaid(spending.refusal())

    def upstream_left(self) -> None:
        """Forget the connection."""
        self._upstream = None

    def stream_ended(self, outcome: Outcome, tokens: TokenCounts | None, code: str) -> None:
        """Account the request before its last bytes leave."""
        self._account.end(outcome, 200, tokens, code=code)

    # --- ends -------------------------------------------------------------------------

    def _answer_headers(self) -> bytes:
        limits = limit_headers(self._limits) if self._limits is not None else b""
        return self._account.answer_headers() + limits

    def _refuse(self, error: GatewayError) -> None:
        """Send an error; whether it was the client's, the queue's or the engine's is accounted."""
        relay = self._relay
        if relay is not None and relay.has_started and not relay.has_ended:
            relay.break_off(error, FailureKind.SERVER_ERROR)
            return
        outcome = Outcome.FAILED
        if error.code in {"queue_full", "queue_timeout"} and not self._account.attempts:
            outcome = Outcome.SHED
        if self._limits is None and self._account.key is not None:
            self._limits = self._gateway.limits_of(self._account.key)
        headers = self._answer_headers()
        self._account.end(outcome, error.status, code=error.code)
        if relay is None or not relay.has_started:
            self._client.respond(error.as_response(headers))

    def _drop_upstream(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None

    def _give_back(self) -> None:
        if self._covering is not None:
            self._covering.cancel()
        if self._spending is not None:
            self._spending.release()
        if self._begun is not None:
            self._gateway.tenants.end(self._begun)
            self._begun = None

    def _leave_place(self) -> None:
        if self._place is not None:
            dispatcher, load = self._place
            self._place = None
            dispatcher.release(load, self._tier, self._place_tokens)
            self._place_tokens = 0
