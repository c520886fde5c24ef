"""Tokens and money.

Money is a ``Decimal`` with its currency: sums of charges must be equal to the
last digit, which binary floats cannot promise.
"""

from __future__ import annotations

import dataclasses
from decimal import Decimal

TOKENS_PER_MILLION = 1_000_000
"""Prices are quoted per million tokens."""


@dataclasses.dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of one request, or a sum of them.

    Attributes:
        input_tokens: All prompt tokens, including those found in a prefix cache.
        cached_tokens: The part of ``input_tokens`` that was found in a prefix cache.
        output_tokens: All generated tokens, including reasoning.
        reasoning_tokens: The part of ``output_tokens`` that was reasoning.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def __post_init__(self) -> None:
        if min(self.input_tokens, self.cached_tokens, self.output_tokens) < 0:
            raise ValueError(f"token counts cannot be negative: {self}")
        if self.cached_tokens > self.input_tokens:
            raise ValueError(f"more cached than input tokens: {self}")
        if not 0 <= self.reasoning_tokens <= self.output_tokens:
            raise ValueError(f"reasoning tokens are a part of output tokens: {self}")

    def __add__(self, other: TokenCounts) -> TokenCounts:
        """Return the sum, class by class."""
        return TokenCounts(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )

    @property
    def total_tokens(self) -> int:
        """Input plus output."""
        return self.input_tokens + self.output_tokens


@dataclasses.dataclass(frozen=True, slots=True)
class Money:
    """An exact amount in one currency.

    Raises:
        ValueError: If the amount is not finite, or two currencies are mixed.
    """

    amount: Decimal
    currency: str = "USD"

    def __post_init__(self) -> None:
        if not isinstance(self.amount, Decimal):
            raise TypeError(f"money takes a Decimal, not {type(self.amount).__name__}")
        if not self.amount.is_finite():
            raise ValueError(f"money must be finite, got {self.amount}")

    @classmethod
    def of(cls, amount: str | int | Decimal, currency: str = "USD") -> Money:
        """Return money from exact text or an integer; floats are refused by type."""
        return cls(Decimal(amount), currency)

    def _same_currency(self, other: Money) -> None:
        if self.currency != other.currency:
            raise ValueError(f"cannot mix {self.currency} and {other.currency}")

    def __add__(self, other: Money) -> Money:
        """Return the sum of two amounts of one currency."""
        self._same_currency(other)
        return Money(self.amount + other.amount, self.currency)

    def __sub__(self, other: Money) -> Money:
        """Return the difference of two amounts of one currency."""
        self._same_currency(other)
        return Money(self.amount - other.amount, self.currency)

    def __mul__(self, factor: int | Decimal) -> Money:
        """Return the amount times an exact factor."""
        return Money(self.amount * factor, self.currency)

    def __lt__(self, other: Money) -> bool:
        """Compare two amounts of one currency."""
        self._same_currency(other)
        return self.amount < other.amount

    def __le__(self, other: Money) -> bool:
        """Compare two amounts of one currency."""
        self._same_currency(other)
        return self.amount <= other.amount

    def __str__(self) -> str:
        """Return plain digits, never an exponent."""
        return f"{self.amount:f}"


ZERO_USD = Money(Decimal(0))
"""The start of a sum in dollars."""
