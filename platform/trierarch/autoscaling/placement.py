"""Which variants carry a number of replicas: cheapest first to come, dearest first to go.

Whole groups only. A variant without a price is the last to be added to and
never preferred for its unknown cost; order in the spec settles what prices do not.
"""

from __future__ import annotations

import math

from trierarch.autoscaling.signals import Observation, VariantObservation, known
from trierarch.autoscaling.specification import ScalingSpec
from trierarch.core.identifiers import VariantName


def price_of(variant: VariantObservation) -> float | None:
    """Return the hourly price of one replica; the last known one if it is stale."""
    return known(variant.price_usd_per_hour)


def hourly_cost(observation: Observation, replicas: dict[VariantName, int]) -> float | None:
    """Return what a mix costs per hour; None if a price that it needs is unknown."""
    total = 0.0
    for variant in observation.variants:
        count = replicas.get(variant.name, 0)
        price = price_of(variant)
        if count and price is None:
            return None
        total += count * (price or 0.0)
    return total


def place(observation: Observation, spec: ScalingSpec, wanted: int) -> dict[VariantName, int]:
    """Return the mix for ``wanted`` replicas, starting from what there is.

    Every variant stays inside its bounds and inventory, so the sum may differ from ``wanted``.
    """
    mix: dict[VariantName, int] = {}
    ceilings: dict[VariantName, int] = {}
    for variant in observation.variants:
        bounds = spec.variant(variant.name)
        ceiling = bounds.max_replicas
        if variant.obtainable_replicas is not None:
            ceiling = min(ceiling, variant.current + variant.obtainable_replicas)
        ceilings[variant.name] = max(ceiling, 0)
        lowest = min(bounds.min_replicas, ceilings[variant.name])
        mix[variant.name] = min(max(variant.current, lowest), ceilings[variant.name])
    order = {variant.name: index for index, variant in enumerate(observation.variants)}

    def cost(variant: VariantObservation) -> tuple[float, int]:
        price = price_of(variant)
        return (math.inf if price is None else price, order[variant.name])

    cheapest = sorted(observation.variants, key=cost)
    missing = wanted - sum(mix.values())
    for variant in cheapest:
        step = min(max(missing, 0), ceilings[variant.name] - mix[variant.name])
        mix[variant.name] += step
        missing -= step
    surplus = sum(mix.values()) - wanted
    for variant in reversed(cheapest):
        step = min(max(surplus, 0), mix[variant.name] - spec.variant(variant.name).min_replicas)
        mix[variant.name] -= max(step, 0)
        surplus -= max(step, 0)
    return mix
