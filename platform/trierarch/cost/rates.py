"""The rate card: what a request is charged, known before it runs.

A request pays for the tokens it used, by class, at the rates of its model and tier
that were in force when it started. The charge is exact: no digit is rounded away.

What each outcome pays: ``completed``, ``aborted`` and ``migrated`` pay for all input
once and for the output generated until the end; ``failed`` and ``shed`` pay nothing.
Cached input pays the cached rate instead of the input rate. Reasoning is output.
Drafted tokens that the model did not accept are not output, and of a request that was
tried on several replicas only the attempt that was answered counts.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from trierarch.core.clock import utc_datetime
from trierarch.core.errors import InvalidInput
from trierarch.core.quantities import ZERO_USD, Money, TokenCounts
from trierarch.core.usage import Outcome, ServiceTier
from trierarch.cost.exact import EXACT, exact_product, exact_sum

ANY_MODEL = "*"
"""Model of the rate for every model that has no rate of its own."""

MILLION_EXPONENT = 6
"""Rates are quoted per million tokens."""

UNCHARGED = frozenset({Outcome.FAILED, Outcome.SHED})
"""The customer got nothing, so the customer pays nothing."""


def is_charged(outcome: Outcome) -> bool:
    """Return whether a request that ended so is paid for."""
    return outcome not in UNCHARGED


class RateMissing(InvalidInput):
    """No rate is known for a model and tier at that time."""


@dataclasses.dataclass(frozen=True, slots=True)
class RateEntry:
    """One line of the rate card.

    Attributes:
        model: Served model name, or ``*``.
        tier: None is the rate of the default tier; other tiers follow by their factor.
        usd_per_million_input_tokens: For input that was not found in a prefix cache.
        usd_per_million_cached_tokens: For input that was.
        usd_per_million_output_tokens: For everything generated.
        effective_from_unix_seconds: First instant at which it holds; it holds until the
            next entry of the same model and tier begins.
        source: Where the figures come from.

    Raises:
        ValueError: If a rate is negative or not finite.
    """

    model: str
    tier: ServiceTier | None
    usd_per_million_input_tokens: Decimal
    usd_per_million_cached_tokens: Decimal
    usd_per_million_output_tokens: Decimal
    effective_from_unix_seconds: float
    source: str = ""

    def __post_init__(self) -> None:
        for rate in self.rates:
            if not rate.is_finite() or rate < 0:
                raise ValueError(f"rates of '{self.model}' must be zero or more, got {rate}")

    @property
    def rates(self) -> tuple[Decimal, Decimal, Decimal]:
        """Input, cached and output rate."""
        return (
            self.usd_per_million_input_tokens,
            self.usd_per_million_cached_tokens,
            self.usd_per_million_output_tokens,
        )

    def times(self, factor: Decimal) -> RateEntry:
        """Return the entry with every rate multiplied."""
        uncached, cached, output = (exact_product(rate, factor) for rate in self.rates)
        return dataclasses.replace(
            self,
            usd_per_million_input_tokens=uncached,
            usd_per_million_cached_tokens=cached,
            usd_per_million_output_tokens=output,
        )

    def charge(self, tokens: TokenCounts) -> Money:
        """Return the exact price of these tokens."""
        uncached, cached, output = self.rates
        per_million = exact_sum(
            (
                exact_product(uncached, Decimal(tokens.input_tokens - tokens.cached_tokens)),
                exact_product(cached, Decimal(tokens.cached_tokens)),
                exact_product(output, Decimal(tokens.output_tokens)),
            )
        )
        return Money(EXACT.scaleb(per_million, -MILLION_EXPONENT))


_Key = tuple[str, ServiceTier | None]


def _by_name(pair: tuple[_Key, list[RateEntry]]) -> tuple[str, str]:
    (model, tier), _ = pair
    return (model, tier or "")


class RateCard:
    """Effective-dated rates per model and tier.

    The first of these that holds at the time is taken: the model's rate for the tier,
    the model's rate without a tier times the tier's factor, the ``*`` rate for the
    tier, the ``*`` rate without a tier times the factor.
    """

    def __init__(
        self,
        entries: Iterable[RateEntry] = (),
        tier_factors: Mapping[ServiceTier, Decimal] | None = None,
    ) -> None:
        """Sort the entries.

        Args:
            entries: In any order; of two with equal model, tier and start the last holds.
            tier_factors: Factor per tier; a tier that is not named has 1.
        """
        latest = {(e.model, e.tier, e.effective_from_unix_seconds): e for e in entries}
        by_key: dict[_Key, list[RateEntry]] = {}
        for entry in latest.values():
            by_key.setdefault((entry.model, entry.tier), []).append(entry)
        self._by_key = {
            key: sorted(group, key=lambda entry: entry.effective_from_unix_seconds)
            for key, group in sorted(
                by_key.items(), key=lambda pair: (pair[0][0], pair[0][1] or "")
            )
        }
        self._starts = {
            key: [entry.effective_from_unix_seconds for entry in group]
            for key, group in self._by_key.items()
        }
        self.tier_factors: dict[ServiceTier, Decimal] = dict(tier_factors or {})
        # Multiplied once: a charge is made on the path of every request.
        self._factored = {
            (model, tier): [e.times(self.tier_factors.get(tier, Decimal(1))) for e in group]
            for (model, no_tier), group in self._by_key.items()
            if no_tier is None
            for tier in ServiceTier
        }

    def __iter__(self) -> Iterator[RateEntry]:
        """Iterate by model, then tier, then date."""
        for group in self._by_key.values():
            yield from group

    def overlay(
        self,
        newer: Iterable[RateEntry],
        tier_factors: Mapping[ServiceTier, Decimal] | None = None,
    ) -> RateCard:
        """Return a card in which ``newer`` is added and wins where both speak."""
        return RateCard([*self, *newer], {**self.tier_factors, **(tier_factors or {})})

    def find(self, model: str, tier: ServiceTier, at_unix_seconds: float) -> RateEntry | None:
        """Return the rate that holds for a model and tier, factor applied, or None."""
        for name in (model, ANY_MODEL):
            index = self._index((name, tier), at_unix_seconds)
            if index >= 0:
                return self._by_key[name, tier][index]
            index = self._index((name, None), at_unix_seconds)
            if index >= 0:
                return self._factored[name, tier][index]
        return None

    def _index(self, key: _Key, at_unix_seconds: float) -> int:
        """Return which entry of a key holds; below zero if none does."""
        return bisect.bisect_right(self._starts.get(key, ()), at_unix_seconds) - 1

    def charge(
        self,
        model: str,
        tier: ServiceTier,
        tokens: TokenCounts,
        at_unix_seconds: float,
        outcome: Outcome = Outcome.COMPLETED,
    ) -> Money:
        """Return the exact charge for one request.

        Args:
            model: Served model name.
            tier: Lane it ran in.
            tokens: All tokens that count; for an aborted request those until the end.
            at_unix_seconds: When the request started.
            outcome: How it ended.

        Raises:
            RateMissing: If the card has no rate for it, unless nothing is charged anyway.
        """
        if not is_charged(outcome):
            return ZERO_USD
        entry = self.find(model, tier, at_unix_seconds)
        if entry is None:
            raise RateMissing(
                f"the rate card has no rate for model '{model}' in tier '{tier}'"
                f" at {utc_datetime(at_unix_seconds):%Y-%m-%dT%H:%M:%SZ};"
                " add one with `trierarch prices import`"
            )
        return entry.charge(tokens)
