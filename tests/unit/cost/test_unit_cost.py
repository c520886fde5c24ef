"""Unit cost: a number, or a reason why there is none."""

from decimal import Decimal

import pytest

from trierarch.core.quantities import Money, TokenCounts
from trierarch.cost.unit_cost import (
    ServingWeights,
    SpendSample,
    UnitCost,
    UnitCostMissing,
    UnitCostMissingReason,
    rolling_unit_cost,
    unit_cost,
)

WEIGHTS = ServingWeights(Decimal(1), Decimal(0), Decimal(4))


def test_plain_and_weighted_are_both_given():
    tokens = TokenCounts(input_tokens=500_000, cached_tokens=100_000, output_tokens=500_000)
    cost = unit_cost(Money.of(3), tokens, WEIGHTS)
    assert isinstance(cost, UnitCost)
    assert cost.usd_per_million_tokens == Decimal(3)
    # 400,000 x 1 + 100,000 x 0 + 500,000 x 4 = 2.4 million
    assert cost.usd_per_million_weighted_tokens == Decimal("1.25")


def test_spend_without_tokens_is_missing_not_infinite():
    missing = unit_cost(Money.of(3), TokenCounts())
    assert missing == UnitCostMissing(UnitCostMissingReason.NO_TOKENS)


def test_nothing_at_all_is_missing_not_zero():
    assert unit_cost(Money.of(0), TokenCounts()) == UnitCostMissing(UnitCostMissingReason.NO_DATA)


def test_tokens_that_weigh_nothing_are_no_tokens():
    cached_only = TokenCounts(input_tokens=10, cached_tokens=10)
    assert unit_cost(Money.of(1), cached_only, WEIGHTS) == UnitCostMissing(
        UnitCostMissingReason.NO_TOKENS
    )


def test_tokens_that_cost_nothing_cost_zero():
    cost = unit_cost(Money.of(0), TokenCounts(10, 0, 10))
    assert isinstance(cost, UnitCost)
    assert cost.usd_per_million_tokens == 0


def test_window_is_open_at_its_start_and_closed_at_its_end():
    samples = [
        SpendSample(40.0, Money.of(100), TokenCounts(1)),
        SpendSample(41.0, Money.of(1), TokenCounts(1_000_000)),
        SpendSample(100.0, Money.of(2), TokenCounts(1_000_000)),
        SpendSample(100.1, Money.of(100), TokenCounts(1)),
    ]
    cost = rolling_unit_cost(samples, now_unix_seconds=100.0, window_seconds=60.0)
    assert isinstance(cost, UnitCost)
    assert cost.usd_per_million_tokens == Decimal("1.5")


def test_window_without_samples_is_missing():
    missing = rolling_unit_cost([], now_unix_seconds=0.0, window_seconds=60.0)
    assert missing == UnitCostMissing(UnitCostMissingReason.NO_DATA)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_window_must_be_longer_than_zero(seconds):
    with pytest.raises(ValueError, match="longer than zero"):
        rolling_unit_cost([], now_unix_seconds=0.0, window_seconds=seconds)


@pytest.mark.parametrize(
    "weights",
    [("-1", "0", "1"), ("0", "0", "0"), ("NaN", "0", "1"), ("0.0000001", "0", "1")],
    ids=["negative", "all-zero", "not-a-number", "too-fine"],
)
def test_weights_that_cannot_weigh_are_refused(weights):
    with pytest.raises((ValueError, ArithmeticError)):
        ServingWeights(*(Decimal(weight) for weight in weights))


def test_weighing_is_exact():
    weights = ServingWeights(Decimal("1"), Decimal("0.02"), Decimal("2.2"))
    assert weights.weigh(TokenCounts(101, 100, 3)) == Decimal("9.6")
