"""The cheapest plan of ready replicas over time slots, exactly, by dynamic programming.

A state is a count per variant. Running a slot costs what the slot charges for
that state; going up costs a start per replica and going down costs a stop per
replica (the drain is paid for too). The costs of a step are separate for each
variant and linear in the change, so the cheapest way into every state is a
running minimum along each axis: the work is slots x states, not slots x states
squared. A minimum dwell keeps a replica for so many slots after the last start;
it adds the age of that start to the state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, slots=True)
class SwitchingCost:
    """What one replica of a variant costs beside its running time.

    Attributes:
        start: Going up by one.
        stop: Going down by one.
    """

    start: float
    stop: float


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """Counts per slot and variant, and what they cost."""

    counts: NDArray[np.int64]
    cost: float


def plan(
    slot_costs: NDArray[np.float64],
    switching: Sequence[SwitchingCost],
    initial: Sequence[int],
    *,
    dwell_slots: int = 0,
) -> Plan:
    """Return the cheapest counts.

    Args:
        slot_costs: Cost of each state in each slot, ``[slot, count of variant 0, ...]``;
            infinite where a state is not allowed.
        switching: Per variant.
        initial: Counts before the first slot.
        dwell_slots: Slots for which no variant may go down after any went up.

    Raises:
        ValueError: If no plan is allowed.
    """
    if dwell_slots > 0:
        return _plan_with_dwell(slot_costs, switching, initial, dwell_slots)
    slots, shape = slot_costs.shape[0], slot_costs.shape[1:]
    value = np.full(shape, np.inf)
    value[tuple(initial)] = 0.0
    came_from = np.empty((slots, *shape), np.int64)
    states = np.arange(value.size).reshape(shape)
    for slot in range(slots):
        value, origin = _cheapest_move(value, states, switching)
        came_from[slot] = origin
        value = value + slot_costs[slot]
    counts = np.empty((slots, len(shape)), np.int64)
    best = int(np.argmin(value))
    cost = float(value.flat[best])
    if not np.isfinite(cost):
        raise ValueError("no plan is allowed")
    for slot in range(slots - 1, -1, -1):
        counts[slot] = np.unravel_index(best, shape)
        best = int(came_from[slot].flat[best])
    return Plan(counts, cost)


def _cheapest_move(
    value: NDArray[np.float64], origin: NDArray[np.int64], switching: Sequence[SwitchingCost]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the cost of the cheapest way into every state, and where it comes from."""
    for axis, costs in enumerate(switching):
        up_value, up_origin = _running_minimum(value, origin, axis, costs.start)
        down_value, down_origin = (
            np.flip(part, axis)
            for part in _running_minimum(
                np.flip(value, axis), np.flip(origin, axis), axis, costs.stop
            )
        )
        is_up = up_value < down_value
        origin = np.where(is_up, up_origin, down_origin)
        value = np.where(is_up, up_value, down_value)
    return value, origin


def _running_minimum(
    value: NDArray[np.float64], origin: NDArray[np.int64], axis: int, step_cost: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return per place the least of the values at or before it, plus a cost per step between."""
    length = value.shape[axis]
    shape = [1] * value.ndim
    shape[axis] = length
    distance = (np.arange(length) * step_cost).reshape(shape)
    shifted = value - distance
    least = np.minimum.accumulate(shifted, axis=axis)
    is_new = shifted <= least
    index = np.where(is_new, np.arange(length).reshape(shape), 0)
    place = np.maximum.accumulate(index, axis=axis)
    return least + distance, np.take_along_axis(origin, place, axis)


def _plan_with_dwell(
    slot_costs: NDArray[np.float64],
    switching: Sequence[SwitchingCost],
    initial: Sequence[int],
    dwell_slots: int,
) -> Plan:
    """The same with the age of the last start in the state: 0 .. dwell_slots."""
    slots, shape = slot_costs.shape[0], slot_costs.shape[1:]
    ages = dwell_slots + 1
    states = np.arange(ages * int(np.prod(shape))).reshape((ages, *shape))
    value = np.full((ages, *shape), np.inf)
    value[(dwell_slots, *initial)] = 0.0
    came_from = np.empty((slots, ages, *shape), np.int64)
    for slot in range(slots):
        following = np.full_like(value, np.inf)
        origin = np.zeros(value.shape, np.int64)
        for age in range(ages):
            _offer(following, origin, min(age + 1, dwell_slots), value[age], states[age])
            up_value, up_origin = value[age], states[age]
            for axis, costs in enumerate(switching):
                up_value, up_origin = _running_minimum(up_value, up_origin, axis, costs.start)
            _offer(following, origin, 0, up_value, up_origin)
        free_value, free_origin = _cheapest_move(value[dwell_slots], states[dwell_slots], switching)
        down_value, down_origin = value[dwell_slots], states[dwell_slots]
        for axis, costs in enumerate(switching):
            flipped = _running_minimum(
                np.flip(down_value, axis), np.flip(down_origin, axis), axis, costs.stop
            )
            down_value, down_origin = (np.flip(part, axis) for part in flipped)
        _offer(following, origin, dwell_slots, down_value, down_origin)
        # One variant may go up while another goes down, once nothing is young any more.
        _offer(following, origin, 0, free_value, free_origin)
        came_from[slot] = origin
        value = following + slot_costs[slot]
    best = int(np.argmin(value))
    cost = float(value.flat[best])
    if not np.isfinite(cost):
        raise ValueError("no plan is allowed")
    counts = np.empty((slots, len(shape)), np.int64)
    for slot in range(slots - 1, -1, -1):
        counts[slot] = np.unravel_index(best, value.shape)[1:]
        best = int(came_from[slot].flat[best])
    return Plan(counts, cost)


def _offer(
    following: NDArray[np.float64],
    origin: NDArray[np.int64],
    age: int,
    value: NDArray[np.float64],
    came_from: NDArray[np.int64],
) -> None:
    is_better = value < following[age]
    following[age] = np.where(is_better, value, following[age])
    origin[age] = np.where(is_better, came_from, origin[age])
