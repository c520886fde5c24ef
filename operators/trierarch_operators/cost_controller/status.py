"""The part of the status that is the cost controller's: pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_CENT_OF_A_CENT = Decimal("0.0001")
"""Finer than any price list; a coarser figure would not move at every look."""


def build_status(hourly_costs: Mapping[str, Decimal], unit_cost: Decimal | None) -> dict[str, Any]:
    """Return the fields that this controller sets.

    Args:
        hourly_costs: Of all groups of a variant that exist, by variant, where a price holds.
        unit_cost: Dollars per million tokens; None while there are no tokens or no prices.
    """
    status: dict[str, Any] = {
        "variants": [
            {"name": name, "hourlyCost": format_money(cost)} for name, cost in hourly_costs.items()
        ]
    }
    if unit_cost is not None:
        status["costPerMillionTokens"] = format_money(unit_cost)
    return status


def is_written(wanted: Mapping[str, Any], existing: Mapping[str, Any]) -> bool:
    """Return whether a status says already what it should, and nothing of ours beside it.

    Args:
        wanted: What ``build_status`` returned.
        existing: The whole status; entries of other controllers stand beside ours.
    """
    costs = {
        entry["name"]: entry["hourlyCost"]
        for entry in existing.get("variants", ())
        if "hourlyCost" in entry
    }
    return costs == {entry["name"]: entry["hourlyCost"] for entry in wanted["variants"]} and (
        wanted.get("costPerMillionTokens") == existing.get("costPerMillionTokens")
    )


def format_money(amount: Decimal) -> str:
    """Return an amount as text, to a hundredth of a cent."""
    return f"{amount.quantize(_CENT_OF_A_CENT):f}"
