"""Which replica gets a request."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trierarch.core.identifiers import ModelName, ReplicaId, VariantName
from trierarch.core.replicas import ReplicaEndpoint, ReplicaState
from trierarch.routing.ejection import HEALTHY, ReplicaHealth
from trierarch.routing.replica_selection import ReplicaLoad, choose_replica, is_eligible

NOW = 1000.0
LIMIT = 4


def load(
    name: str,
    *,
    state: ReplicaState = ReplicaState.READY,
    requests: int = 0,
    tokens: int = 0,
    ejected_until: float | None = None,
) -> ReplicaLoad:
    endpoint = ReplicaEndpoint(ReplicaId(name), ModelName("m"), VariantName("v"), state)
    health = HEALTHY
    if ejected_until is not None:
        health = ReplicaHealth(1, 1, ejected_until)
    return ReplicaLoad(endpoint, requests, tokens, health)


def choose(loads: list[ReplicaLoad], **options: object) -> str | None:
    chosen = choose_replica(loads, now_seconds=NOW, max_ongoing_requests=LIMIT, **options)  # type: ignore[arg-type]
    return None if chosen is None else chosen.endpoint.replica_id


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        pytest.param([], None, id="no-replica"),
        pytest.param([load("a", tokens=9), load("b", tokens=3)], "b", id="fewest-tokens-win"),
        pytest.param(
            [load("a", requests=1, tokens=10_000), load("b", requests=3, tokens=30)],
            "b",
            id="a-long-prompt-weighs-more-than-three-short-ones",
        ),
        pytest.param(
            [load("a", requests=2, tokens=5), load("b", requests=1, tokens=5)],
            "b",
            id="equal-tokens-then-fewer-requests",
        ),
        *[
            pytest.param([load("a", state=state)], None, id=f"{state}-replicas-get-nothing")
            for state in (ReplicaState.STARTING, ReplicaState.DRAINING, ReplicaState.FAILED)
        ],
        pytest.param([load("a", requests=LIMIT)], None, id="a-full-replica-gets-nothing"),
        pytest.param([load("a", requests=LIMIT - 1)], "a", id="one-place-left"),
        pytest.param([load("a", ejected_until=NOW + 0.1)], None, id="an-ejected-one-gets-nothing"),
        pytest.param([load("a", ejected_until=NOW)], "a", id="an-ejection-ends-on-time"),
    ],
)
def test_the_least_loaded_ready_replica_is_chosen(
    loads: list[ReplicaLoad], expected: str | None
) -> None:
    assert choose(loads) == expected


def test_a_replica_the_request_failed_on_is_excluded() -> None:
    assert choose([load("a"), load("b", tokens=99)], excluded={"a"}) == "b"


def test_equals_take_turns() -> None:
    loads = [load("a"), load("b"), load("c", tokens=1)]
    assert [choose(loads, tie_break=turn) for turn in range(4)] == ["a", "b", "a", "b"]


states = st.sampled_from(list(ReplicaState))
replica_loads = st.lists(
    st.builds(
        lambda state, requests, tokens, ejected: (state, requests, tokens, ejected),
        states,
        st.integers(0, LIMIT + 1),
        st.integers(0, 50),
        st.sampled_from([None, NOW - 1, NOW + 1]),
    ),
    max_size=8,
)


def build(described: list[tuple[ReplicaState, int, int, float | None]]) -> list[ReplicaLoad]:
    return [
        load(f"r{index}", state=state, requests=requests, tokens=tokens, ejected_until=ejected)
        for index, (state, requests, tokens, ejected) in enumerate(described)
    ]


@given(replica_loads, st.integers(0, 1000), st.sets(st.sampled_from(["r0", "r1", "r2"])))
def test_the_choice_is_eligible_and_nobody_eligible_has_less_to_do(
    described: list[tuple[ReplicaState, int, int, float | None]], turn: int, excluded: set[str]
) -> None:
    loads = build(described)
    ids = frozenset(map(ReplicaId, excluded))
    chosen = choose_replica(
        loads, now_seconds=NOW, max_ongoing_requests=LIMIT, excluded=ids, tie_break=turn
    )
    eligible = [
        one
        for one in loads
        if is_eligible(one, now_seconds=NOW, max_ongoing_requests=LIMIT, excluded=ids)
    ]
    if chosen is None:
        assert not eligible
        return
    assert chosen in eligible
    assert chosen.endpoint.replica_id not in ids
    assert chosen.outstanding_tokens == min(one.outstanding_tokens for one in eligible)


@given(replica_loads, st.integers(0, 1000))
def test_the_same_question_has_the_same_answer(
    described: list[tuple[ReplicaState, int, int, float | None]], turn: int
) -> None:
    assert choose(build(described), tie_break=turn) == choose(build(described), tie_break=turn)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.integers(2, 4))
def test_work_spreads_within_one_request(sizes: list[int], replicas: int) -> None:
    loads = [load(f"r{index}") for index in range(replicas)]
    for turn, tokens in enumerate(sizes):
        chosen = choose_replica(loads, now_seconds=NOW, max_ongoing_requests=1000, tie_break=turn)
        assert chosen is not None
        chosen.take(tokens)
    held = [one.outstanding_tokens for one in loads]
    assert max(held) - min(held) <= max(sizes)


def test_take_and_give_back_cancel_out() -> None:
    one = load("a", requests=2, tokens=7)
    before = dataclasses.replace(one)
    one.take(5)
    one.give_back(5)
    assert one == before
