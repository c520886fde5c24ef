"""The price book: dollars per accelerator-hour, with the dates they hold.

A price is found, stale (it has ended and nothing followed) or missing; these are
three facts, and a price of zero is a fourth one: hardware that is already paid.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from decimal import Decimal
from enum import StrEnum

from trierarch.core.clock import utc_datetime

ANY_REGION = "*"
"""Region of a price that holds wherever no price for the region itself is known."""


class CapacityType(StrEnum):
    """How an accelerator is bought."""

    ON_DEMAND = "OnDemand"
    SPOT = "Spot"
    RESERVED = "Reserved"


@dataclasses.dataclass(frozen=True, slots=True)
class PriceKey:
    """What a price is for."""

    accelerator: str
    capacity_type: CapacityType
    region: str = ANY_REGION

    def __str__(self) -> str:
        """Return the words a person uses for it."""
        place = "any region" if self.region == ANY_REGION else self.region
        return f"{self.accelerator} {self.capacity_type} in {place}"


@dataclasses.dataclass(frozen=True, slots=True)
class PriceEntry:
    """One line of the price book.

    Attributes:
        usd_per_accelerator_hour: Zero or more.
        effective_from_unix_seconds: First instant at which it holds.
        effective_until_unix_seconds: First instant at which it no longer holds; None lets
            it hold until the next entry of the same key begins.
        source: Where the figure comes from.

    Raises:
        ValueError: If the price is negative or not finite, or the dates are turned round.
    """

    key: PriceKey
    usd_per_accelerator_hour: Decimal
    effective_from_unix_seconds: float
    effective_until_unix_seconds: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        price = self.usd_per_accelerator_hour
        if not price.is_finite() or price < 0:
            raise ValueError(f"the price of {self.key} must be zero or more, got {price}")
        until = self.effective_until_unix_seconds
        if until is not None and until <= self.effective_from_unix_seconds:
            raise ValueError(f"a price of {self.key} ends before it begins")


class PriceMissingReason(StrEnum):
    """Why there is no price."""

    UNKNOWN_ACCELERATOR = "UnknownAccelerator"
    UNKNOWN_CAPACITY_TYPE = "UnknownCapacityType"
    UNKNOWN_REGION = "UnknownRegion"
    BEFORE_FIRST_PRICE = "BeforeFirstPrice"


@dataclasses.dataclass(frozen=True, slots=True)
class PriceMissing:
    """No price is known; not the same as a price of zero."""

    reason: PriceMissingReason
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class StalePrice:
    """The last known price: it has ended, and no other had begun."""

    entry: PriceEntry
    ended_unix_seconds: float


class ProblemKind(StrEnum):
    """What can be wrong between the entries of one key."""

    OVERLAP = "Overlap"
    GAP = "Gap"


@dataclasses.dataclass(frozen=True, slots=True)
class PriceProblem:
    """Two entries of one key that do not fit together.

    Attributes:
        entry: The later one of the two.
    """

    kind: ProblemKind
    entry: PriceEntry
    message: str


def _day(unix_seconds: float) -> str:
    return utc_datetime(unix_seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


class PriceBook:
    """Effective-dated prices.

    Entries may come in any order. Overlaps and gaps do not make a book unusable, they
    are listed by ``problems``: in an overlap the entry that began last holds, in a gap
    the last known price is returned as stale.
    """

    def __init__(self, entries: Iterable[PriceEntry] = ()) -> None:
        by_key: dict[PriceKey, list[PriceEntry]] = {}
        for entry in entries:
            by_key.setdefault(entry.key, []).append(entry)
        self._by_key = {
            key: sorted(group, key=lambda entry: entry.effective_from_unix_seconds)
            for key, group in sorted(by_key.items(), key=lambda pair: str(pair[0]))
        }
        self._starts = {
            key: [entry.effective_from_unix_seconds for entry in group]
            for key, group in self._by_key.items()
        }

    def __iter__(self) -> Iterator[PriceEntry]:
        """Iterate by key, then by date."""
        return itertools.chain.from_iterable(self._by_key.values())

    def overlay(self, newer: Iterable[PriceEntry]) -> PriceBook:
        """Return a book in which ``newer`` is added and wins for equal key and start."""
        merged = {(entry.key, entry.effective_from_unix_seconds): entry for entry in self}
        merged.update({(entry.key, entry.effective_from_unix_seconds): entry for entry in newer})
        return PriceBook(merged.values())

    def find(self, key: PriceKey, at_unix_seconds: float) -> PriceEntry | StalePrice | PriceMissing:
        """Return the price that holds at an instant.

        A price for the region itself comes before one for any region.
        """
        exact = self._find_exact(key, at_unix_seconds)
        if isinstance(exact, PriceEntry):
            return exact
        anywhere = self._find_exact(dataclasses.replace(key, region=ANY_REGION), at_unix_seconds)
        if isinstance(anywhere, PriceEntry):
            return anywhere
        known = exact or anywhere
        if known is not None:
            return known
        return self._missing(key)

    def _find_exact(
        self, key: PriceKey, at_unix_seconds: float
    ) -> PriceEntry | StalePrice | PriceMissing | None:
        group = self._by_key.get(key)
        if group is None:
            return None
        index = bisect.bisect_right(self._starts[key], at_unix_seconds) - 1
        if index < 0:
            first = group[0].effective_from_unix_seconds
            return PriceMissing(
                PriceMissingReason.BEFORE_FIRST_PRICE,
                f"the first price of {key} begins at {_day(first)},"
                f" none is known for {_day(at_unix_seconds)}",
            )
        entry = group[index]
        until = entry.effective_until_unix_seconds
        if until is not None and until <= at_unix_seconds:
            return StalePrice(entry, until)
        return entry

    def _missing(self, key: PriceKey) -> PriceMissing:
        accelerators = sorted({known.accelerator for known in self._by_key})
        same = [known for known in self._by_key if known.accelerator == key.accelerator]
        if not same:
            return PriceMissing(
                PriceMissingReason.UNKNOWN_ACCELERATOR,
                f"the price book knows no accelerator '{key.accelerator}';"
                f" it knows {', '.join(accelerators) or 'none'}",
            )
        types = sorted({known.capacity_type.value for known in same})
        if key.capacity_type.value not in types:
            return PriceMissing(
                PriceMissingReason.UNKNOWN_CAPACITY_TYPE,
                f"the price book knows {key.accelerator} as {', '.join(types)},"
                f" not as {key.capacity_type}",
            )
        regions = sorted(k.region for k in same if k.capacity_type == key.capacity_type)
        return PriceMissing(
            PriceMissingReason.UNKNOWN_REGION,
            f"the price book knows {key.accelerator} {key.capacity_type}"
            f" in {', '.join(regions)}, not in '{key.region}'",
        )

    def next_change_unix_seconds(self, key: PriceKey, after_unix_seconds: float) -> float | None:
        """Return the first instant after one at which the price can change, or None."""
        changes: list[float] = []
        for candidate in {key, dataclasses.replace(key, region=ANY_REGION)}:
            for entry in self._by_key.get(candidate, ()):
                changes.append(entry.effective_from_unix_seconds)
                if entry.effective_until_unix_seconds is not None:
                    changes.append(entry.effective_until_unix_seconds)
        return min((change for change in changes if change > after_unix_seconds), default=None)

    def problems(self) -> list[PriceProblem]:
        """Return every overlap and every gap, by key and date."""
        found: list[PriceProblem] = []
        for key, group in self._by_key.items():
            for earlier, later in itertools.pairwise(group):
                begin = later.effective_from_unix_seconds
                until = earlier.effective_until_unix_seconds
                if begin == earlier.effective_from_unix_seconds:
                    text = f"two prices of {key} begin at {_day(begin)}; keep one"
                    found.append(PriceProblem(ProblemKind.OVERLAP, later, text))
                elif until is not None and until > begin:
                    text = (
                        f"two prices of {key} hold from {_day(begin)} to {_day(until)};"
                        " end the earlier one before the later one begins"
                    )
                    found.append(PriceProblem(ProblemKind.OVERLAP, later, text))
                elif until is not None and until < begin:
                    text = f"no price of {key} holds from {_day(until)} to {_day(begin)}"
                    found.append(PriceProblem(ProblemKind.GAP, later, text))
        return found
