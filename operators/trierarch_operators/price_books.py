"""Price books of the cluster as one book: pure."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from pydantic import ValidationError

from trierarch.api.v1alpha1.price_book import PriceBook as PriceBookFields
from trierarch.api.v1alpha1.price_book import PriceBookEntry
from trierarch.cost.prices import ANY_REGION, CapacityType, PriceBook, PriceEntry, PriceKey
from trierarch_operators.fleet import PlannedVariant
from trierarch_operators.object_cache import Object, key_of

_logger = logging.getLogger(__name__)


def read_entries(books: Iterable[Object]) -> list[PriceEntry]:
    """Return the entries of all books; one that cannot be read is logged and left out."""
    entries = []
    for book in sorted(books, key=lambda found: key_of(found).name):
        try:
            fields = PriceBookFields.model_validate(book)
            entries += [_entry(entry, key_of(book).name) for entry in fields.spec.entries]
        except (ValidationError, ValueError) as error:
            _logger.warning("price book %s cannot be read: %s", key_of(book).name, error)
    return entries


def _entry(entry: PriceBookEntry, book: str) -> PriceEntry:
    until = entry.effective_until
    return PriceEntry(
        key=PriceKey(
            entry.accelerator, CapacityType(entry.capacity_type.value), entry.region or ANY_REGION
        ),
        usd_per_accelerator_hour=Decimal(entry.price_per_hour),
        effective_from_unix_seconds=datetime.fromisoformat(entry.effective_from).timestamp(),
        effective_until_unix_seconds=None
        if until is None
        else datetime.fromisoformat(until).timestamp(),
        source=entry.source or f"PriceBook {book}",
    )


def price_of(book: PriceBook, planned: PlannedVariant, at_unix_seconds: float) -> Decimal | None:
    """Return the hourly price of one whole group; None where no price holds now."""
    key = PriceKey(
        planned.price_key,
        CapacityType(planned.variant.capacity_type.value),
        planned.accelerator_class.region or ANY_REGION,
    )
    found = book.find(key, at_unix_seconds)
    if not isinstance(found, PriceEntry):
        return None
    return found.usd_per_accelerator_hour * planned.plan.layout.accelerators
