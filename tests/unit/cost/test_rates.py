"""The rate card: what a request is charged."""

from decimal import Decimal

import pytest

from trierarch.core.errors import InvalidInput
from trierarch.core.quantities import Money, TokenCounts
from trierarch.core.usage import Outcome, ServiceTier
from trierarch.cost.rates import RateCard, RateEntry, RateMissing

TOKENS = TokenCounts(input_tokens=1000, cached_tokens=400, output_tokens=50, reasoning_tokens=20)


def rate(model="m", tier=None, start=0.0, usd=("1", "0.1", "4")):
    return RateEntry(model, tier, *(Decimal(text) for text in usd), start)


CARD = RateCard([rate()], {ServiceTier.FLEX: Decimal("0.5"), ServiceTier.PRIORITY: Decimal("1.75")})


def test_each_class_of_token_has_its_rate_and_cached_input_is_not_charged_twice():
    # 600 x 1 + 400 x 0.1 + 50 x 4 = 840 per million
    assert CARD.charge("m", ServiceTier.DEFAULT, TOKENS, 0.0) == Money.of("0.00084")


def test_cached_input_is_cheaper():
    cold = TokenCounts(input_tokens=1000, output_tokens=50)
    warm = TokenCounts(input_tokens=1000, cached_tokens=1000, output_tokens=50)
    assert CARD.charge("m", ServiceTier.DEFAULT, warm, 0.0) < CARD.charge(
        "m", ServiceTier.DEFAULT, cold, 0.0
    )


def test_charge_has_all_its_digits():
    card = RateCard([rate(usd=("0.003625", "0", "0.87"))])
    charge = card.charge("m", ServiceTier.DEFAULT, TokenCounts(7, 0, 3), 0.0)
    assert str(charge) == "0.000002635375"


@pytest.mark.parametrize(
    ("outcome", "amount"),
    [
        (Outcome.COMPLETED, "0.00084"),
        (Outcome.ABORTED, "0.00084"),
        (Outcome.MIGRATED, "0.00084"),
        (Outcome.FAILED, "0"),
        (Outcome.SHED, "0"),
    ],
)
def test_every_outcome_has_its_rule(outcome, amount):
    charge = CARD.charge("m", ServiceTier.DEFAULT, TOKENS, 0.0, outcome)
    assert charge == Money.of(amount)


def test_nothing_is_charged_for_a_failed_request_even_without_a_rate():
    empty = RateCard()
    assert empty.charge("m", ServiceTier.DEFAULT, TOKENS, 0.0, Outcome.FAILED) == Money.of(0)


@pytest.mark.parametrize(
    ("tier", "amount"),
    [
        (ServiceTier.DEFAULT, "0.00084"),
        (ServiceTier.FLEX, "0.00042"),
        (ServiceTier.PRIORITY, "0.00147"),
    ],
)
def test_tiers_follow_by_their_factor(tier, amount):
    assert CARD.charge("m", tier, TOKENS, 0.0) == Money.of(amount)


def test_rate_of_the_tier_itself_comes_before_the_factor():
    card = RateCard(
        [rate(), rate(tier=ServiceTier.FLEX, usd=("9", "9", "9"))],
        {ServiceTier.FLEX: Decimal("0.5")},
    )
    assert card.charge("m", ServiceTier.FLEX, TokenCounts(10**6), 0.0) == Money.of(9)


def test_rate_of_the_model_comes_before_the_rate_for_any_model():
    card = RateCard([rate(), rate(model="*", usd=("7", "7", "7"))])
    one_million = TokenCounts(10**6)
    assert card.charge("m", ServiceTier.DEFAULT, one_million, 0.0) == Money.of(1)
    assert card.charge("other", ServiceTier.DEFAULT, one_million, 0.0) == Money.of(7)


def test_rate_in_force_when_the_request_started_counts():
    card = RateCard([rate(start=0.0), rate(start=100.0, usd=("2", "2", "2"))])
    one_million = TokenCounts(10**6)
    assert card.charge("m", ServiceTier.DEFAULT, one_million, 99.9) == Money.of(1)
    assert card.charge("m", ServiceTier.DEFAULT, one_million, 100.0) == Money.of(2)


def test_missing_rate_is_an_error_that_names_model_and_tier_not_a_charge_of_zero():
    with pytest.raises(RateMissing, match=r"model 'x' in tier 'flex'.*prices import") as error:
        CARD.charge("x", ServiceTier.FLEX, TOKENS, 0.0)
    assert isinstance(error.value, InvalidInput)


def test_rate_that_begins_later_is_missing_before():
    with pytest.raises(RateMissing):
        RateCard([rate(start=100.0)]).charge("m", ServiceTier.DEFAULT, TOKENS, 99.0)


def test_overlay_wins_for_entries_and_factors():
    card = CARD.overlay([rate(usd=("3", "3", "3"))], {ServiceTier.FLEX: Decimal("0.1")})
    one_million = TokenCounts(10**6)
    assert card.charge("m", ServiceTier.FLEX, one_million, 0.0) == Money.of("0.3")
    assert card.charge("m", ServiceTier.PRIORITY, one_million, 0.0) == Money.of("5.25")


@pytest.mark.parametrize("bad", ["-1", "NaN"])
def test_rate_that_is_no_rate_is_refused(bad):
    with pytest.raises(ValueError, match="zero or more"):
        rate(usd=("1", bad, "1"))
