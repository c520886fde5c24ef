"""In what order waiting requests go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trierarch.core.usage import ServiceTier
from trierarch.routing.waiting_queue import TIER_ORDER, WaitingQueue

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


operations = st.lists(
    st.tuples(
        st.sampled_from(["append", "put_back", "remove"]),
        st.integers(0, 5),
        st.sampled_from(list(ServiceTier)),
        st.integers(0, 100),
    ),
    max_size=60,
)


@given(operations)
def test_counters_equal_the_contents(steps: list[tuple[str, int, ServiceTier, int]]) -> None:
    queue: WaitingQueue[int] = WaitingQueue()
    model: dict[tuple[ServiceTier, int], int] = {}
    for operation, item, tier, tokens in steps:
        if operation == "remove":
            assert queue.remove(item, tier) == (model.pop((tier, item), None) is not None)
        elif (tier, item) not in model:
            getattr(queue, operation)(item, tier, tokens)
            model[tier, item] = tokens
    assert len(queue) == len(model)
    for tier in ServiceTier:
        mine = [tokens for (other, _), tokens in model.items() if other is tier]
        assert queue.depth(tier) == len(mine)
        assert queue.waiting_tokens(tier) == sum(mine)
