"""``PriceBook``: what accelerators cost per hour, with the dates the prices hold."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from trierarch.api.v1alpha1.fields import ApiModel, CapacityType, Decimal, rule, rules


class PriceBookEntry(ApiModel):
    """One price."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.effectiveUntil) || self.effectiveFrom < self.effectiveUntil",
                "effectiveUntil must be after effectiveFrom",
                ".effectiveUntil",
            )
        )
    )

    accelerator: str = Field(min_length=1, max_length=63)
    """The priceKey of an AcceleratorClass, for example H200."""
    capacity_type: CapacityType = CapacityType.ON_DEMAND
    """OnDemand, Spot or Reserved."""
    region: str = Field(default="*", min_length=1, max_length=63)
    """Where the price holds; "*" wherever no price for the region itself is known."""
    price_per_hour: Decimal
    """Dollars per accelerator and hour ("3.20"); "0" is hardware that is already paid."""
    effective_from: str = Field(json_schema_extra={"format": "date-time"})
    """First instant at which the price holds."""
    effective_until: str | None = Field(default=None, json_schema_extra={"format": "date-time"})
    """First instant at which it no longer holds; left out, until the next price begins."""
    source: str = Field(default="", max_length=253)
    """Where the figure comes from."""


class PriceBookSpec(ApiModel):
    """The prices."""

    currency: str = Field(default="USD", json_schema_extra={"enum": ["USD"]})
    """Of every price."""
    entries: list[PriceBookEntry] = Field(min_length=1, max_length=512)
    """Prices, in any order."""


class PriceBook(ApiModel):
    """Dollars per accelerator-hour, with effective dates; several books are read as one."""

    spec: PriceBookSpec
    """The prices."""
