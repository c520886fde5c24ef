"""What one replica does: admit, prefill in chunks, decode, preempt, finish.

The order inside a step is that of a continuous-batching engine: running
requests make one token each, the rest of the step's token budget goes to
prefills in order of arrival, a request whose prompt fits neither the seats nor
the KV memory waits, and if the running ones outgrow the KV memory the newest
starts again later.
"""

from __future__ import annotations

import math

from trierarch.simulation.engine.compiled import inner
from trierarch.simulation.engine.heaps import push_finish, remove_finish, schedule_event
from trierarch.simulation.engine.queues import (
    queue_front,
    start_prefilling,
    take_prefilling,
    take_waiting,
    wait_again,
)
from trierarch.simulation.engine.records import (
    COMPLETED,
    FLEX,
    HISTOGRAM_BINS,
    HISTOGRAM_BINS_PER_E,
    HISTOGRAM_FLOOR_SECONDS,
    NEVER,
    NONE,
    Engine,
)

OUTPUT_LEARNING_RATE = 0.002
"""Weight of one completion in the router's expected output length."""


@inner
def histogram_bin(seconds: float) -> int:
    """Return the bin of a duration."""
    if not seconds > HISTOGRAM_FLOOR_SECONDS:
        return 0
    position = 1 + int(math.log(seconds / HISTOGRAM_FLOOR_SECONDS) * HISTOGRAM_BINS_PER_E)
    return min(position, HISTOGRAM_BINS - 1)


@inner
def run_seconds(first_step_seconds: float, step_growth_seconds: float, steps: int) -> float:
    """Return the duration of a run: an arithmetic series."""
    return steps * first_step_seconds + step_growth_seconds * (steps * (steps - 1) / 2)


@inner
def steps_until(first_step_seconds: float, step_growth_seconds: float, seconds: float) -> int:
    """Return the fewest steps that last at least ``seconds``."""
    if seconds <= 0.0:
        return 0
    steps = math.ceil(seconds / first_step_seconds)
    if step_growth_seconds > 0.0:
        half = first_step_seconds - step_growth_seconds / 2
        root = math.sqrt(half * half + 2 * step_growth_seconds * seconds)
        # The stable form of the quadratic formula: growth may be tiny.
        steps = math.ceil(2 * seconds / (half + root))
    while steps > 0 and run_seconds(first_step_seconds, step_growth_seconds, steps - 1) >= seconds:
        steps -= 1
    while run_seconds(first_step_seconds, step_growth_seconds, steps) < seconds:
        steps += 1
    return steps


@inner
def leave_replica(engine: Engine, slot: int, index: int) -> None:
    """Take a request off the replica's books."""
    replica = engine.replicas[slot]
    request = engine.requests[index]
    replica["outstanding"] -= 1
    replica["outstanding_weight_tokens"] -= request["weight_tokens"]
    if request["tier"] == FLEX:
        replica["outstanding_flex"] -= 1


@inner
def complete(engine: Engine, slot: int, index: int, now_seconds: float) -> None:
    """End a request served."""
    replica = engine.replicas[slot]
    request = engine.requests[index]
    request["status"] = COMPLETED
    request["finish_seconds"] = now_seconds
    request["generated_tokens"] = request["output_tokens"]
    leave_replica(engine, slot, index)
    replica["completed"] += 1
    engine.variants[replica["variant"]]["completed"] += 1
    lane = engine.lanes[request["tier"]]
    lane["completed"] += 1
    lane["completed_output_tokens"] += request["output_tokens"]
    lane["completed_input_tokens"] += request["input_tokens"]
    gateway = engine.gateway[0]
    surprise = request["output_tokens"] - gateway["expected_output_tokens"]
    gateway["expected_output_tokens"] += OUTPUT_LEARNING_RATE * surprise
    is_late = (
        request["first_token_seconds"] - request["arrival_seconds"] > gateway["ttft_limit_seconds"]
    )
    is_missed = is_late
    if request["output_tokens"] > 1 and request["tier"] != FLEX:
        decode_seconds = now_seconds - request["first_token_seconds"]
        tpot_seconds = decode_seconds / (request["output_tokens"] - 1)
        is_missed = is_late or tpot_seconds > gateway["tpot_limit_seconds"]
        engine.tpot_histogram[replica["variant"], histogram_bin(tpot_seconds)] += 1
    if is_late:
        lane["late"] += 1
    if is_missed:
        lane["missed"] += 1


@inner
def newest_decoding(engine: Engine, slot: int, flex_only: bool) -> int:
    """Return the heap position of the request admitted last, or -1."""
    replica = engine.replicas[slot]
    best = NONE
    best_admission = -1
    for position in range(replica["decoding"]):
        request = engine.requests[engine.finish_requests[slot, position]]
        if flex_only and request["tier"] != FLEX:
            continue
        if request["admission"] > best_admission:
            best_admission = request["admission"]
            best = position
    return best


@inner
def stop_decoding(engine: Engine, slot: int, position: int) -> int:
    """Take a decoding request out of the batch and free its KV memory; keep its tokens."""
    replica = engine.replicas[slot]
    index = engine.finish_requests[slot, position]
    request = engine.requests[index]
    left = engine.finish_keys[slot, position] - replica["decode_counter"]
    request["generated_tokens"] = request["output_tokens"] - left
    held = request["input_tokens"] + request["generated_tokens"] - 1
    replica["kv_tokens"] -= held
    replica["context_tokens"] -= held
    request["restarts"] += 1
    remove_finish(engine, slot, position)
    return int(index)


@inner
def preempt_newest(engine: Engine, slot: int) -> None:
    """Make the newest decoding request start again later on the same replica."""
    replica = engine.replicas[slot]
    index = stop_decoding(engine, slot, newest_decoding(engine, slot, False))
    request = engine.requests[index]
    replica["pending_prefill_tokens"] += request["input_tokens"] + request["generated_tokens"]
    replica["preemptions"] += 1
    engine.variants[replica["variant"]]["preemptions"] += 1
    wait_again(engine, slot, index)


@inner
def evict_flex(engine: Engine, slot: int) -> bool:
    """Send the newest flex request back to the gateway, to make room for an interactive one."""
    position = newest_decoding(engine, slot, True)
    if position < 0:
        return False
    index = stop_decoding(engine, slot, position)
    leave_replica(engine, slot, index)
    engine.gateway[0]["evicted_flex"] += 1
    queue_front(engine, index)
    return True


@inner
def cached_prefix_tokens(engine: Engine, slot: int, index: int) -> int:
    """Return how much of the prompt the replica has in its prefix cache."""
    size = engine.block_cache.shape[1]
    start, end = engine.block_offsets[index], engine.block_offsets[index + 1]
    blocks = 0
    for place in range(start, end):
        block = engine.block_ids[place]
        if engine.block_cache[slot, block % size] != block + 1:
            break
        blocks += 1
    return int(
        min(blocks * engine.gateway[0]["block_tokens"], engine.requests[index]["input_tokens"] - 1)
    )


@inner
def remember_prefix(engine: Engine, slot: int, index: int) -> None:
    """Put the prompt's blocks into the replica's prefix cache; each replaces what was there."""
    size = engine.block_cache.shape[1]
    for place in range(engine.block_offsets[index], engine.block_offsets[index + 1]):
        block = engine.block_ids[place]
        engine.block_cache[slot, block % size] = block + 1


@inner
def admit(engine: Engine, slot: int) -> bool:
    """Move the first waiting request into the prefill line if seats and KV memory allow."""
    replica = engine.replicas[slot]
    variant = engine.variants[replica["variant"]]
    head = engine.requests[replica["waiting_head"]]
    target = head["input_tokens"] + head["generated_tokens"]
    while True:
        running = replica["decoding"] + replica["prefilling"]
        # Every decoding request writes one more token in this step.
        needed = replica["kv_tokens"] + replica["decoding"] + target
        if running < variant["maximum_requests"] and needed <= variant["kv_limit_tokens"]:
            break
        if head["tier"] == FLEX or replica["outstanding_flex"] == 0:
            return False
        if not evict_flex(engine, slot):
            return False
    index = take_waiting(engine, slot)
    request = engine.requests[index]
    replica["kv_tokens"] += target
    request["prefill_target_tokens"] = target
    request["prefill_left_tokens"] = target
    if len(engine.block_ids) > 0:
        cached = cached_prefix_tokens(engine, slot, index)
        request["prefill_left_tokens"] -= cached
        replica["pending_prefill_tokens"] -= cached
        replica["cached_tokens"] += cached
        engine.variants[replica["variant"]]["cached_tokens"] += cached
    request["admission"] = replica["admissions"]
    replica["admissions"] += 1
    start_prefilling(engine, slot, index)
    return True


@inner
def begin_run(engine: Engine, slot: int, now_seconds: float) -> None:
    """Plan the replica's next run of steps, or leave it idle."""
    replica = engine.replicas[slot]
    variant = engine.variants[replica["variant"]]
    while (
        replica["decoding"] > 0
        and replica["kv_tokens"] + replica["decoding"] > variant["kv_limit_tokens"]
    ):
        preempt_newest(engine, slot)
    budget = variant["step_tokens"] - replica["decoding"]
    prefill_tokens = 0
    attention = 0.0
    place = replica["prefill_head"]
    while budget > 0:
        if place == NONE:
            if replica["waiting"] == 0 or not admit(engine, slot):
                break
            place = replica["prefill_tail"]
        request = engine.requests[place]
        chunk = min(budget, request["prefill_left_tokens"])
        before = request["prefill_target_tokens"] - request["prefill_left_tokens"]
        attention += chunk * (before + chunk / 2)
        request["prefill_left_tokens"] -= chunk
        replica["pending_prefill_tokens"] -= chunk
        prefill_tokens += chunk
        budget -= chunk
        place = request["next"]
    decoding = replica["decoding"]
    if decoding == 0 and prefill_tokens == 0:
        replica["run_steps"] = 0
        schedule_event(engine, slot, NEVER)
        return
    touched = 1.0 - math.exp((decoding + prefill_tokens) * variant["expert_miss_log"])
    replica["first_step_seconds"] = (
        variant["step_seconds"]
        + variant["expert_seconds"] * touched
        + variant["decode_token_seconds"] * decoding
        + variant["prefill_token_seconds"] * prefill_tokens
        + variant["context_token_seconds"] * replica["context_tokens"]
        + variant["prefill_context_seconds"] * attention
    )
    replica["step_growth_seconds"] = variant["context_token_seconds"] * decoding
    steps = 1
    if prefill_tokens == 0:
        steps = engine.finish_keys[slot, 0] - replica["decode_counter"]
        steps = min(steps, (variant["kv_limit_tokens"] - replica["kv_tokens"]) // decoding)
        steps = min(steps, engine.gateway[0]["maximum_run_steps"])
    replica["run_steps"] = steps
    replica["run_start_seconds"] = now_seconds
    replica["prefilled_tokens"] += prefill_tokens
    engine.variants[replica["variant"]]["prefilled_tokens"] += prefill_tokens
    length = run_seconds(replica["first_step_seconds"], replica["step_growth_seconds"], steps)
    schedule_event(engine, slot, now_seconds + length)


@inner
def cut_run(engine: Engine, slot: int, now_seconds: float) -> None:
    """Shorten a run to the step in progress, because something new waits for its end."""
    replica = engine.replicas[slot]
    if replica["run_steps"] <= 1:
        return
    first, growth = replica["first_step_seconds"], replica["step_growth_seconds"]
    steps = max(1, steps_until(first, growth, now_seconds - replica["run_start_seconds"]))
    if steps < replica["run_steps"]:
        replica["run_steps"] = steps
        length = run_seconds(first, growth, steps)
        schedule_event(engine, slot, replica["run_start_seconds"] + length)


@inner
def advance_decodes(engine: Engine, slot: int, steps: int) -> None:
    """Give every decoding request ``steps`` tokens."""
    replica = engine.replicas[slot]
    made = replica["decoding"] * steps
    replica["decode_counter"] += steps
    replica["kv_tokens"] += made
    replica["context_tokens"] += made
    replica["generated_tokens"] += made
    replica["most_kv_tokens"] = max(replica["most_kv_tokens"], replica["kv_tokens"])
    engine.variants[replica["variant"]]["generated_tokens"] += made


@inner
def end_run(engine: Engine, slot: int) -> None:
    """Book a finished run: tokens, first tokens, completions."""
    replica = engine.replicas[slot]
    now_seconds = replica["next_seconds"]
    replica["busy_seconds"] += now_seconds - replica["run_start_seconds"]
    advance_decodes(engine, slot, replica["run_steps"])
    replica["run_steps"] = 0
    while (
        replica["prefilling"] > 0
        and engine.requests[replica["prefill_head"]]["prefill_left_tokens"] == 0
    ):
        index = take_prefilling(engine, slot)
        request = engine.requests[index]
        request["generated_tokens"] += 1
        replica["generated_tokens"] += 1
        engine.variants[replica["variant"]]["generated_tokens"] += 1
        if len(engine.block_ids) > 0:
            remember_prefix(engine, slot, index)
        if math.isnan(request["first_token_seconds"]):
            request["first_token_seconds"] = now_seconds
            if request["tier"] != FLEX:
                waited = now_seconds - request["arrival_seconds"]
                engine.ttft_histogram[histogram_bin(waited)] += 1
                inside = now_seconds - request["dispatch_seconds"]
                engine.engine_ttft_histogram[replica["variant"], histogram_bin(inside)] += 1
        left = request["output_tokens"] - request["generated_tokens"]
        if left == 0:
            replica["kv_tokens"] -= request["prefill_target_tokens"]
            complete(engine, slot, index, now_seconds)
        else:
            replica["context_tokens"] += request["prefill_target_tokens"]
            push_finish(engine, slot, replica["decode_counter"] + left, index)
    while replica["decoding"] > 0 and engine.finish_keys[slot, 0] == replica["decode_counter"]:
        index = engine.finish_requests[slot, 0]
        request = engine.requests[index]
        held = request["input_tokens"] + request["output_tokens"] - 1
        replica["kv_tokens"] -= held
        replica["context_tokens"] -= held
        remove_finish(engine, slot, 0)
        complete(engine, slot, index, now_seconds)
