"""Charges: exact, never negative, and never smaller for more tokens."""

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from trierarch.core.quantities import TokenCounts
from trierarch.core.usage import ServiceTier
from trierarch.cost.exact import exact_sum
from trierarch.cost.rates import RateCard, RateEntry

USD = st.decimals(0, 1000, places=6)


@st.composite
def tokens(draw):
    input_tokens = draw(st.integers(0, 10_000_000))
    return TokenCounts(
        input_tokens, draw(st.integers(0, input_tokens)), draw(st.integers(0, 1_000_000))
    )


@st.composite
def cards(draw):
    entry = RateEntry("m", None, draw(USD), draw(USD), draw(USD), 0.0)
    return RateCard([entry], {ServiceTier.FLEX: draw(st.decimals(0, 2, places=3))})


@given(cards(), tokens(), st.sampled_from(list(ServiceTier)))
def test_charge_is_exact(card, counts, tier):
    entry = card.find("m", tier, 0.0)
    uncached, cached, output = (Fraction(rate) for rate in entry.rates)
    exact = (
        uncached * (counts.input_tokens - counts.cached_tokens)
        + cached * counts.cached_tokens
        + output * counts.output_tokens
    ) / 1_000_000
    assert Fraction(card.charge("m", tier, counts, 0.0).amount) == exact


@given(cards(), tokens(), tokens())
def test_two_requests_cost_what_their_tokens_cost_together(card, one, two):
    apart = [card.charge("m", ServiceTier.DEFAULT, counts, 0.0).amount for counts in (one, two)]
    together = card.charge("m", ServiceTier.DEFAULT, one + two, 0.0)
    assert exact_sum(apart) == together.amount


@given(cards(), tokens(), st.integers(0, 1000))
def test_more_output_never_costs_less(card, counts, more):
    longer = counts + TokenCounts(output_tokens=more)
    less = card.charge("m", ServiceTier.DEFAULT, counts, 0.0)
    assert less <= card.charge("m", ServiceTier.DEFAULT, longer, 0.0)
    assert less.amount >= Decimal(0)
