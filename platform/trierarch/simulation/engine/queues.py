"""Waiting lines: the gateway's lanes and each replica's own, linked through the requests.

A lane of the gateway has two parts, as in ``routing/waiting_queue.py``: requests that can
still be in time go first, and behind them, relegated, those that have waited too long.
"""

from __future__ import annotations

import math

from trierarch.simulation.engine.compiled import inner
from trierarch.simulation.engine.records import (
    LOST,
    NONE,
    ON_REPLICA,
    QUEUE_FULL,
    QUEUE_TIMEOUT,
    QUEUED,
    SHED,
    TOO_LARGE,
    Engine,
)


@inner
def queue_back(engine: Engine, index: int) -> None:
    """Put a request at the end of its lane at the gateway."""
    request = engine.requests[index]
    lane = engine.lanes[request["tier"]]
    request["status"] = QUEUED
    request["next"] = NONE
    if lane["queued"] == lane["relegated"]:
        lane["head"] = index
    else:
        engine.requests[lane["tail"]]["next"] = index
    lane["tail"] = index
    lane["queued"] += 1
    lane["queued_input_tokens"] += request["input_tokens"]


@inner
def queue_front(engine: Engine, index: int) -> None:
    """Put a request that has to start again at the front of its lane."""
    request = engine.requests[index]
    lane = engine.lanes[request["tier"]]
    request["status"] = QUEUED
    request["next"] = lane["head"]
    lane["head"] = index
    if lane["queued"] == lane["relegated"]:
        request["next"] = NONE
        lane["tail"] = index
    lane["queued"] += 1
    lane["queued_input_tokens"] += request["input_tokens"]


@inner
def first_queued(engine: Engine, tier: int) -> int:
    """Return the first request of a lane that has one."""
    lane = engine.lanes[tier]
    if lane["queued"] > lane["relegated"]:
        return int(lane["head"])
    return int(lane["relegated_head"])


@inner
def unqueue(engine: Engine, tier: int) -> int:
    """Take the first request of a lane."""
    lane = engine.lanes[tier]
    if lane["queued"] == lane["relegated"]:
        return _unqueue_relegated(engine, tier)
    index = lane["head"]
    request = engine.requests[index]
    lane["head"] = request["next"]
    lane["queued"] -= 1
    lane["queued_input_tokens"] -= request["input_tokens"]
    if lane["queued"] == lane["relegated"]:
        lane["head"] = NONE
        lane["tail"] = NONE
    request["next"] = NONE
    return int(index)


@inner
def _unqueue_relegated(engine: Engine, tier: int) -> int:
    lane = engine.lanes[tier]
    index = lane["relegated_head"]
    request = engine.requests[index]
    lane["relegated_head"] = request["next"]
    lane["queued"] -= 1
    lane["relegated"] -= 1
    lane["queued_input_tokens"] -= request["input_tokens"]
    if lane["relegated"] == 0:
        lane["relegated_head"] = NONE
        lane["relegated_tail"] = NONE
    request["next"] = NONE
    return int(index)


@inner
def relegate(engine: Engine, tier: int, now_seconds: float) -> None:
    """Put those at the front of a lane who can no longer be in time behind those who can.

    Requests that start again had their turn before the others, among the late ones too; with a
    first token they are late no longer.
    """
    lane = engine.lanes[tier]
    limit = engine.gateway[0]["longest_wait_seconds"]
    while lane["queued"] > lane["relegated"]:
        request = engine.requests[lane["head"]]
        is_late = now_seconds - request["arrival_seconds"] > limit
        if not is_late or not math.isnan(request["first_token_seconds"]):
            return
        index = unqueue(engine, tier)
        if lane["relegated"] == 0:
            lane["relegated_head"] = index
            lane["relegated_tail"] = index
        elif request["restarts"] > 0:
            request["next"] = lane["relegated_head"]
            lane["relegated_head"] = index
        else:
            engine.requests[lane["relegated_tail"]]["next"] = index
            lane["relegated_tail"] = index
        lane["queued"] += 1
        lane["relegated"] += 1
        lane["queued_input_tokens"] += request["input_tokens"]


@inner
def lose(engine: Engine, index: int, reason: int) -> None:
    """End a request unserved."""
    request = engine.requests[index]
    request["status"] = LOST
    request["lost_reason"] = reason
    engine.lanes[request["tier"]]["lost"] += 1


@inner
def expire(engine: Engine, now_seconds: float) -> None:
    """Lose interactive requests that have waited too long without ever starting."""
    for tier in range(2):
        lane = engine.lanes[tier]
        while lane["relegated"] > 0 and _has_expired(engine, lane["relegated_head"], now_seconds):
            lose(engine, _unqueue_relegated(engine, tier), QUEUE_TIMEOUT)
        while lane["queued"] > lane["relegated"] and _has_expired(
            engine, lane["head"], now_seconds
        ):
            lose(engine, unqueue(engine, tier), QUEUE_TIMEOUT)


@inner
def _has_expired(engine: Engine, index: int, now_seconds: float) -> bool:
    request = engine.requests[index]
    waited = now_seconds - request["arrival_seconds"]
    return bool(request["restarts"] == 0 and waited > engine.gateway[0]["queue_timeout_seconds"])


@inner
def accept(engine: Engine, index: int) -> bool:
    """Count an arrival; lose it if nothing can hold it, its lane is shed or the gateway is full."""
    gateway = engine.gateway[0]
    request = engine.requests[index]
    lane = engine.lanes[request["tier"]]
    lane["arrived"] += 1
    lane["arrived_input_tokens"] += request["input_tokens"]
    if request["input_tokens"] + request["output_tokens"] > gateway["largest_kv_tokens"]:
        lose(engine, index, TOO_LARGE)
        return False
    if lane["is_shed"] == 1:
        lose(engine, index, SHED)
        return False
    queued = engine.lanes[0]["queued"] + engine.lanes[1]["queued"]
    if request["tier"] < 2 and queued >= gateway["queue_limit"]:
        lose(engine, index, QUEUE_FULL)
        return False
    queue_back(engine, index)
    return True


@inner
def wait_on_replica(engine: Engine, slot: int, index: int) -> None:
    """Put a routed request at the end of the replica's own line."""
    replica = engine.replicas[slot]
    request = engine.requests[index]
    request["status"] = ON_REPLICA
    request["next"] = NONE
    if replica["waiting"] == 0:
        replica["waiting_head"] = index
    else:
        engine.requests[replica["waiting_tail"]]["next"] = index
    replica["waiting_tail"] = index
    replica["waiting"] += 1


@inner
def wait_again(engine: Engine, slot: int, index: int) -> None:
    """Put a preempted request at the front of the replica's own line."""
    replica = engine.replicas[slot]
    request = engine.requests[index]
    request["next"] = NONE if replica["waiting"] == 0 else replica["waiting_head"]
    if replica["waiting"] == 0:
        replica["waiting_tail"] = index
    replica["waiting_head"] = index
    replica["waiting"] += 1


@inner
def take_waiting(engine: Engine, slot: int) -> int:
    """Take the first request of the replica's own line."""
    replica = engine.replicas[slot]
    index = replica["waiting_head"]
    replica["waiting_head"] = engine.requests[index]["next"]
    replica["waiting"] -= 1
    if replica["waiting"] == 0:
        replica["waiting_head"] = NONE
        replica["waiting_tail"] = NONE
    engine.requests[index]["next"] = NONE
    return int(index)


@inner
def take_prefilling(engine: Engine, slot: int) -> int:
    """Take the first request of the replica's prefill line."""
    replica = engine.replicas[slot]
    index = replica["prefill_head"]
    replica["prefill_head"] = engine.requests[index]["next"]
    replica["prefilling"] -= 1
    if replica["prefilling"] == 0:
        replica["prefill_head"] = NONE
        replica["prefill_tail"] = NONE
    engine.requests[index]["next"] = NONE
    return int(index)


@inner
def start_prefilling(engine: Engine, slot: int, index: int) -> None:
    """Put an admitted request at the end of the replica's prefill line."""
    replica = engine.replicas[slot]
    if replica["prefilling"] == 0:
        replica["prefill_head"] = index
    else:
        engine.requests[replica["prefill_tail"]]["next"] = index
    replica["prefill_tail"] = index
    replica["prefilling"] += 1
    engine.requests[index]["next"] = NONE
