"""Price files: every problem in one line with its place."""

from decimal import Decimal
from pathlib import Path

import pytest

from trierarch.adapters.price_files import load_default_prices, read_price_file, read_price_text
from trierarch.core.errors import InvalidInput
from trierarch.core.quantities import TokenCounts
from trierarch.core.usage import ServiceTier
from trierarch.cost.prices import CapacityType, PriceEntry, PriceKey

FILE = """\
currency = "USD"

[[price]]
accelerator = "H200"
capacity_type = "Spot"
usd_per_accelerator_hour = 3.41
effective_from = 2026-04-18

[[ price ]]
accelerator = "H200"
capacity_type = "spot"
usd_per_accelerator_hour = "3"
effective_from = 2026-05-18

[tier_factors]
gold = "1"
"""


def test_numbers_without_quotes_are_exact_too():
    document, _ = read_price_text(FILE, "f.toml")
    assert document.prices[0].usd_per_accelerator_hour == Decimal("3.41")


def test_problems_have_their_line():
    assert read_price_text(FILE, "f.toml")[1] == [
        "f.toml:11: price 2, capacity_type: must be 'OnDemand', 'Spot' or 'Reserved', not 'spot'",
        "f.toml:16: tier_factors, gold: is no tier; tiers are priority, default, flex",
    ]


def test_missing_field_has_the_line_of_its_entry():
    text = FILE.replace('accelerator = "H200"\n', "", 1)
    assert read_price_text(text, "f")[1][0] == "f:3: price 1, accelerator: is missing"


def test_text_that_is_no_toml_says_where():
    (line,) = read_price_text("[[price]]\naccelerator = \n", "f.toml")[1]
    assert line.startswith("f.toml: not TOML:")
    assert "line 2" in line


def test_empty_file_is_a_problem():
    assert read_price_text("", "f")[1] == ["f:1: holds no [[price]] and no [[rate]]"]


def test_file_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        read_price_file(tmp_path / "missing.toml")


def test_file_that_is_no_text_says_so(tmp_path):
    (tmp_path / "f").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="not a text file in UTF-8"):
        read_price_file(tmp_path / "f")


def test_defaults_have_no_problem_and_no_overlap():
    defaults = load_default_prices()
    assert defaults.price_book().problems() == []


@pytest.mark.parametrize("model", ["pocket", "tiny-deepseek-v3", "tiny-qwen3-moe", "a-new-one"])
@pytest.mark.parametrize("tier", list(ServiceTier))
@pytest.mark.parametrize("at_unix_seconds", [0.0, 1_800_000_000.0])
def test_defaults_charge_every_model_in_every_tier_at_any_time(model, tier, at_unix_seconds):
    card = load_default_prices().rate_card()
    charge = card.charge(model, tier, TokenCounts(1, 0, 1), at_unix_seconds)
    assert charge.amount > 0


def test_defaults_make_cached_input_and_flex_cheaper():
    card = load_default_prices().rate_card()
    for model in {entry.model for entry in card}:
        rate = card.find(model, ServiceTier.DEFAULT, 1_800_000_000.0)
        flex = card.find(model, ServiceTier.FLEX, 1_800_000_000.0)
        assert rate.usd_per_million_cached_tokens < rate.usd_per_million_input_tokens
        assert flex.usd_per_million_output_tokens < rate.usd_per_million_output_tokens


@pytest.mark.parametrize("accelerator", ["CPU", "A100", "H100", "H200", "B200", "B300", "MI300X"])
def test_defaults_price_each_accelerator_with_its_source(accelerator):
    book = load_default_prices().price_book()
    price = book.find(PriceKey(accelerator, CapacityType.ON_DEMAND, "anywhere"), 1_800_000_000.0)
    assert isinstance(price, PriceEntry)
    assert price.usd_per_accelerator_hour > 0
    assert price.source


def test_defaults_price_a_cpu_at_any_time():
    book = load_default_prices().price_book()
    assert isinstance(book.find(PriceKey("CPU", CapacityType.ON_DEMAND), 0.0), PriceEntry)


def test_example_in_the_documentation_has_no_problem():
    page = Path(__file__).parents[3] / "docs" / "concepts" / "money.md"
    example = page.read_text().partition("```toml\n")[2].partition("```")[0]
    document, problems = read_price_text(example, "money.md")
    assert problems == []
    assert (len(document.prices), len(document.rates)) == (1, 1)
