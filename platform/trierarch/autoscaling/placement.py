"""Which variants carry a number of replicas: cheapest first to come, dearest first to go.

Whole groups only. A variant without a price is the last to be added to and
never preferred for its unknown cost; order in the spec settles what prices do not.
Spot replicas of one zone are lost together, so those that cost about the same are
spread over their zones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from trierarch.autoscaling.signals import Observation, VariantObservation, known
from trierarch.autoscaling.specification import CapacityType, ScalingSpec
from trierarch.core.identifiers import VariantName

SWITCH_PAYBACK_COLD_STARTS = 3.0
"""A cheaper replica replaces a serving one if it saves its own start in so many cold starts."""

SAME_PRICE_RATIO = 1.05
"""Spot variants of several zones whose prices differ by less are filled evenly: the most that
spreading may cost. A zone lost with most of the fleet costs a cold start's requests."""


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


def place(
    observation: Observation,
    spec: ScalingSpec,
    wanted: int,
    *,
    scarce: frozenset[VariantName] = frozenset(),
) -> dict[VariantName, int]:
    """Return the mix for ``wanted`` replicas, starting from what there is.

    Every variant stays inside its bounds and inventory, so the sum may be below ``wanted``. It is
    above while a cheaper variant's replicas start: the dearer ones go when those serve.

    Args:
        observation: Counts, prices and inventory.
        spec: Bounds and the share that spot may never carry.
        wanted: Replicas that should serve.
        scarce: Variants that lately were not given; they keep what they have.
    """
    ceilings = bounded_ceilings(observation, spec, scarce)
    target = cheapest_mix(observation, spec, wanted, ceilings)
    present = {variant.name: variant for variant in observation.variants}
    if not _is_worth_switching(observation, target):
        target = _without_switching(observation, spec, wanted, ceilings)
    mix = {name: max(count, 0) for name, count in target.items()}
    # What should go stays until enough others serve.
    serving = sum(min(variant.ready, mix[variant.name]) for variant in observation.variants)
    missing = min(wanted, observation.current) - serving
    if any(count > present[name].current for name, count in mix.items()) or missing > 0:
        for name in sorted(mix, key=lambda name: _price_key(present[name])):
            surplus = min(present[name].current, ceilings[name]) - mix[name]
            kept = min(max(surplus, 0), max(missing, 0))
            if surplus > 0 and present[name].ready > mix[name]:
                kept = min(kept, present[name].ready - mix[name])
                mix[name] += kept
                missing -= kept
    return mix


def cheapest_mix(
    observation: Observation,
    spec: ScalingSpec,
    wanted: int,
    ceilings: dict[VariantName, int],
) -> dict[VariantName, int]:
    """Return the cheapest mix of ``wanted`` replicas inside bounds, with the on-demand floor.

    Bounds are intervals and prices do not depend on counts, so filling the cheapest first is
    exact: giving a replica to a dearer variant could only cost more. Spreading over zones is
    what may, by ``SAME_PRICE_RATIO`` at most.
    """
    mix = {
        variant.name: min(spec.variant(variant.name).min_replicas, ceilings[variant.name])
        for variant in observation.variants
    }
    by_price = sorted(observation.variants, key=_price_key)
    _fill_floor(spec, mix, ceilings, by_price, wanted, room=wanted - sum(mix.values()))
    _fill(spec, mix, ceilings, by_price, wanted - sum(mix.values()))
    return mix


def _firm_floor(spec: ScalingSpec, wanted: int) -> int:
    """Return how many of the replicas spot may not carry."""
    if all(variant.capacity_type is not CapacityType.SPOT for variant in spec.variants):
        return 0
    return math.ceil(spec.behavior.on_demand_floor_ratio * wanted - 1e-9)


def _fill_floor(
    spec: ScalingSpec,
    mix: dict[VariantName, int],
    ceilings: dict[VariantName, int],
    by_price: Sequence[VariantObservation],
    wanted: int,
    *,
    room: int,
) -> None:
    firm = [v for v in by_price if spec.variant(v.name).capacity_type is not CapacityType.SPOT]
    missing = _firm_floor(spec, wanted) - sum(mix[variant.name] for variant in firm)
    _fill(spec, mix, ceilings, firm, min(missing, room))


def _fill(
    spec: ScalingSpec,
    mix: dict[VariantName, int],
    ceilings: dict[VariantName, int],
    order: Sequence[VariantObservation],
    missing: int,
) -> None:
    for group in _alike(spec, order):
        while missing > 0 and (left := [v for v in group if mix[v.name] < ceilings[v.name]]):
            chosen = min(left, key=lambda v: mix[v.name])
            # A variant on its own takes all at once.
            step = min(missing, ceilings[chosen.name] - mix[chosen.name]) if len(left) == 1 else 1
            mix[chosen.name] += step
            missing -= step


def _alike(
    spec: ScalingSpec, order: Sequence[VariantObservation]
) -> Iterator[list[VariantObservation]]:
    """Yield variants in order of price; together those that differ in little but their zone."""
    group: list[VariantObservation] = []
    for variant in order:
        if group and not _is_other_zone(spec, group, variant):
            yield group
            group = []
        group.append(variant)
    if group:
        yield group


def _is_other_zone(
    spec: ScalingSpec, group: Sequence[VariantObservation], variant: VariantObservation
) -> bool:
    mine = spec.variant(variant.name)
    others = [spec.variant(other.name) for other in group]
    is_spread = mine.zone and all(
        other.zone and other.zone != mine.zone and other.capacity_type is CapacityType.SPOT
        for other in others
    )
    price = _price_key(variant)
    return (
        bool(is_spread)
        and mine.capacity_type is CapacityType.SPOT
        and math.isfinite(price)
        and price <= SAME_PRICE_RATIO * _price_key(group[0])
    )


def bounded_ceilings(
    observation: Observation, spec: ScalingSpec, scarce: frozenset[VariantName]
) -> dict[VariantName, int]:
    """Return the most replicas of each variant by bounds, inventory and scarcity."""
    ceilings = {}
    for variant in observation.variants:
        ceiling = spec.variant(variant.name).max_replicas
        if variant.obtainable_replicas is not None:
            ceiling = min(ceiling, variant.current + variant.obtainable_replicas)
        if variant.name in scarce:
            ceiling = min(ceiling, variant.current)
        ceilings[variant.name] = max(ceiling, 0)
    return ceilings


def _price_key(variant: VariantObservation) -> float:
    price = price_of(variant)
    return math.inf if price is None else price


def _is_worth_switching(observation: Observation, target: dict[VariantName, int]) -> bool:
    """Tell whether replacing serving replicas by cheaper ones pays for their starts soon."""
    comes = [v for v in observation.variants if target[v.name] > v.current]
    goes = [v for v in observation.variants if target[v.name] < v.current]
    if not comes or not goes:
        return True
    dearest_coming = max(_price_key(variant) for variant in comes)
    cheapest_going = min(_price_key(variant) for variant in goes)
    if math.isinf(dearest_coming) or math.isinf(cheapest_going):
        return False
    saving = cheapest_going - dearest_coming
    return saving * SWITCH_PAYBACK_COLD_STARTS >= dearest_coming


def _without_switching(
    observation: Observation,
    spec: ScalingSpec,
    wanted: int,
    ceilings: dict[VariantName, int],
) -> dict[VariantName, int]:
    """Return a mix that keeps what there is: cheapest first to come, dearest first to go."""
    mix = {
        variant.name: min(
            max(variant.current, spec.variant(variant.name).min_replicas), ceilings[variant.name]
        )
        for variant in observation.variants
    }
    by_price = sorted(observation.variants, key=_price_key)
    # What spot may not carry comes in place of it, whatever it costs, and is not given back.
    _fill_floor(spec, mix, ceilings, by_price, wanted, room=wanted)
    _fill(spec, mix, ceilings, by_price, wanted - sum(mix.values()))
    surplus = sum(mix.values()) - wanted
    for group in reversed(list(_alike(spec, by_price))):
        while surplus > 0:
            spare = {v.name: _spare(spec, mix, v, wanted) for v in group}
            chosen = max(group, key=lambda v: (spare[v.name] > 0, mix[v.name]))
            if spare[chosen.name] <= 0:
                break
            step = min(surplus, spare[chosen.name]) if len(group) == 1 else 1
            mix[chosen.name] -= step
            surplus -= step
    return mix


def _spare(
    spec: ScalingSpec, mix: dict[VariantName, int], variant: VariantObservation, wanted: int
) -> int:
    """Return how many of a variant's replicas may go."""
    mine = spec.variant(variant.name)
    spare = mix[variant.name] - mine.min_replicas
    if mine.capacity_type is not CapacityType.SPOT:
        firm = sum(
            count
            for name, count in mix.items()
            if spec.variant(name).capacity_type is not CapacityType.SPOT
        )
        spare = min(spare, firm - _firm_floor(spec, wanted))
    return max(0, spare)
