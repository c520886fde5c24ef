"""How the gateway process runs: addresses, limits, intervals.

Read once from ``TRIERARCH_GATEWAY_*`` and passed down. What a model or a tenant
may do belongs in custom resources and the ledger, not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from trierarch.settings.environment import read_settings

ENVIRONMENT_PREFIX = "TRIERARCH_GATEWAY_"

Port = Annotated[int, Field(ge=1, le=65535)]


class StaticReplica(BaseModel):
    """A replica at a fixed address, for running the gateway without a controller."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """Served model name."""
    port: Port
    """TCP port of the engine's OpenAI server."""
    host: str = "127.0.0.1"
    """Address of the engine's OpenAI server."""
    variant: str = "static"
    """Which way of running the model this is."""
    max_model_tokens: int = 0
    """Context length; 0 if not known."""


class GatewaySettings(BaseSettings):
    """Settings of ``python -m trierarch.gateway``."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        populate_by_name=True,
    )

    host: str = "127.0.0.1"
    """Address of the data port and the admin port."""
    port: Port = 8080
    """Data port: what tenants talk to."""
    admin_port: Port = 9090
    """Admin port: health, metrics, internal API. Not for tenants."""

    ledger_url: str = ""
    """SQLAlchemy address of the ledger: API keys, rates, usage."""
    spool_dir: Path | None = None
    """Folder of the usage spool; usage is durable here before it is in the ledger."""

    replicas_url: str = ""
    """Where the controller publishes the replica list; http only."""
    static_replicas: tuple[StaticReplica, ...] = ()
    """Fixed replicas instead of a list, as JSON."""
    models: tuple[str, ...] = ()
    """Models that exist even while they have no replica, as JSON; requests for them wait."""
    replica_poll_interval_seconds: PositiveFloat = 0.25
    """How often the replica list is read."""
    ready_without_replicas: bool = False
    """Be ready once the replica list has been read, also while no replica is: in a cluster, where
    requests for a model that is scaled to zero have to reach a gateway to start it."""

    max_header_bytes: PositiveInt = 32 * 1024
    """Request line and headers together; more is refused."""
    max_body_bytes: PositiveInt = 16 * 1024 * 1024
    """Request body; more is refused with 413."""
    header_timeout_seconds: PositiveFloat = 10.0
    """From the first byte of a request to the end of its headers."""
    body_timeout_seconds: PositiveFloat = 60.0
    """From the end of the headers to the end of the body."""
    idle_timeout_seconds: PositiveFloat = 75.0
    """How long a client connection without a request stays open."""
    write_stall_timeout_seconds: PositiveFloat = 60.0
    """How long a client may leave an answer unread before it is given up."""

    max_ongoing_requests_per_replica: PositiveInt = 16
    """Requests at one replica; further ones wait at the gateway, where the autoscaler counts."""
    max_queued_requests_per_model: PositiveInt = 512
    """Waiting requests, flex requests counted apart; further ones are refused with queue_full."""
    queue_timeout_seconds: PositiveFloat = 120.0
    """How long a request may wait for a replica, a cold start included; flex requests have
    their own."""
    flex_queue_timeout_seconds: PositiveFloat = 600.0
    """How long a flex request may wait for idle capacity; OpenAI's clients give up at that time
    unless they are told otherwise. In its last quarter it goes in front of nobody, but a lane
    that the autoscaler has closed holds it no longer."""
    max_attempts: PositiveInt = 3
    """Replicas one request may be tried on before its first byte."""
    connect_timeout_seconds: PositiveFloat = 2.0
    """To open a connection to a replica."""
    upstream_silence_timeout_seconds: PositiveFloat = 600.0
    """How long a replica may send nothing on an unfinished answer."""

    lease_seconds: PositiveFloat = 30.0
    """How long this process may spend what it has leased of tenants' budgets while the ledger does
    not answer."""

    default_max_tokens: PositiveInt | None = None
    """Output limit of requests that set none; unset leaves it to the engine."""
    requests_per_minute: PositiveInt = 60_000
    """Limit per API key, enforced by this process."""
    tokens_per_minute: PositiveInt = 100_000_000
    """Limit per API key, enforced by this process; input plus output."""

    otlp_endpoint: str = Field(
        default="",
        validation_alias=AliasChoices(
            "otlp_endpoint",
            f"{ENVIRONMENT_PREFIX}OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
    )
    """Base address of an OTLP/HTTP collector; empty exports no spans."""
    trace_sample_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """Share of requests that are traced if their caller did not decide."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log lines that are written."""
    access_log: bool = True
    """Write one log line per request."""
    drain_timeout_seconds: PositiveFloat = 30.0
    """How long running answers may go on after SIGTERM."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings once.

        Args:
            environment: To look for misspelt names in; the process's own by default.

        Raises:
            InvalidInput: If a value is wrong or a name with our prefix is unknown.
        """
        return read_settings(cls, "gateway", environment)
