"""What an endpoint is, and how a path finds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from trierarch.core.identifiers import ModelName, TenantId
from trierarch.core.usage import ServiceTier
from trierarch.gateway.admission.tenants import BudgetLeft
from trierarch.gateway.errors import GatewayError, method_not_allowed, unknown_path
from trierarch.ports import ApiKey, TenantUsage


@dataclasses.dataclass(slots=True)
class GenerationRequest:
    """What the gateway needs to know of a request that an engine will answer.

    Attributes:
        model: Served model name.
        tier: Lane.
        is_stream: The client wants server-sent events.
        wants_usage: ``stream_options.include_usage``.
        wants_continuous_usage: vLLM's ``stream_options.continuous_usage_stats``.
        max_output_tokens: Per choice, as the engine will apply it; None if unbounded.
        choice_count: ``n``.
        prompt_count: Prompts in one request.
        input_tokens_estimate: For routing and rate limits, before the engine counts.
        upstream_body: What the engine gets.
        is_one_text: Each answer to it is one text and nothing else, as far as the body tells.
    """

    model: ModelName
    tier: ServiceTier
    is_stream: bool
    wants_usage: bool
    wants_continuous_usage: bool
    max_output_tokens: int | None
    choice_count: int
    prompt_count: int
    input_tokens_estimate: int
    upstream_body: bytes
    is_one_text: bool

    @property
    def can_go_on(self) -> bool:
        """Whether another replica can go on with its answer: one stream of one text."""
        is_one_stream = self.is_stream and self.choice_count * self.prompt_count == 1
        # A client that follows the counts would see them begin again.
        return self.is_one_text and is_one_stream and not self.wants_continuous_usage


class ReadGeneration(Protocol):
    """Checks a request body and rewrites it for the engine."""

    def __call__(
        self, body: bytes | bytearray, *, default_max_tokens: int | None
    ) -> GenerationRequest:
        """Return the request.

        Raises:
            GatewayError: If the body is not one.
        """
        ...


class ContinueGeneration(Protocol):
    """Asks for the rest of an answer."""

    def __call__(self, body: bytes, *, text: str, output_tokens: int) -> bytes | None:
        """Return the body of a request whose answer is the rest; None if nothing is left.

        Args:
            body: Of the first request to an engine.
            text: What there is of the answer.
            output_tokens: Its length.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class GenerationEndpoint:
    """A path whose requests go to an engine.

    Attributes:
        path: At the gateway and at the engine.
        operation: ``gen_ai.operation.name``.
        read: Checks and rewrites the body.
        go_on: Asks for the rest of an answer.
    """

    path: str
    operation: str
    read: ReadGeneration
    go_on: ContinueGeneration
    method: str = "POST"

    def matches(self, path: str) -> bool:
        """Return whether this endpoint has the path."""
        return path == self.path


@dataclasses.dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as ``/v1/models`` lists it.

    Attributes:
        name: Served name.
        created_unix_seconds: When the gateway first heard of it.
        max_model_tokens: Context length; 0 if not known.
    """

    name: ModelName
    created_unix_seconds: float
    max_model_tokens: int


class LocalContext(Protocol):
    """What endpoints that are answered here can ask."""

    def served_models(self) -> Sequence[ServedModel]:
        """Return every model, also those without a ready replica."""
        ...

    async def usage_of(self, tenant: TenantId) -> TenantUsage:
        """Return a tenant's totals, its last finished request included.

        Raises:
            Unavailable: If the ledger does not answer.
        """
        ...

    def budgets_of(self, tenant: TenantId) -> Sequence[BudgetLeft]:
        """Return a tenant's budgets as they are now."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """A path that the gateway answers itself.

    Attributes:
        path: Exact path; with ``has_name`` everything below it.
        answer: Takes the context, the caller's key and the name; returns a JSON value.
        has_name: Whether the rest of the path is a name (it may contain slashes).
    """

    path: str
    answer: Callable[[LocalContext, ApiKey, str], Awaitable[dict[str, Any]]]
    has_name: bool = False
    method: str = "GET"

    def matches(self, path: str) -> bool:
        """Return whether this endpoint has the path."""
        if self.has_name:
            return len(path) > len(self.path) and path.startswith(self.path)
        return path == self.path


Endpoint = GenerationEndpoint | LocalEndpoint


class Routes:
    """Path and method to endpoint."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._endpoints = tuple(endpoints)
        self._exact = {
            (endpoint.method, endpoint.path): endpoint
            for endpoint in self._endpoints
            if not (isinstance(endpoint, LocalEndpoint) and endpoint.has_name)
        }

    def find(self, method: str, path: str) -> Endpoint:
        """Return the endpoint.

        Raises:
            GatewayError: 404 for a path that no endpoint has, 405 for a wrong method.
        """
        endpoint = self._exact.get((method, path))
        if endpoint is not None:
            return endpoint
        matching = [candidate for candidate in self._endpoints if candidate.matches(path)]
        for candidate in matching:
            if candidate.method == method:
                return candidate
        raise self._refusal(method, path, matching)

    @staticmethod
    def _refusal(method: str, path: str, matching: Sequence[Endpoint]) -> GatewayError:
        if matching:
            return method_not_allowed(method, path, ", ".join(e.method for e in matching))
        return unknown_path(method, path)
