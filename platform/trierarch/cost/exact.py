"""Exact sums and exact splits of money.

Every amount of actual cost is a whole number of quanta of 1e-12 dollar. A total
is split by integer shares with the largest remainders rounded up, so the parts
add up to the total to the last digit; nothing here ever rounds silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow

from trierarch.core.quantities import Money

QUANTUM_EXPONENT = -12
"""A picodollar: the cheapest cached token known costs a thousand of them."""

QUANTA_PER_DOLLAR = 1_000_000_000_000
"""The same as a count."""

EXACT = Context(prec=120, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
"""Arithmetic that raises instead of rounding; 120 digits hold any sum of real prices."""

RATIO = Context(prec=18)
"""For unit prices, which are ratios to read and compare, never amounts to add up."""


def exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    """Return the sum without rounding.

    Raises:
        decimal.Inexact: If the sum needs more digits than money can have.
    """
    total = Decimal(0)
    for amount in amounts:
        total = EXACT.add(total, amount)
    return total


def exact_product(left: Decimal, right: Decimal) -> Decimal:
    """Return the product without rounding.

    Raises:
        decimal.Inexact: If the product needs more digits than money can have.
    """
    return EXACT.multiply(left, right)


def money_from_quanta(quanta: int) -> Money:
    """Return whole quanta as dollars."""
    return Money(EXACT.scaleb(Decimal(quanta), QUANTUM_EXPONENT))


def quanta_from_money(money: Money) -> int:
    """Return dollars as whole quanta.

    Raises:
        ValueError: If the amount is finer than a quantum.
    """
    quanta = EXACT.scaleb(money.amount, -QUANTUM_EXPONENT)
    if quanta != quanta.to_integral_value():
        raise ValueError(f"{money} is finer than 1e{QUANTUM_EXPONENT} dollar")
    return int(quanta)


def share_out(total: int, shares: Sequence[int]) -> list[int]:
    """Split ``total`` in proportion to ``shares``; the parts add up to ``total`` exactly.

    Each part is the floor or the ceiling of its proportional amount; what the floors
    leave over goes one by one to the largest remainders, the first one on a tie.

    Args:
        total: What to split, zero or more.
        shares: Zero or more each; at least one above zero unless ``total`` is zero.

    Raises:
        ValueError: If something is negative, or nobody can take a positive total.
    """
    if total < 0 or any(share < 0 for share in shares):
        raise ValueError("only amounts and shares of zero or more can be split")
    whole = sum(shares)
    if whole == 0:
        if total:
            raise ValueError(f"nobody takes the {total} quanta that are to be split")
        return [0] * len(shares)
    parts: list[int] = []
    remainders: list[int] = []
    for share in shares:
        part, remainder = divmod(total * share, whole)
        parts.append(part)
        remainders.append(remainder)
    left_over = total - sum(parts)
    by_remainder = sorted(range(len(shares)), key=remainders.__getitem__, reverse=True)
    for index in by_remainder[:left_over]:
        parts[index] += 1
    return parts
