"""Two binary heaps: replicas by their next event, and a replica's requests by their last token."""

from __future__ import annotations

from trierarch.simulation.engine.compiled import inner
from trierarch.simulation.engine.records import Engine


@inner
def _event_before(engine: Engine, first: int, second: int) -> bool:
    a = engine.replicas[first]["next_seconds"]
    b = engine.replicas[second]["next_seconds"]
    return bool(a < b or (a == b and first < second))


@inner
def schedule_event(engine: Engine, slot: int, at_seconds: float) -> None:
    """Set the time of a replica's next event; ties are broken by slot."""
    replicas, order = engine.replicas, engine.event_slots
    replicas[slot]["next_seconds"] = at_seconds
    position = replicas[slot]["heap_position"]
    while position > 0:
        parent = (position - 1) // 2
        other = order[parent]
        if not _event_before(engine, slot, other):
            break
        order[position] = other
        replicas[other]["heap_position"] = position
        position = parent
    count = len(order)
    while True:
        child = 2 * position + 1
        if child >= count:
            break
        if child + 1 < count and _event_before(engine, order[child + 1], order[child]):
            child += 1
        other = order[child]
        if not _event_before(engine, other, slot):
            break
        order[position] = other
        replicas[other]["heap_position"] = position
        position = child
    order[position] = slot
    replicas[slot]["heap_position"] = position


@inner
def push_finish(engine: Engine, slot: int, key: int, request: int) -> None:
    """Add a decoding request; ``key`` is the decode step that makes its last token."""
    keys, members = engine.finish_keys[slot], engine.finish_requests[slot]
    replica = engine.replicas[slot]
    position = replica["decoding"]
    replica["decoding"] += 1
    while position > 0:
        parent = (position - 1) // 2
        if keys[parent] <= key:
            break
        keys[position] = keys[parent]
        members[position] = members[parent]
        position = parent
    keys[position] = key
    members[position] = request


@inner
def remove_finish(engine: Engine, slot: int, position: int) -> None:
    """Take the member at ``position`` out; position 0 is the next to finish."""
    keys, members = engine.finish_keys[slot], engine.finish_requests[slot]
    replica = engine.replicas[slot]
    replica["decoding"] -= 1
    count = replica["decoding"]
    if position == count:
        return
    key, request = keys[count], members[count]
    while position > 0:
        parent = (position - 1) // 2
        if keys[parent] <= key:
            break
        keys[position] = keys[parent]
        members[position] = members[parent]
        position = parent
    while True:
        child = 2 * position + 1
        if child >= count:
            break
        if child + 1 < count and keys[child + 1] < keys[child]:
            child += 1
        if keys[child] >= key:
            break
        keys[position] = keys[child]
        members[position] = members[child]
        position = child
    keys[position] = key
    members[position] = request
