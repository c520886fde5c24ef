"""Exact sums and splits."""

from decimal import Decimal, Inexact

import pytest

from trierarch.core.quantities import Money
from trierarch.cost.exact import (
    exact_product,
    exact_sum,
    money_from_quanta,
    quanta_from_money,
    share_out,
)


def test_sum_keeps_every_digit_that_the_default_precision_would_round_away():
    tiny = Decimal("0.000000000001")
    assert exact_sum([Decimal(10**20), tiny]) == Decimal("100000000000000000000.000000000001")
    assert Decimal(10**20) + tiny != exact_sum([Decimal(10**20), tiny])


def test_product_that_cannot_be_exact_is_refused_not_rounded():
    long = Decimal("1." + "1" * 100)
    with pytest.raises(Inexact):
        exact_product(long, long)


def test_leftovers_go_to_the_largest_remainders():
    # 10 * (1, 2, 4) / 7 = 1.43, 2.86, 5.71: the floors leave two over.
    assert share_out(10, [1, 2, 4]) == [1, 3, 6]


def test_ties_go_to_the_first():
    assert share_out(1, [1, 1]) == [1, 0]


def test_nothing_is_shared_among_nobody():
    assert share_out(0, []) == []
    assert share_out(0, [0, 0]) == [0, 0]


@pytest.mark.parametrize(
    ("total", "shares"),
    [(1, []), (1, [0]), (-1, [1]), (1, [2, -1])],
    ids=["nobody", "only-zero-shares", "negative-total", "negative-share"],
)
def test_impossible_splits_are_refused(total, shares):
    with pytest.raises(ValueError, match="split"):
        share_out(total, shares)


def test_quanta_and_money_are_the_same_amount():
    assert money_from_quanta(1) == Money.of("0.000000000001")
    assert quanta_from_money(money_from_quanta(123_456_789)) == 123_456_789


def test_money_finer_than_a_quantum_has_no_quanta():
    with pytest.raises(ValueError, match="finer"):
        quanta_from_money(Money.of("0.0000000000001"))
