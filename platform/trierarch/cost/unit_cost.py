"""Unit cost: dollars per million tokens over a rolling window.

Spend without tokens has no unit cost: not zero, which would look cheap, and not
infinity, which would look like a measurement. It is missing, with a reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum

from trierarch.core.quantities import TOKENS_PER_MILLION, ZERO_USD, Money, TokenCounts
from trierarch.cost.exact import RATIO, exact_product, exact_sum

WEIGHT_SCALE = 10**6
"""Weights are kept to six decimals, so that weighted token counts can be integers."""


@dataclasses.dataclass(frozen=True, slots=True)
class ServingWeights:
    """What a token costs to serve, relative to an input token that is not cached.

    The defaults are DeepSeek's published production figures of March 2025: one node
    reads 32,200 uncached input tokens or writes 14,800 output tokens per second, and
    its price list asks 0.003 for a cached token where it asks 0.15 for another one.

    Raises:
        ValueError: If a weight is negative, not finite, or has more than six decimals,
            or if all are zero.
    """

    input_weight: Decimal = Decimal("1")
    cached_weight: Decimal = Decimal("0.02")
    output_weight: Decimal = Decimal("2.2")

    def __post_init__(self) -> None:
        for weight in (self.input_weight, self.cached_weight, self.output_weight):
            if not weight.is_finite() or weight < 0:
                raise ValueError(f"serving weights must be zero or more: {self}")
            if weight * WEIGHT_SCALE != int(weight * WEIGHT_SCALE):
                raise ValueError(f"serving weights have at most six decimals: {self}")
        if not any((self.input_weight, self.cached_weight, self.output_weight)):
            raise ValueError("at least one serving weight must be above zero")

    def weigh_millionths(self, tokens: TokenCounts) -> int:
        """Return the weighted tokens times a million, an exact integer."""
        uncached_tokens = tokens.input_tokens - tokens.cached_tokens
        return (
            uncached_tokens * int(self.input_weight * WEIGHT_SCALE)
            + tokens.cached_tokens * int(self.cached_weight * WEIGHT_SCALE)
            + tokens.output_tokens * int(self.output_weight * WEIGHT_SCALE)
        )

    def weigh(self, tokens: TokenCounts) -> Decimal:
        """Return the weighted tokens, in tokens of uncached input."""
        return exact_product(Decimal(self.weigh_millionths(tokens)), Decimal("1e-6"))


class UnitCostMissingReason(StrEnum):
    """Why there is no unit cost."""

    NO_TOKENS = "NoTokens"
    """Money was spent and nothing was served."""
    NO_DATA = "NoData"
    """Nothing was spent and nothing was served."""


@dataclasses.dataclass(frozen=True, slots=True)
class UnitCostMissing:
    """No unit cost exists for the window."""

    reason: UnitCostMissingReason


@dataclasses.dataclass(frozen=True, slots=True)
class UnitCost:
    """Dollars per million tokens.

    Attributes:
        usd_per_million_tokens: By plain input plus output tokens.
        usd_per_million_weighted_tokens: By tokens weighted with what they cost to serve.
    """

    usd_per_million_tokens: Decimal
    usd_per_million_weighted_tokens: Decimal


def unit_cost(
    spend: Money, tokens: TokenCounts, weights: ServingWeights | None = None
) -> UnitCost | UnitCostMissing:
    """Return what a million tokens cost, or why that cannot be said.

    The result is a ratio, rounded to 18 significant digits; never sum it.

    Args:
        spend: What the capacity cost in the window.
        tokens: What was served in the same window.
        weights: What each class of token costs to serve; the published defaults if None.
    """
    weighted_tokens = (weights or ServingWeights()).weigh(tokens)
    if tokens.total_tokens == 0 or weighted_tokens == 0:
        nothing = spend.amount == 0
        return UnitCostMissing(
            UnitCostMissingReason.NO_DATA if nothing else UnitCostMissingReason.NO_TOKENS
        )
    per_million = exact_product(spend.amount, Decimal(TOKENS_PER_MILLION))
    return UnitCost(
        RATIO.divide(per_million, Decimal(tokens.total_tokens)),
        RATIO.divide(per_million, weighted_tokens),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class SpendSample:
    """Spend and tokens that became known at one instant."""

    at_unix_seconds: float
    spend: Money = ZERO_USD
    tokens: TokenCounts = TokenCounts()  # noqa: RUF009  # frozen


def rolling_unit_cost(
    samples: Iterable[SpendSample],
    *,
    now_unix_seconds: float,
    window_seconds: float,
    weights: ServingWeights | None = None,
) -> UnitCost | UnitCostMissing:
    """Return the unit cost of the samples in ``(now - window, now]``.

    Raises:
        ValueError: If the window is not above zero.
    """
    if not window_seconds > 0:
        raise ValueError(f"a rolling window must be longer than zero, got {window_seconds}")
    first = now_unix_seconds - window_seconds
    inside = [s for s in samples if first < s.at_unix_seconds <= now_unix_seconds]
    spend = Money(exact_sum(sample.spend.amount for sample in inside))
    tokens = sum((sample.tokens for sample in inside), TokenCounts())
    return unit_cost(spend, tokens, weights)
