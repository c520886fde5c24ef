"""The memory of a running fleet: one record per request, replica and variant.

Records, not one array per field: a step touches many fields of one replica and
of one request, and compiled functions pass a handful of arrays instead of
eighty. Names carry their units; ``-1`` stands for "none" in every link.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Records = NDArray[np.void]

NONE = -1
NEVER = math.inf

# Status of a request: each ends in exactly one of COMPLETED and LOST, or is still under way.
EXPECTED, QUEUED, ON_REPLICA, COMPLETED, LOST = range(5)
# Why a request was lost.
TOO_LARGE, QUEUE_FULL, QUEUE_TIMEOUT, SHED = 1, 2, 3, 4
# State of a replica's slot.
FREE, STARTING, READY, DRAINING, RELEASED = range(5)

PRIORITY, DEFAULT, FLEX = range(3)
TIERS = 3

HISTOGRAM_BINS = 128
HISTOGRAM_FLOOR_SECONDS = 1e-3
"""Upper edge of the first bin."""
HISTOGRAM_BINS_PER_E = 8.0
"""Bins per factor e: 128 of them reach from a millisecond to hours, each 13 % wide."""

REQUEST = np.dtype(
    [
        ("arrival_seconds", "f8"),
        ("dispatch_seconds", "f8"),
        ("first_token_seconds", "f8"),
        ("finish_seconds", "f8"),
        ("deadline_seconds", "f8"),
        ("input_tokens", "i8"),
        ("output_tokens", "i8"),
        ("generated_tokens", "i8"),
        ("prefill_target_tokens", "i8"),
        ("prefill_left_tokens", "i8"),
        ("weight_tokens", "i8"),
        ("admission", "i8"),
        ("next", "i4"),
        ("replica", "i4"),
        ("variant", "i4"),
        ("restarts", "i4"),
        ("tier", "i4"),
        ("status", "i4"),
        ("lost_reason", "i4"),
        ("unused", "i4"),
    ]
)
REPLICA = np.dtype(
    [
        ("next_seconds", "f8"),
        ("run_start_seconds", "f8"),
        ("first_step_seconds", "f8"),
        ("step_growth_seconds", "f8"),
        ("released_seconds", "f8"),
        ("busy_seconds", "f8"),
        ("flex_after_seconds", "f8"),
        ("run_steps", "i8"),
        ("decode_counter", "i8"),
        ("decoding", "i8"),
        ("context_tokens", "i8"),
        ("kv_tokens", "i8"),
        ("most_kv_tokens", "i8"),
        ("pending_prefill_tokens", "i8"),
        ("outstanding", "i8"),
        ("outstanding_flex", "i8"),
        ("outstanding_weight_tokens", "i8"),
        ("waiting", "i8"),
        ("prefilling", "i8"),
        ("admissions", "i8"),
        ("generated_tokens", "i8"),
        ("prefilled_tokens", "i8"),
        ("cached_tokens", "i8"),
        ("preemptions", "i8"),
        ("completed", "i8"),
        ("waiting_head", "i4"),
        ("waiting_tail", "i4"),
        ("prefill_head", "i4"),
        ("prefill_tail", "i4"),
        ("variant", "i4"),
        ("state", "i4"),
        ("heap_position", "i4"),
        ("unused", "i4"),
    ]
)
VARIANT = np.dtype(
    [
        ("step_seconds", "f8"),
        ("expert_seconds", "f8"),
        ("expert_miss_log", "f8"),
        ("decode_token_seconds", "f8"),
        ("prefill_token_seconds", "f8"),
        ("context_token_seconds", "f8"),
        ("prefill_context_seconds", "f8"),
        ("relative_capacity", "f8"),
        ("flex_prefill_ratio", "f8"),
        ("maximum_requests", "i8"),
        ("step_tokens", "i8"),
        ("kv_limit_tokens", "i8"),
        ("pending_prefill_limit_tokens", "i8"),
        ("flex_request_limit", "i8"),
        ("cache_blocks", "i8"),
        ("generated_tokens", "i8"),
        ("prefilled_tokens", "i8"),
        ("cached_tokens", "i8"),
        ("preemptions", "i8"),
        ("completed", "i8"),
    ]
)
GATEWAY = np.dtype(
    [
        ("queue_timeout_seconds", "f8"),
        ("expected_output_tokens", "f8"),
        ("ttft_limit_seconds", "f8"),
        ("tpot_limit_seconds", "f8"),
        ("longest_wait_seconds", "f8"),
        ("next_arrival", "i8"),
        ("queue_limit", "i8"),
        ("maximum_run_steps", "i8"),
        ("block_tokens", "i8"),
        ("migrated", "i8"),
        ("evicted_flex", "i8"),
        ("most_queued", "i8"),
        ("ready", "i8"),
        ("largest_kv_tokens", "i8"),
        ("flex_open", "i8"),
    ]
)
LANE = np.dtype(
    [
        ("arrived", "i8"),
        ("arrived_input_tokens", "i8"),
        ("completed", "i8"),
        ("completed_output_tokens", "i8"),
        ("completed_input_tokens", "i8"),
        ("late", "i8"),
        ("missed", "i8"),
        ("lost", "i8"),
        ("queued", "i8"),
        ("queued_input_tokens", "i8"),
        ("relegated", "i8"),
        ("is_shed", "i8"),
        ("head", "i4"),
        ("tail", "i4"),
        ("relegated_head", "i4"),
        ("relegated_tail", "i4"),
    ]
)


class Engine(NamedTuple):
    """Everything the compiled functions read and write."""

    requests: Records
    replicas: Records
    variants: Records
    gateway: Records
    lanes: Records
    ready_slots: NDArray[np.int64]
    event_slots: NDArray[np.int64]
    finish_keys: NDArray[np.int64]
    finish_requests: NDArray[np.int64]
    block_ids: NDArray[np.int64]
    block_offsets: NDArray[np.int64]
    block_cache: NDArray[np.int64]
    wait_histogram: NDArray[np.int64]
    ttft_histogram: NDArray[np.int64]
    engine_ttft_histogram: NDArray[np.int64]
    tpot_histogram: NDArray[np.int64]


def allocate(
    *,
    variants: Records,
    slots: int,
    arrivals: dict[str, NDArray[Any]],
    block_ids: NDArray[np.int64],
    block_offsets: NDArray[np.int64],
    block_tokens: int,
    queue_limit: int,
    queue_timeout_seconds: float,
    expected_output_tokens: float,
    maximum_run_steps: int,
    ttft_limit_seconds: float = np.inf,
    tpot_limit_seconds: float = np.inf,
    longest_wait_seconds: float = np.inf,
) -> Engine:
    """Return an engine at time 0 with empty replicas.

    Args:
        variants: ``VARIANT`` records.
        slots: Replicas that can exist at one time, draining ones included.
        arrivals: The request columns known beforehand, by their ``REQUEST`` name.
        block_ids: Prefix blocks of all requests; empty turns the prefix cache off.
        block_offsets: Where each request's blocks start.
        block_tokens: Length of a prefix block.
        queue_limit: Requests the gateway holds before it refuses more.
        queue_timeout_seconds: How long it holds one that has not started.
        expected_output_tokens: What the router assumes until it has seen completions.
        maximum_run_steps: Longest run of steps advanced at once.
        ttft_limit_seconds: What is counted as late.
        tpot_limit_seconds: What is counted as missed, beside what is late.
        longest_wait_seconds: Who has waited longer for a first token goes last in its lane.
    """
    count = len(arrivals["arrival_seconds"])
    requests = np.zeros(count, REQUEST)
    for name, column in arrivals.items():
        requests[name] = column
    for name in ("dispatch_seconds", "first_token_seconds", "finish_seconds"):
        requests[name] = np.nan
    for name in ("next", "replica", "variant"):
        requests[name] = NONE
    replicas = np.zeros(slots, REPLICA)
    replicas["next_seconds"] = NEVER
    for name in ("waiting_head", "waiting_tail", "prefill_head", "prefill_tail"):
        replicas[name] = NONE
    replicas["heap_position"] = np.arange(slots)
    gateway = np.zeros(1, GATEWAY)
    gateway["queue_limit"] = queue_limit
    gateway["queue_timeout_seconds"] = queue_timeout_seconds
    gateway["expected_output_tokens"] = expected_output_tokens
    gateway["maximum_run_steps"] = maximum_run_steps
    gateway["ttft_limit_seconds"] = ttft_limit_seconds
    gateway["tpot_limit_seconds"] = tpot_limit_seconds
    gateway["longest_wait_seconds"] = longest_wait_seconds
    gateway["block_tokens"] = block_tokens
    gateway["flex_open"] = 1
    gateway["largest_kv_tokens"] = variants["kv_limit_tokens"].max()
    lanes = np.zeros(TIERS, LANE)
    for name in ("head", "tail", "relegated_head", "relegated_tail"):
        lanes[name] = NONE
    seats = int(variants["maximum_requests"].max())
    cache_blocks = int(variants["cache_blocks"].max()) if len(block_ids) else 1
    return Engine(
        requests=requests,
        replicas=replicas,
        variants=variants,
        gateway=gateway,
        lanes=lanes,
        ready_slots=np.zeros(slots, np.int64),
        event_slots=np.arange(slots, dtype=np.int64),
        finish_keys=np.zeros((slots, seats), np.int64),
        finish_requests=np.zeros((slots, seats), np.int64),
        block_ids=block_ids,
        block_offsets=block_offsets,
        block_cache=np.zeros((slots, max(1, cache_blocks)), np.int64),
        wait_histogram=np.zeros(HISTOGRAM_BINS, np.int64),
        ttft_histogram=np.zeros(HISTOGRAM_BINS, np.int64),
        engine_ttft_histogram=np.zeros((len(variants), HISTOGRAM_BINS), np.int64),
        tpot_histogram=np.zeros((len(variants), HISTOGRAM_BINS), np.int64),
    )
