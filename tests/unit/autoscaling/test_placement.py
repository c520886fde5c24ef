"""Which variants carry a count: floors, switching, scarcity, and an exact solver as oracle."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from trierarch.autoscaling.placement import cheapest_mix, place
from trierarch.autoscaling.signals import Measured, Observation, StartingReplica, VariantObservation
from trierarch.autoscaling.specification import Behavior, CapacityType, ScalingSpec, VariantSpec
from trierarch.core.identifiers import ModelName, VariantName

FIRM, SPOT = VariantName("firm"), VariantName("spot")


def spec(floor: float = 0.3, **firm: int) -> ScalingSpec:
    return ScalingSpec(
        variants=(
            VariantSpec(name=FIRM, **{"max_replicas": 20, **firm}),
            VariantSpec(name=SPOT, max_replicas=20, capacity_type=CapacityType.SPOT),
        ),
        behavior=Behavior(on_demand_floor_ratio=floor),
    )


def observed(variants: Iterable[VariantObservation]) -> Observation:
    return Observation(
        now_unix_seconds=0.0,
        deployment="ns/m",
        model=ModelName("m"),
        variants=tuple(variants),
    )


def see(
    firm: int = 0, spot: int = 0, *, spot_starting: int = 0, prices: tuple[float, float] = (10, 4)
) -> Observation:
    return observed(
        (
            VariantObservation(name=FIRM, ready=firm, price_usd_per_hour=Measured(prices[0], 0.0)),
            VariantObservation(
                name=SPOT,
                ready=spot,
                starting=(StartingReplica(60.0),) * spot_starting,
                price_usd_per_hour=Measured(prices[1], 0.0),
            ),
        )
    )


def test_spot_never_carries_more_than_the_floor_allows() -> None:
    assert place(see(), spec(), 10) == {FIRM: 3, SPOT: 7}
    assert place(see(), spec(floor=0.0), 10) == {FIRM: 0, SPOT: 10}


def test_cheaper_replicas_start_before_dearer_ones_go() -> None:
    assert place(see(firm=10), spec(), 10) == {FIRM: 10, SPOT: 7}
    assert place(see(firm=10, spot_starting=7), spec(), 10) == {FIRM: 10, SPOT: 7}
    assert place(see(firm=10, spot=4, spot_starting=3), spec(), 10) == {FIRM: 6, SPOT: 7}
    assert place(see(firm=6, spot=7), spec(), 10) == {FIRM: 3, SPOT: 7}


def test_a_small_saving_moves_nothing() -> None:
    assert place(see(firm=10, prices=(10, 9)), spec(), 10) == {FIRM: 10, SPOT: 0}
    # What comes is bought where it is cheapest all the same.
    assert place(see(firm=3, prices=(10, 9)), spec(), 4) == {FIRM: 3, SPOT: 1}


def test_the_floor_is_restored_whatever_it_costs() -> None:
    # Two of the four may be spot; the surplus goes when the firm ones serve.
    assert place(see(firm=1, spot=5), spec(floor=0.5), 4) == {FIRM: 2, SPOT: 3}
    assert place(see(firm=2, spot=5), spec(floor=0.5), 4) == {FIRM: 2, SPOT: 2}
    assert place(see(firm=1, spot=5), spec(floor=0.5), 6) == {FIRM: 3, SPOT: 5}
    assert place(see(firm=3, spot=5), spec(floor=0.5), 6) == {FIRM: 3, SPOT: 3}


ZONES = tuple(VariantName(f"spot-{zone}") for zone in "abc")


def zoned(*variants: tuple[VariantName, str], most: int = 20) -> ScalingSpec:
    return ScalingSpec(
        variants=tuple(
            VariantSpec(name=name, max_replicas=most, capacity_type=CapacityType.SPOT, zone=zone)
            for name, zone in variants
        ),
        behavior=Behavior(on_demand_floor_ratio=0.0),
    )


def see_zones(counts: tuple[int, ...], prices: tuple[float, ...]) -> Observation:
    return observed(
        (
            VariantObservation(name=name, ready=ready, price_usd_per_hour=Measured(price, 0.0))
            for name, ready, price in zip(ZONES, counts, prices, strict=True)
        )
    )


THREE_ZONES = zoned(*zip(ZONES, "abc", strict=True))


def test_spot_replicas_are_spread_over_zones_that_cost_about_the_same() -> None:
    alike, dear = (4.0, 4.1, 4.2), (4.0, 4.1, 5.0)
    nothing = see_zones((0, 0, 0), alike)
    assert list(place(nothing, THREE_ZONES, 7).values()) == [3, 2, 2]
    assert list(place(see_zones((0, 0, 0), dear), THREE_ZONES, 6).values()) == [3, 3, 0]
    # Nothing is moved for it; what comes goes where least is, and what goes comes from the most.
    assert list(place(see_zones((5, 1, 1), alike), THREE_ZONES, 9).values()) == [5, 2, 2]
    assert list(place(see_zones((5, 1, 1), alike), THREE_ZONES, 5).values()) == [3, 1, 1]
    # One zone, or none that is told, is no spread: the cheapest is filled.
    same = zoned(*((name, "a") for name in ZONES))
    assert list(place(nothing, same, 7).values()) == [7, 0, 0]
    untold = zoned(*((name, "") for name in ZONES))
    assert list(place(nothing, untold, 7).values()) == [7, 0, 0]


@given(st.tuples(*[st.integers(0, 9)] * 3), st.integers(0, 25), st.integers(1, 9))
def test_zones_differ_by_no_more_than_they_did(
    ready: tuple[int, int, int], wanted: int, most: int
) -> None:
    what = zoned(*zip(ZONES, "abc", strict=True), most=most)
    mix = list(place(see_zones(ready, (4.0, 4.0, 4.0)), what, wanted).values())
    had = [min(count, most) for count in ready]
    assert sum(mix) == min(wanted, 3 * most)
    assert max(mix) - min(mix) <= max(1, max(had) - min(had))


def test_what_could_not_be_had_is_bought_elsewhere() -> None:
    assert place(see(firm=3, spot=4), spec(), 10, scarce=frozenset({SPOT})) == {FIRM: 6, SPOT: 4}


prices = st.floats(0.5, 20.0)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(prices, st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.3, 0.5]),
    st.integers(0, 10),
)
def test_the_fast_path_costs_what_the_exact_solver_finds(
    rows: list[tuple[float, int, int]], floor: float, wanted: int
) -> None:
    kinds = (CapacityType.SPOT, CapacityType.ON_DEMAND, CapacityType.SPOT)
    what = ScalingSpec(
        variants=tuple(
            VariantSpec(
                name=VariantName(f"v{place_}"),
                min_replicas=low,
                max_replicas=low + more + 1,
                capacity_type=kinds[place_],
            )
            for place_, (_, low, more) in enumerate(rows)
        ),
        behavior=Behavior(on_demand_floor_ratio=floor),
    )
    seen = observed(
        (
            VariantObservation(
                name=VariantName(f"v{place_}"), price_usd_per_hour=Measured(price, 0.0)
            )
            for place_, (price, _, _) in enumerate(rows)
        )
    )
    ceilings = {variant.name: variant.max_replicas for variant in what.variants}
    mix = cheapest_mix(seen, what, wanted, ceilings)
    price = {f"v{place_}": row[0] for place_, row in enumerate(rows)}

    def cost(counts: dict[str, int]) -> float:
        return sum(price[name] * count for name, count in counts.items())

    ranges = [range(v.min_replicas, v.max_replicas + 1) for v in what.variants]
    low, high = sum(r[0] for r in ranges), sum(r[-1] for r in ranges)
    total = min(max(wanted, low), high)
    has_firm = len(rows) > 1
    # The floor binds as far as the firm variant can carry it and the count leaves room.
    firm_most = min(ranges[1][-1], total - low + ranges[1][0]) if has_firm else 0
    firm_least = min(math.ceil(floor * wanted - 1e-9), firm_most) if has_firm else 0
    best = min(
        cost(dict(zip(ceilings, counts, strict=True)))
        for counts in itertools.product(*ranges)
        if sum(counts) == total and (not has_firm or counts[1] >= firm_least)
    )
    assert sum(mix.values()) == total
    assert cost(dict(mix)) <= best + 1e-6
