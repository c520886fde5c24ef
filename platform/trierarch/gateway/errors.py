"""The errors a client can get: stable codes in OpenAI's envelope.

Clients decide by ``code`` whether to wait, to change the request or to give up,
so a code never changes its meaning.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import orjson

from trierarch.core.errors import TrierarchError
from trierarch.gateway.wire.message import HttpResponse

INVALID_REQUEST = "invalid_request_error"
AUTHENTICATION = "authentication_error"
PERMISSION = "permission_error"
SERVER_ERROR = "server_error"

_TYPES = {400: INVALID_REQUEST, 401: AUTHENTICATION, 403: PERMISSION}


class GatewayError(TrierarchError):
    """An answer that is an error.

    Attributes:
        status: HTTP status.
        code: Stable word for programs.
        param: The field of the request that is wrong, if one is.
        kind: OpenAI's ``type``; by status if not given.
        retry_after_seconds: When to come back; None says nothing about it.
        extra_headers: Further encoded header lines.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        kind: str = "",
        retry_after_seconds: float | None = None,
        extra_headers: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.kind = kind or _TYPES.get(status, SERVER_ERROR if status >= 500 else INVALID_REQUEST)
        self.retry_after_seconds = retry_after_seconds
        self.extra_headers = extra_headers

    @property
    def message(self) -> str:
        """One sentence for a person."""
        return str(self)

    def envelope(self) -> dict[str, Any]:
        """Return OpenAI's error object."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }

    def as_event(self) -> bytes:
        """Return the error as the last event of a stream that had begun."""
        return b"data: " + orjson.dumps(self.envelope()) + b"\n\n"

    def as_response(self, headers: bytes = b"") -> HttpResponse:
        """Return the error as a whole answer.

        Args:
            headers: Encoded lines that every answer carries.
        """
        if self.retry_after_seconds is not None:
            whole_seconds = max(1, math.ceil(self.retry_after_seconds))
            milliseconds = max(1, math.ceil(self.retry_after_seconds * 1000))
            headers += b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (whole_seconds, milliseconds)
        return HttpResponse(
            self.status,
            orjson.dumps(self.envelope()),
            headers + self.extra_headers,
            code=self.code,
        )


def invalid_api_key() -> GatewayError:
    """No key, or one that is not live."""
    return GatewayError(
        401,
        "invalid_api_key",
        "Incorrect API key provided: send a live key as 'Authorization: Bearer KEY'"
        " or 'x-api-key: KEY'.",
        extra_headers=b"www-authenticate: Bearer\r\n",
    )


def model_not_allowed(model: str) -> GatewayError:
    """The key's owner may not use this model."""
    return GatewayError(
        403, "model_not_allowed", f"This key may not use the model '{model}'.", param="model"
    )


def model_not_found(model: str) -> GatewayError:
    """Nobody serves this model."""
    return GatewayError(
        404, "model_not_found", f"The model '{model}' does not exist.", param="model"
    )


def unknown_path(method: str, path: str) -> GatewayError:
    """A path this gateway does not have."""
    return GatewayError(404, "unknown_url", f"Unknown request URL: {method} {path}.")


def method_not_allowed(method: str, path: str, allowed: str) -> GatewayError:
    """A path that exists, with another method."""
    return GatewayError(
        405,
        "method_not_allowed",
        f"{path} does not support {method}, only {allowed}.",
        extra_headers=b"allow: " + allowed.encode() + b"\r\n",
    )


def invalid_value(message: str, param: str | None = None) -> GatewayError:
    """The body is not a request this endpoint understands."""
    return GatewayError(400, "invalid_value", message, param=param)


def invalid_json() -> GatewayError:
    """The body is not a JSON object."""
    return GatewayError(400, "invalid_json", "The request body is not a valid JSON object.")


def rate_limit_exceeded(what: str, limit: int, retry_after_seconds: float) -> GatewayError:
    """The key's limit per minute is used up."""
    return GatewayError(
        429,
        "rate_limit_exceeded",
        f"Rate limit reached: {limit} {what} per minute. Try again in"
        f" {max(1, math.ceil(retry_after_seconds))} s.",
        kind=what,
        retry_after_seconds=retry_after_seconds,
    )


def parallel_limit_reached(limit: int, retry_after_seconds: float) -> GatewayError:
    """The tenant has as many requests under way as it may have."""
    return GatewayError(
        429,
        "rate_limit_exceeded",
        f"Rate limit reached: {limit} requests at the same time. Try again when one has ended.",
        kind="requests",
        retry_after_seconds=retry_after_seconds,
    )


def spending_throttled(period: str, retry_after_seconds: float) -> GatewayError:
    """The tenant is ahead of the pace at which its budget lasts until its period ends."""
    return GatewayError(
        429,
        "rate_limit_exceeded",
        f"Most of the budget of this {period.lower()} is spent; the rest is spread over the time"
        f" that is left. Try again in {max(1, math.ceil(retry_after_seconds))} s.",
        kind="budget",
        retry_after_seconds=retry_after_seconds,
    )


def insufficient_quota(period: str, amount_usd: Decimal, ends_in_seconds: float) -> GatewayError:
    """A budget of the tenant cannot pay for the request; waiting a moment will not help."""
    hours = math.ceil(ends_in_seconds / 3600.0)
    return GatewayError(
        429,
        "insufficient_quota",
        f"The budget of {amount_usd:f} USD per {period.lower()} cannot pay for this request."
        f" It starts again in {hours} h; a smaller 'max_tokens' may fit into what is left.",
        kind="insufficient_quota",
        extra_headers=b"x-should-retry: false\r\n",
    )


def queue_full(model: str, retry_after_seconds: float) -> GatewayError:
    """Too many requests already wait."""
    return GatewayError(
        503,
        "queue_full",
        f"Too many requests wait for the model '{model}'. Try again later.",
        retry_after_seconds=retry_after_seconds,
    )


def tier_shed(model: str, tier: str, retry_after_seconds: float) -> GatewayError:
    """The autoscaler gives up a lane: the capacity that its cost target pays for is taken."""
    return GatewayError(
        503,
        "queue_full",
        f"The model '{model}' takes no requests of the tier '{tier}' at the moment: others wait"
        " for the capacity there is. Try again later, or ask for a higher tier.",
        param="service_tier",
        retry_after_seconds=retry_after_seconds,
    )


def queue_timeout(model: str, waited_seconds: float) -> GatewayError:
    """No replica had a place in time."""
    return GatewayError(
        504,
        "queue_timeout",
        f"No replica of the model '{model}' had a free place within {waited_seconds:.0f} s.",
    )


def upstream_error(message: str) -> GatewayError:
    """The engine failed."""
    return GatewayError(502, "upstream_error", message)


def internal_error() -> GatewayError:
    """A defect of the gateway itself."""
    return GatewayError(500, "internal_error", "The gateway failed on this request.")


def not_ready() -> GatewayError:
    """The replica list has not been read yet, so nobody knows which models exist."""
    return GatewayError(
        503,
        "not_ready",
        "This gateway has not heard of its replicas yet. Try again.",
        retry_after_seconds=1.0,
    )


def unavailable(message: str) -> GatewayError:
    """A part behind the gateway, not an engine, does not answer."""
    return GatewayError(503, "unavailable", message, retry_after_seconds=1.0)


def unsupported_encoding() -> GatewayError:
    """A compressed body."""
    return GatewayError(
        415, "unsupported_content_encoding", "Request bodies must not be compressed."
    )


def shutting_down() -> GatewayError:
    """This process takes nothing new."""
    return GatewayError(
        503,
        "shutting_down",
        "This gateway is shutting down. Try again.",
        retry_after_seconds=1.0,
    )


def from_engine(status: int, body: bytes) -> GatewayError:
    """Return an engine's refusal in the contract's words.

    vLLM answers ``{"error": {"message", "type", "param", "code": <HTTP status>}}``
    and has no own code for a prompt that is too long.
    """
    try:
        error = orjson.loads(body)["error"]
        message, param = str(error["message"]), error.get("param")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        message, param = f"The engine answered with status {status}.", None
    if not isinstance(param, str):
        param = None
    if status >= 500:
        return upstream_error(f"The engine failed: {message}")
    if status == 400 and is_context_length_message(message):
        return GatewayError(400, "context_length_exceeded", message, param=param)
    if status == 404:
        return GatewayError(404, "model_not_found", message, param=param)
    if status < 400 or status in {401, 403, 429}:
        # About the gateway and its engine, which the client cannot mend.
        return upstream_error(f"The engine refused the gateway: {message}")
    return GatewayError(status, "invalid_value", message, param=param)


def is_context_length_message(message: str) -> bool:
    """Return whether an engine's 400 says that prompt and output do not fit the context."""
    lowered = message.lower()
    return any(
        words in lowered
        for words in ("maximum context length", "maximum model length", "max_model_len")
    )
