"""Every metric and every span attribute that Trierarch writes, in one list.

Dashboards, alerts and ``docs/reference/metrics.md`` are made from this list.
OpenTelemetry's GenAI conventions have no stable release, so their names are
constants of our own; ours carry the ``trierarch.`` prefix.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

LATENCY_BUCKETS_SECONDS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip
"""From a short answer of a small model to a long one of a large model."""

TIME_TO_FIRST_TOKEN_BUCKETS_SECONDS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    30.0, 60.0,
)  # fmt: skip
"""The buckets of ``gen_ai.server.time_to_first_token``, and two more for waits at a cold start."""

TIME_PER_OUTPUT_TOKEN_BUCKETS_SECONDS = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
)  # fmt: skip
"""The buckets of ``gen_ai.server.time_per_output_token``."""

DECISION_BUCKETS_SECONDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)
"""A scaling decision is arithmetic; a second would be a defect."""


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """One Prometheus metric.

    Attributes:
        name: With its suffix, as a query writes it.
        kind: Prometheus type.
        labels: In the order in which code passes them.
        meaning: One sentence for the reference page and the HELP line.
        buckets: Upper bounds of a histogram.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()


GATEWAY_REQUESTS = Metric(
    "trierarch_gateway_requests_total",
    "counter",
    ("model", "variant", "tenant", "tier", "code"),
    "Answers by HTTP status; 499 is a client that left. Labels are empty where not known.",
)
GATEWAY_REQUEST_DURATION = Metric(
    "trierarch_gateway_request_duration_seconds",
    "histogram",
    ("model", "variant", "tier"),
    "From the last byte of the request to the last byte of the answer, queue included.",
    LATENCY_BUCKETS_SECONDS,
)
GATEWAY_TIME_TO_FIRST_TOKEN = Metric(
    "trierarch_gateway_time_to_first_token_seconds",
    "histogram",
    ("model", "variant", "tier"),
    "From the last byte of a streamed request to its first event, queue included.",
    TIME_TO_FIRST_TOKEN_BUCKETS_SECONDS,
)
GATEWAY_TIME_PER_OUTPUT_TOKEN = Metric(
    "trierarch_gateway_time_per_output_token_seconds",
    "histogram",
    ("model", "variant", "tier"),
    "Mean time per output token after the first, of completed streams with two tokens or more.",
    TIME_PER_OUTPUT_TOKEN_BUCKETS_SECONDS,
)
GATEWAY_QUEUE_DEPTH = Metric(
    "trierarch_gateway_queue_depth",
    "gauge",
    ("model", "tier"),
    "Requests that wait at the gateway for a place at a replica.",
)
GATEWAY_QUEUE_WAIT = Metric(
    "trierarch_gateway_queue_wait_seconds",
    "histogram",
    ("model", "tier"),
    "How long a request waited for a place at a replica; 0 if it did not.",
    LATENCY_BUCKETS_SECONDS,
)
GATEWAY_TOKENS = Metric(
    "trierarch_gateway_tokens_total",
    "counter",
    ("model", "variant", "tenant", "tier", "kind"),
    "Metered tokens; kind is input (cached included), cached or output.",
)
GATEWAY_SPEND = Metric(
    "trierarch_gateway_spend_usd_total",
    "counter",
    ("model", "variant", "tenant", "tier"),
    "Charges by the rate card. For graphs; the ledger holds the exact amounts.",
)
GATEWAY_ONGOING_REQUESTS = Metric(
    "trierarch_gateway_ongoing_requests",
    "gauge",
    ("model",),
    "Requests sent to replicas and not finished.",
)
GATEWAY_FLEX_LANE_OPEN = Metric(
    "trierarch_gateway_flex_lane_open",
    "gauge",
    ("model",),
    "1 while flex requests may start, 0 while the autoscaler has them wait for idle capacity.",
)
GATEWAY_SHED_REQUESTS = Metric(
    "trierarch_gateway_shed_requests_total",
    "counter",
    ("model", "tier"),
    "Requests refused because the autoscaler sheds their tier to keep its cost target.",
)
GATEWAY_RELEGATED = Metric(
    "trierarch_gateway_relegated_total",
    "counter",
    ("model", "tier"),
    "Requests that waited too long to meet their time to first token and went behind those that"
    " can.",
)
GATEWAY_RETRIES = Metric(
    "trierarch_gateway_retries_total",
    "counter",
    ("model", "reason"),
    "Attempts that failed before the first byte and were tried again.",
)
GATEWAY_CONTINUATIONS = Metric(
    "trierarch_gateway_continuations_total",
    "counter",
    ("model", "reason"),
    "Streams whose replica was lost after the first byte and whose rest was asked of another one.",
)
GATEWAY_REPLICA_LIST_AGE = Metric(
    "trierarch_gateway_replica_list_age_seconds",
    "gauge",
    (),
    "Time since the replica list was last read; it grows while the source does not answer.",
)
GATEWAY_TELEMETRY_DROPPED = Metric(
    "trierarch_gateway_telemetry_dropped_total",
    "counter",
    ("reason",),
    "Spans and access log lines that were given up because their reader was too slow.",
)

AUTOSCALER_DESIRED_REPLICAS = Metric(
    "trierarch_autoscaler_desired_replicas", "gauge", ("model", "variant"), "Decided replicas."
)
AUTOSCALER_READY_REPLICAS = Metric(
    "trierarch_autoscaler_ready_replicas", "gauge", ("model", "variant"), "Replicas that serve."
)
AUTOSCALER_DECISIONS = Metric(
    "trierarch_autoscaler_decisions_total",
    "counter",
    ("model", "reason"),
    "Decisions by the reason that bound them; holding is a decision.",
)
AUTOSCALER_DECISION_DURATION = Metric(
    "trierarch_autoscaler_decision_duration_seconds",
    "histogram",
    ("model",),
    "Time of one pass of the pipeline, without collecting signals.",
    DECISION_BUCKETS_SECONDS,
)
AUTOSCALER_SIGNAL_AGE = Metric(
    "trierarch_autoscaler_signal_age_seconds",
    "gauge",
    ("model",),
    "Age of the oldest signal the last decision used.",
)

COST_PER_MILLION_TOKENS = Metric(
    "trierarch_cost_usd_per_million_tokens",
    "gauge",
    ("model", "variant"),
    "Actual unit cost over the rolling window.",
)
COST_TARGET_PER_MILLION_TOKENS = Metric(
    "trierarch_cost_target_usd_per_million_tokens", "gauge", ("model",), "The configured target."
)
COST_HOURLY_SPEND = Metric(
    "trierarch_cost_hourly_spend_usd",
    "gauge",
    ("model", "variant", "capacity_type"),
    "What the replicas that exist cost per hour now.",
)
COST_IDLE = Metric(
    "trierarch_cost_idle_usd_total",
    "counter",
    ("model", "variant"),
    "Cost of ready capacity that nobody used.",
)
COST_LEDGER_DRIFT = Metric(
    "trierarch_cost_ledger_drift_usd",
    "gauge",
    (),
    "Capacity cost minus the sum of its allocations; anything but 0 is a defect.",
)
COST_BUDGET_REMAINING = Metric(
    "trierarch_cost_budget_remaining_usd", "gauge", ("tenant",), "Left in the current period."
)
COST_BUDGET_BURN_RATE = Metric(
    "trierarch_cost_budget_burn_rate",
    "gauge",
    ("tenant",),
    "Spend speed over allowed speed; 1 uses the budget up exactly at the end of its period.",
)

METRICS: tuple[Metric, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Metric)
)
"""All of them, in the order of this file."""


HTTP_REQUEST_METHOD = "http.request.method"
HTTP_RESPONSE_STATUS_CODE = "http.response.status_code"
HTTP_ROUTE = "http.route"
URL_PATH = "url.path"
URL_SCHEME = "url.scheme"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
CLIENT_ADDRESS = "client.address"
USER_AGENT_ORIGINAL = "user_agent.original"
ERROR_TYPE = "error.type"

GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_STREAM = "gen_ai.request.stream"
GEN_AI_REQUEST_CHOICE_COUNT = "gen_ai.request.choice.count"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"

GEN_AI_PROVIDER_VLLM = "vllm"
"""The conventions name no value for a self-hosted engine; this one is honest."""

TRIERARCH_REQUEST_ID = "trierarch.request_id"
TRIERARCH_TENANT = "trierarch.tenant"
TRIERARCH_VARIANT = "trierarch.variant"
TRIERARCH_TIER = "trierarch.tier"
TRIERARCH_REPLICA_ID = "trierarch.replica_id"
TRIERARCH_ATTEMPT = "trierarch.attempt"
TRIERARCH_OUTCOME = "trierarch.outcome"
TRIERARCH_CHARGE_USD = "trierarch.charge_usd"

SPAN_QUEUE_WAIT = "queue wait"
"""Time between admission and a place at a replica."""

SPAN_ATTRIBUTES: dict[str, str] = {
    HTTP_REQUEST_METHOD: "SERVER span: method.",
    HTTP_RESPONSE_STATUS_CODE: "SERVER span: status; CLIENT span: the engine's status.",
    HTTP_ROUTE: "SERVER span: path pattern.",
    URL_PATH: "SERVER span: path as sent.",
    URL_SCHEME: "SERVER span: always http, TLS ends before the gateway.",
    SERVER_ADDRESS: "CLIENT span: the replica's host.",
    SERVER_PORT: "CLIENT span: the replica's port.",
    CLIENT_ADDRESS: "SERVER span: peer address.",
    USER_AGENT_ORIGINAL: "SERVER span: user agent.",
    ERROR_TYPE: "Any span that failed: error code, or CamelCase reason of a failed attempt.",
    GEN_AI_OPERATION_NAME: "CLIENT span: chat or text_completion.",
    GEN_AI_PROVIDER_NAME: "CLIENT span: vllm.",
    GEN_AI_REQUEST_MODEL: "CLIENT span: served model name.",
    GEN_AI_REQUEST_MAX_TOKENS: "CLIENT span: if the client set it.",
    GEN_AI_REQUEST_STREAM: "CLIENT span: whether the answer is streamed.",
    GEN_AI_REQUEST_CHOICE_COUNT: "CLIENT span: n, if not 1.",
    GEN_AI_RESPONSE_MODEL: "CLIENT span: served model name.",
    GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: "CLIENT span: seconds from sending to the first event.",
    GEN_AI_USAGE_INPUT_TOKENS: "CLIENT span: prompt tokens, cached included.",
    GEN_AI_USAGE_OUTPUT_TOKENS: "CLIENT span: generated tokens, reasoning included.",
    GEN_AI_USAGE_CACHED_TOKENS: "CLIENT span: prompt tokens found in the prefix cache.",
    GEN_AI_USAGE_REASONING_TOKENS: "CLIENT span: reasoning part of the output.",
    TRIERARCH_REQUEST_ID: "SERVER span: x-request-id, also the ledger's key.",
    TRIERARCH_TENANT: "SERVER span: who pays.",
    TRIERARCH_VARIANT: "CLIENT span: how the model is run.",
    TRIERARCH_TIER: "SERVER span: priority, default or flex.",
    TRIERARCH_REPLICA_ID: "CLIENT span: which replica.",
    TRIERARCH_ATTEMPT: "CLIENT span: 1 for the first; retries are siblings.",
    TRIERARCH_OUTCOME: "SERVER span: completed, aborted, failed or shed.",
    TRIERARCH_CHARGE_USD: "SERVER span: the charge as decimal text.",
}
"""What each attribute is, for the reference page."""
