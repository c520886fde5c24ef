"""In what order waiting requests go."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trierarch.core.usage import ServiceTier
from trierarch.routing.waiting_queue import (
    LONGEST_WAIT_RATIO,
    TIER_ORDER,
    WaitingQueue,
    longest_wait_seconds,
)

PRIORITY, DEFAULT, FLEX = TIER_ORDER


def test_tiers_first_then_arrival() -> None:
    queue: WaitingQueue[str] = WaitingQueue()
    for name, tier in [("f1", FLEX), ("d1", DEFAULT), ("p1", PRIORITY), ("d2", DEFAULT)]:
        queue.append(name, tier, 1)
    assert list(queue) == ["p1", "d1", "d2", "f1"]


def test_a_request_that_lost_its_place_goes_before_its_tier() -> None:
    queue: WaitingQueue[str] = WaitingQueue()
    queue.append("d1", DEFAULT, 1)
    queue.append("p1", PRIORITY, 1)
    queue.put_back("again", DEFAULT, 1)
    assert list(queue) == ["p1", "again", "d1"]


def test_nobody_overtakes_his_own_or_a_higher_tier() -> None:
    queue: WaitingQueue[str] = WaitingQueue()
    queue.append("d1", DEFAULT, 1)
    assert not queue.has_waiting_at_or_above(PRIORITY)
    assert queue.has_waiting_at_or_above(DEFAULT)
    assert queue.has_waiting_at_or_above(FLEX)


def test_a_part_of_the_promise_may_pass_in_line() -> None:
    assert longest_wait_seconds(2.0) == pytest.approx(2.0 * LONGEST_WAIT_RATIO)
    assert longest_wait_seconds(None) == math.inf


def test_late_requests_go_last_in_their_line() -> None:
    queue: WaitingQueue[str] = WaitingQueue()
    for name in ("d-late-1", "d-late-2", "d1"):
        queue.append(name, DEFAULT, 1)
    queue.append("d-late-important", DEFAULT, 1, priority=1)
    queue.append("p-late", PRIORITY, 1)
    queue.append("f-late", FLEX, 1)
    relegated = queue.relegate(lambda name: "late" in name)
    assert sorted(relegated) == ["d-late-1", "d-late-2", "d-late-important", "p-late"]
    queue.append("d2", DEFAULT, 1)
    assert list(queue) == [
        "p-late",
        "d-late-important",
        "d1",
        "d2",
        "d-late-1",
        "d-late-2",
        "f-late",
    ]
    assert not queue.relegate(lambda name: "late" in name)


def test_a_late_request_that_lost_its_place_is_the_first_of_the_late() -> None:
    queue: WaitingQueue[str] = WaitingQueue()
    queue.append("late", DEFAULT, 1)
    queue.relegate(lambda _name: True)
    queue.append("d1", DEFAULT, 1)
    queue.put_back("again", DEFAULT, 1, is_late=True)
    assert list(queue) == ["d1", "again", "late"]


def test_only_the_front_of_a_line_is_looked_at() -> None:
    queue: WaitingQueue[int] = WaitingQueue()
    for number in range(100):
        queue.append(number, DEFAULT, 1)
    asked: list[int] = []

    def is_late(number: int) -> bool:
        asked.append(number)
        return number < 3

    assert queue.relegate(is_late) == [0, 1, 2]
    assert asked == [0, 1, 2, 3]


operations = st.lists(
    st.tuples(
        st.sampled_from(["append", "put_back", "put_back_late", "remove", "relegate"]),
        st.integers(0, 5),
        st.sampled_from(list(ServiceTier)),
        st.integers(0, 100),
    ),
    max_size=60,
)


@given(operations)
def test_the_order_is_that_of_lists_with_a_late_part(
    steps: list[tuple[str, int, ServiceTier, int]],
) -> None:
    queue: WaitingQueue[tuple[ServiceTier, int]] = WaitingQueue()
    in_time: dict[ServiceTier, list[tuple[ServiceTier, int]]] = {tier: [] for tier in TIER_ORDER}
    late: dict[ServiceTier, list[tuple[ServiceTier, int]]] = {tier: [] for tier in TIER_ORDER}
    for operation, number, tier, _ in steps:
        item = (tier, number)
        waits = item in in_time[tier] or item in late[tier]
        if operation == "relegate":
            relegated = queue.relegate(lambda one, bound=number: one[1] <= bound)
            expected = []
            for other in (PRIORITY, DEFAULT):
                while in_time[other] and in_time[other][0][1] <= number:
                    expected.append(in_time[other].pop(0))
                    late[other].append(expected[-1])
            assert list(relegated) == expected
        elif operation == "remove":
            assert queue.remove(item, tier) == waits
            for part in (in_time[tier], late[tier]):
                if item in part:
                    part.remove(item)
        elif not waits and operation == "append":
            queue.append(item, tier, 1)
            in_time[tier].append(item)
        elif not waits:
            is_late = operation == "put_back_late"
            queue.put_back(item, tier, 1, is_late=is_late)
            (late if is_late else in_time)[tier].insert(0, item)
        assert list(queue) == [one for t in TIER_ORDER for one in (*in_time[t], *late[t])]


@given(operations)
def test_counters_equal_the_contents(steps: list[tuple[str, int, ServiceTier, int]]) -> None:
    queue: WaitingQueue[int] = WaitingQueue()
    model: dict[tuple[ServiceTier, int], int] = {}
    for operation, item, tier, tokens in steps:
        if operation == "remove":
            assert queue.remove(item, tier) == (model.pop((tier, item), None) is not None)
        elif operation == "relegate":
            queue.relegate(lambda one, bound=item: one <= bound)
        elif (tier, item) not in model:
            if operation == "append":
                queue.append(item, tier, tokens)
            else:
                queue.put_back(item, tier, tokens, is_late=operation == "put_back_late")
            model[tier, item] = tokens
    assert len(queue) == len(model)
    for tier in ServiceTier:
        mine = [tokens for (other, _), tokens in model.items() if other is tier]
        assert queue.depth(tier) == len(mine)
        assert queue.waiting_tokens(tier) == sum(mine)
