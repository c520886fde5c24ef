"""Imported prices and rates, laid over the defaults that ship with the package."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from sqlalchemy import Connection, delete, insert, select

from trierarch.adapters.ledger.instants import to_microseconds, to_seconds
from trierarch.adapters.ledger.tables import PriceRow, RateRow, TierFactorRow
from trierarch.core.usage import ServiceTier
from trierarch.cost.documents import PriceDocument
from trierarch.cost.prices import CapacityType, PriceBook, PriceEntry, PriceKey
from trierarch.cost.rates import RateCard, RateEntry


def price_book(connection: Connection, defaults: PriceDocument) -> PriceBook:
    """Return the prices in force."""
    imported = [
        PriceEntry(
            PriceKey(row.accelerator, CapacityType(row.capacity_type), row.region),
            row.usd_per_accelerator_hour,
            to_seconds(row.effective_from_unix_microseconds),
            None
            if row.effective_until_unix_microseconds is None
            else to_seconds(row.effective_until_unix_microseconds),
            row.source,
        )
        for row in connection.execute(select(PriceRow.__table__))
    ]
    return defaults.price_book().overlay(imported)


def rate_card(connection: Connection, defaults: PriceDocument) -> RateCard:
    """Return the rates in force."""
    imported = [
        RateEntry(
            row.model,
            ServiceTier(row.tier) if row.tier else None,
            row.usd_per_million_input_tokens,
            row.usd_per_million_cached_tokens,
            row.usd_per_million_output_tokens,
            to_seconds(row.effective_from_unix_microseconds),
            row.source,
        )
        for row in connection.execute(select(RateRow.__table__))
    ]
    factors: Mapping[ServiceTier, Decimal] = {
        ServiceTier(row.tier): row.factor
        for row in connection.execute(select(TierFactorRow.__table__))
    }
    return defaults.rate_card().overlay(imported, factors)


def import_document(connection: Connection, document: PriceDocument) -> None:
    """Add what a document says; it wins over an entry of the same key and start."""
    for price in document.prices:
        start = to_microseconds(price.effective_from_unix_seconds)
        until = price.effective_until_unix_seconds
        connection.execute(
            delete(PriceRow).where(
                PriceRow.accelerator == price.key.accelerator,
                PriceRow.capacity_type == price.key.capacity_type.value,
                PriceRow.region == price.key.region,
                PriceRow.effective_from_unix_microseconds == start,
            )
        )
        connection.execute(
            insert(PriceRow).values(
                accelerator=price.key.accelerator,
                capacity_type=price.key.capacity_type.value,
                region=price.key.region,
                usd_per_accelerator_hour=price.usd_per_accelerator_hour,
                effective_from_unix_microseconds=start,
                effective_until_unix_microseconds=None if until is None else to_microseconds(until),
                source=price.source,
            )
        )
    for rate in document.rates:
        start = to_microseconds(rate.effective_from_unix_seconds)
        tier = "" if rate.tier is None else rate.tier.value
        connection.execute(
            delete(RateRow).where(
                RateRow.model == rate.model,
                RateRow.tier == tier,
                RateRow.effective_from_unix_microseconds == start,
            )
        )
        connection.execute(
            insert(RateRow).values(
                model=rate.model,
                tier=tier,
                usd_per_million_input_tokens=rate.usd_per_million_input_tokens,
                usd_per_million_cached_tokens=rate.usd_per_million_cached_tokens,
                usd_per_million_output_tokens=rate.usd_per_million_output_tokens,
                effective_from_unix_microseconds=start,
                source=rate.source,
            )
        )
    for service_tier, factor in document.tier_factors.items():
        connection.execute(delete(TierFactorRow).where(TierFactorRow.tier == service_tier.value))
        connection.execute(insert(TierFactorRow).values(tier=service_tier.value, factor=factor))
