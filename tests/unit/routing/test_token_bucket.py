"""Rate limits as buckets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trierarch.routing.token_bucket import TokenBucket, format_reset


def test_a_full_bucket_gives_its_capacity_at_once_and_then_its_rate() -> None:
    bucket = TokenBucket.full(60, now_seconds=0.0)
    bucket.take(60)
    assert bucket.seconds_until(1) == 1.0
    bucket.refill(0.5)
    assert bucket.seconds_until(1) == pytest.approx(0.5)
    bucket.refill(1.0)
    assert bucket.seconds_until(1) == 0.0


def test_settling_gives_back_and_takes_more() -> None:
    bucket = TokenBucket.full(100, now_seconds=0.0)
    bucket.take(50)
    bucket.take(-30)
    assert bucket.remaining == 80
    bucket.take(200)
    assert bucket.remaining == 0
    assert bucket.level == -120


def test_giving_back_never_overfills() -> None:
    bucket = TokenBucket.full(10, now_seconds=0.0)
    bucket.take(-5)
    assert bucket.remaining == 10


def test_a_request_larger_than_the_limit_waits_for_a_full_bucket_only() -> None:
    bucket = TokenBucket.full(100, now_seconds=0.0)
    assert bucket.seconds_until(1_000_000) == 0.0
    bucket.take(10)
    assert bucket.seconds_until(1_000_000) == pytest.approx(6.0)


def test_a_clock_that_goes_back_adds_nothing() -> None:
    bucket = TokenBucket.full(60, now_seconds=100.0)
    bucket.take(60)
    bucket.refill(50.0)
    assert bucket.level == 0.0


@pytest.mark.parametrize("capacity", [0, -1, float("nan"), float("inf")])
def test_a_limit_must_be_a_positive_number(capacity: float) -> None:
    with pytest.raises(ValueError, match="positive number"):
        TokenBucket.full(capacity, now_seconds=0.0)


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 50)), max_size=60),
)
def test_never_more_than_capacity_plus_rate(capacity: int, steps: list[tuple[float, int]]) -> None:
    bucket = TokenBucket.full(capacity, now_seconds=0.0)
    now, taken = 0.0, 0
    for pause, amount in steps:
        now += pause
        bucket.refill(now)
        if amount <= capacity and bucket.seconds_until(amount) == 0.0:
            bucket.take(amount)
            taken += amount
        assert taken <= capacity + now * capacity / 60 + 1e-6
        assert bucket.level >= -1e-6


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0ms"),
        (0.0199, "20ms"),
        (0.9999, "1s"),
        (1.0, "1s"),
        (59.2, "1m0s"),
        (360.0, "6m0s"),
        (3725.0, "1h2m5s"),
    ],
)
def test_resets_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert format_reset(seconds) == text
