"""The spans of one request: the gateway's, its wait, and one per attempt.

Called once, at the end of a request that is sampled and has a reader.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from trierarch.core.clock import Clock
from trierarch.core.identifiers import RequestId, TenantId
from trierarch.core.quantities import Money, TokenCounts
from trierarch.core.replicas import ReplicaEndpoint
from trierarch.core.usage import Outcome
from trierarch.gateway.endpoints.endpoint import GenerationRequest
from trierarch.gateway.wire.message import HttpRequest
from trierarch.observability import names
from trierarch.observability.tracing import RequestTrace, SpanNote


@dataclasses.dataclass(slots=True)
class Attempt:
    """One try at one replica, in monotonic time; ``ended_seconds`` is 0 while it runs."""

    replica: ReplicaEndpoint
    span_id: str
    began_seconds: float
    ended_seconds: float = 0.0
    error: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class RequestFacts:
    """What the spans tell; ``call`` is None for a request that needed no engine."""

    request: HttpRequest
    request_id: RequestId
    tenant: TenantId
    clock: Clock
    call: GenerationRequest | None
    operation: str
    queue_span: tuple[float, float] | None
    attempts: Sequence[Attempt]
    first_token_seconds: float | None
    outcome: Outcome
    status: int
    code: str
    tokens: TokenCounts
    charge: Money


def note_request_spans(trace: RequestTrace, facts: RequestFacts) -> None:
    """Add the spans of a request that has just ended to its trace."""
    now_seconds = facts.clock.monotonic_seconds()
    # Wall time at monotonic zero, so that all spans of a trace share one clock.
    offset_seconds = facts.clock.unix_seconds() - now_seconds
    request, call = facts.request, facts.call
    trace.spans.append(
        SpanNote(
            f"{request.method} {request.path}" if call is not None else request.method,
            SpanKind.SERVER,
            trace.server_span_id,
            trace.parent_span_id,
            offset_seconds + request.received_seconds,
            offset_seconds + now_seconds,
            _server_attributes(facts),
            error=facts.code if facts.status >= 500 else "",
        )
    )
    if facts.queue_span is not None:
        trace.spans.append(
            SpanNote(
                names.SPAN_QUEUE_WAIT,
                SpanKind.INTERNAL,
                trace.new_span_id(),
                trace.server_span_id,
                offset_seconds + facts.queue_span[0],
                offset_seconds + facts.queue_span[1],
                {},
            )
        )
    if call is None:
        return
    for number, attempt in enumerate(facts.attempts, start=1):
        error = attempt.error
        is_last = number == len(facts.attempts)
        if is_last and not error and not facts.outcome.is_whole:
            error = facts.code or facts.outcome.value
        trace.spans.append(
            SpanNote(
                f"{facts.operation} {call.model}",
                SpanKind.CLIENT,
                attempt.span_id,
                trace.server_span_id,
                offset_seconds + attempt.began_seconds,
                offset_seconds + (attempt.ended_seconds or now_seconds),
                _client_attributes(facts, call, attempt, number, error),
                error=error,
            )
        )


def _server_attributes(facts: RequestFacts) -> dict[str, AttributeValue]:
    request, call = facts.request, facts.call
    attributes: dict[str, AttributeValue] = {
        names.HTTP_REQUEST_METHOD: request.method,
        names.HTTP_RESPONSE_STATUS_CODE: facts.status,
        names.URL_PATH: request.path,
        names.URL_SCHEME: "http",
        names.CLIENT_ADDRESS: request.peer,
        names.USER_AGENT_ORIGINAL: request.headers.get(b"user-agent", b"").decode("latin-1"),
        names.TRIERARCH_REQUEST_ID: facts.request_id,
        names.TRIERARCH_TENANT: facts.tenant,
    }
    if call is not None:
        attributes[names.HTTP_ROUTE] = request.path
        attributes[names.TRIERARCH_TIER] = call.tier.value
        attributes[names.TRIERARCH_OUTCOME] = facts.outcome.value
        attributes[names.TRIERARCH_CHARGE_USD] = str(facts.charge)
    if facts.code:
        attributes[names.ERROR_TYPE] = facts.code
    return attributes


def _client_attributes(
    facts: RequestFacts, call: GenerationRequest, attempt: Attempt, number: int, error: str
) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        names.GEN_AI_OPERATION_NAME: facts.operation,
        names.GEN_AI_PROVIDER_NAME: names.GEN_AI_PROVIDER_VLLM,
        names.GEN_AI_REQUEST_MODEL: call.model,
        names.GEN_AI_REQUEST_STREAM: call.is_stream,
        names.SERVER_ADDRESS: attempt.replica.host,
        names.SERVER_PORT: attempt.replica.port,
        names.TRIERARCH_REPLICA_ID: attempt.replica.replica_id,
        names.TRIERARCH_VARIANT: attempt.replica.variant,
        names.TRIERARCH_ATTEMPT: number,
    }
    if call.max_output_tokens is not None:
        attributes[names.GEN_AI_REQUEST_MAX_TOKENS] = call.max_output_tokens
    if call.choice_count != 1:
        attributes[names.GEN_AI_REQUEST_CHOICE_COUNT] = call.choice_count
    if error:
        attributes[names.ERROR_TYPE] = error
    if number == len(facts.attempts) and not attempt.error:
        tokens = facts.tokens
        attributes[names.GEN_AI_RESPONSE_MODEL] = call.model
        attributes[names.GEN_AI_USAGE_INPUT_TOKENS] = tokens.input_tokens
        attributes[names.GEN_AI_USAGE_OUTPUT_TOKENS] = tokens.output_tokens
        attributes[names.GEN_AI_USAGE_CACHED_TOKENS] = tokens.cached_tokens
        attributes[names.GEN_AI_USAGE_REASONING_TOKENS] = tokens.reasoning_tokens
        if facts.first_token_seconds is not None:
            attributes[names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = (
                facts.request.received_seconds + facts.first_token_seconds - attempt.began_seconds
            )
    return attributes
