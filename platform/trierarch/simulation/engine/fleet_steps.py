"""What the gateway and the replicas do together, in order of time.

A request goes to the ready replica with the least outstanding tokens that has
room for it; otherwise it waits at the gateway, where a replica that becomes
ready later can still take it. Who has waited too long to be in time goes behind those of
its tier who still can be. Flex requests start only when no other request
waits, leave seats free, and on a replica that also serves interactive requests
their prompts take only a share of its time, or every decode step would wait for
them; an interactive request may take a flex request's place. While the policy keeps
the flex lane closed none of them starts, and those that run go on. Requests of a
lane that the policy sheds are refused when they arrive.
"""

from __future__ import annotations

import math

from trierarch.simulation.engine.compiled import compiled, inner
from trierarch.simulation.engine.gauges import steps_done
from trierarch.simulation.engine.heaps import schedule_event
from trierarch.simulation.engine.queues import (
    accept,
    expire,
    first_queued,
    queue_front,
    relegate,
    take_prefilling,
    take_waiting,
    unqueue,
    wait_on_replica,
)
from trierarch.simulation.engine.records import (
    DRAINING,
    FLEX,
    FREE,
    NEVER,
    NONE,
    READY,
    RELEASED,
    STARTING,
    TIERS,
    Engine,
)
from trierarch.simulation.engine.steps import (
    advance_decodes,
    begin_run,
    cut_run,
    end_run,
    histogram_bin,
    leave_replica,
    stop_decoding,
)


@inner
def has_room(engine: Engine, slot: int, index: int, now_seconds: float) -> bool:
    """Tell whether a ready replica may be given this request now."""
    replica = engine.replicas[slot]
    variant = engine.variants[replica["variant"]]
    request = engine.requests[index]
    if request["input_tokens"] + request["output_tokens"] > variant["kv_limit_tokens"]:
        return False
    is_flex = request["tier"] == FLEX
    if is_flex:
        if engine.gateway[0]["flex_open"] == 0:
            return False
        if replica["outstanding"] >= variant["flex_request_limit"]:
            return False
        is_shared = replica["outstanding"] > replica["outstanding_flex"]
        if is_shared and now_seconds < replica["flex_after_seconds"]:
            return False
    elif replica["outstanding"] - replica["outstanding_flex"] >= variant["maximum_requests"]:
        return False
    target = request["input_tokens"] + request["generated_tokens"]
    pending = replica["pending_prefill_tokens"]
    if pending > 0 and pending + target > variant["pending_prefill_limit_tokens"]:
        return False
    if replica["outstanding"] == 0 or (replica["outstanding_flex"] > 0 and not is_flex):
        return True
    needed = replica["kv_tokens"] + replica["decoding"] + pending + target
    return bool(needed <= variant["kv_limit_tokens"])


@inner
def route(engine: Engine, index: int, now_seconds: float) -> int:
    """Return the ready replica with room and the least outstanding tokens, or -1."""
    best = NONE
    best_load = math.inf
    for position in range(engine.gateway[0]["ready"]):
        slot = engine.ready_slots[position]
        replica = engine.replicas[slot]
        load = (
            replica["outstanding_weight_tokens"]
            / engine.variants[replica["variant"]]["relative_capacity"]
        )
        if load < best_load and has_room(engine, slot, index, now_seconds):
            best = slot
            best_load = load
    return int(best)


@inner
def hand_over(engine: Engine, slot: int, index: int, now_seconds: float) -> None:
    """Give a request to a replica and let it know at its next step boundary."""
    replica = engine.replicas[slot]
    request = engine.requests[index]
    gateway = engine.gateway[0]
    request["replica"] = slot
    request["variant"] = replica["variant"]
    request["weight_tokens"] = request["input_tokens"] + max(
        1, int(gateway["expected_output_tokens"]) - request["generated_tokens"]
    )
    if request["restarts"] == 0:
        request["dispatch_seconds"] = now_seconds
        if request["tier"] != FLEX:
            waited = now_seconds - request["arrival_seconds"]
            engine.wait_histogram[histogram_bin(waited)] += 1
    replica["outstanding"] += 1
    replica["outstanding_weight_tokens"] += request["weight_tokens"]
    if request["tier"] == FLEX:
        replica["outstanding_flex"] += 1
        variant = engine.variants[replica["variant"]]
        prefill_seconds = request["input_tokens"] * variant["prefill_token_seconds"]
        replica["flex_after_seconds"] = (
            now_seconds + prefill_seconds / variant["flex_prefill_ratio"]
        )
    replica["pending_prefill_tokens"] += request["input_tokens"] + request["generated_tokens"]
    wait_on_replica(engine, slot, index)


@inner
def dispatch(engine: Engine, now_seconds: float, busy_slot: int) -> None:
    """Hand over whatever can be; ``busy_slot`` is between two runs and is started by the caller."""
    while True:
        tier = NONE
        if engine.lanes[0]["queued"] > 0:
            tier = 0
        elif engine.lanes[1]["queued"] > 0:
            tier = 1
        elif engine.lanes[2]["queued"] > 0:
            tier = 2
        if tier == NONE:
            return
        if tier != FLEX:
            relegate(engine, tier, now_seconds)
        slot = route(engine, first_queued(engine, tier), now_seconds)
        if slot == NONE:
            return
        hand_over(engine, slot, unqueue(engine, tier), now_seconds)
        if slot == busy_slot:
            continue
        if engine.replicas[slot]["run_steps"] == 0:
            begin_run(engine, slot, now_seconds)
        else:
            cut_run(engine, slot, now_seconds)


@inner
def release(engine: Engine, slot: int, now_seconds: float) -> None:
    """Take a replica out of service; its slot is free again once the books have been read."""
    replica = engine.replicas[slot]
    replica["state"] = RELEASED
    replica["released_seconds"] = now_seconds
    schedule_event(engine, slot, NEVER)


@inner
def _finish_event(engine: Engine, slot: int) -> None:
    replica = engine.replicas[slot]
    now_seconds = replica["next_seconds"]
    end_run(engine, slot)
    if replica["state"] == DRAINING and replica["outstanding"] == 0:
        release(engine, slot, now_seconds)
        return
    dispatch(engine, now_seconds, slot)
    begin_run(engine, slot, now_seconds)


@compiled
def advance(engine: Engine, until_seconds: float, is_open: bool) -> None:
    """Let everything happen up to and including ``until_seconds``.

    While the fleet ``is_open``, requests that have waited too long at the gateway are lost.
    """
    gateway = engine.gateway[0]
    count = len(engine.requests)
    while True:
        slot = engine.event_slots[0]
        event_seconds = engine.replicas[slot]["next_seconds"]
        index = gateway["next_arrival"]
        arrival_seconds = math.inf
        if index < count:
            arrival_seconds = engine.requests[index]["arrival_seconds"]
        next_seconds = min(event_seconds, arrival_seconds)
        if next_seconds > until_seconds or next_seconds == NEVER:
            break
        if event_seconds <= arrival_seconds:
            _finish_event(engine, slot)
            continue
        gateway["next_arrival"] += 1
        tier = engine.requests[index]["tier"]
        ahead = engine.lanes[tier]["queued"] - engine.lanes[tier]["relegated"]
        for higher in range(tier):
            ahead += engine.lanes[higher]["queued"]
        # A queue that stands is blocked until a replica gets room; nothing new to try.
        if accept(engine, index) and ahead == 0:
            dispatch(engine, arrival_seconds, NONE)
        waiting = engine.lanes[0]["queued"] + engine.lanes[1]["queued"]
        gateway["most_queued"] = max(gateway["most_queued"], waiting)
    if is_open:
        expire(engine, until_seconds)


@compiled
def make_ready(engine: Engine, slot: int, now_seconds: float) -> None:
    """Let a started replica serve."""
    engine.replicas[slot]["state"] = READY
    gateway = engine.gateway[0]
    engine.ready_slots[gateway["ready"]] = slot
    gateway["ready"] += 1
    dispatch(engine, now_seconds, NONE)


@compiled
def set_lanes(engine: Engine, is_open: bool, shed: int, now_seconds: float) -> None:
    """Let flex requests start from now on, or keep them waiting; refuse arrivals of shed lanes.

    ``shed`` has bit ``1 << tier`` set for each of those.
    """
    for tier in range(TIERS):
        engine.lanes[tier]["is_shed"] = (shed >> tier) & 1
    gateway = engine.gateway[0]
    was_open = gateway["flex_open"] == 1
    gateway["flex_open"] = 1 if is_open else 0
    if is_open and not was_open:
        dispatch(engine, now_seconds, NONE)


@inner
def _leave_ready(engine: Engine, slot: int) -> None:
    gateway = engine.gateway[0]
    position = 0
    while engine.ready_slots[position] != slot:
        position += 1
    gateway["ready"] -= 1
    for later in range(position, gateway["ready"]):
        engine.ready_slots[later] = engine.ready_slots[later + 1]


@compiled
def drain(engine: Engine, slot: int, now_seconds: float) -> None:
    """Give the replica nothing new; it is released when its last request ends."""
    replica = engine.replicas[slot]
    if replica["state"] == STARTING:
        release(engine, slot, now_seconds)
        return
    if replica["state"] != READY:
        return
    _leave_ready(engine, slot)
    replica["state"] = DRAINING
    if replica["outstanding"] == 0:
        release(engine, slot, now_seconds)


@compiled
def kill(engine: Engine, slot: int, now_seconds: float) -> None:
    """Take a replica away at once; its requests go back to the gateway with their tokens."""
    replica = engine.replicas[slot]
    if replica["state"] == FREE or replica["state"] == RELEASED:
        return
    if replica["state"] == READY:
        _leave_ready(engine, slot)
    if replica["run_steps"] > 0:
        elapsed = now_seconds - replica["run_start_seconds"]
        replica["busy_seconds"] += elapsed
        advance_decodes(engine, slot, steps_done(engine, slot, now_seconds))
        replica["run_steps"] = 0
    while replica["waiting"] > 0:
        index = take_waiting(engine, slot)
        engine.requests[index]["restarts"] += 1
        _send_back(engine, slot, index)
    while replica["prefilling"] > 0:
        index = take_prefilling(engine, slot)
        engine.requests[index]["restarts"] += 1
        _send_back(engine, slot, index)
    while replica["decoding"] > 0:
        _send_back(engine, slot, stop_decoding(engine, slot, 0))
    replica["kv_tokens"] = 0
    replica["pending_prefill_tokens"] = 0
    release(engine, slot, now_seconds)
    dispatch(engine, now_seconds, NONE)


@inner
def _send_back(engine: Engine, slot: int, index: int) -> None:
    leave_replica(engine, slot, index)
    engine.gateway[0]["migrated"] += 1
    queue_front(engine, index)
