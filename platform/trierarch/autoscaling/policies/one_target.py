"""What laws share that know one number of replicas and nothing of variants.

Their number is spread over the variants by a rule of the cluster beneath, the
same for all of them: ``cheapest`` is what a node provisioner does that prefers
spot and falls back to on-demand, ``first`` leaves every variant but the first
alone. The first variant has to be one that cannot be taken back.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from trierarch.autoscaling.policy import Recommendation
from trierarch.autoscaling.signals import Observation, VariantObservation, known
from trierarch.core.identifiers import VariantName

CHEAPEST, FIRST = "cheapest", "first"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OneTarget:
    """Settings of every law with a single target count.

    Attributes:
        minimum_replicas: Never fewer in all.
        maximum_replicas: Never more in all.
        mix: ``cheapest`` or ``first``.
        floor_ratio: Share of the count that stays on the first variant whatever it costs.
        counts_flex: Whether work that can wait is load.

    Raises:
        ValueError: If a setting is impossible.
    """

    minimum_replicas: int = 1
    maximum_replicas: int = 100
    mix: str = CHEAPEST
    floor_ratio: float = 0.0
    counts_flex: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.minimum_replicas <= self.maximum_replicas:
            raise ValueError("minimum_replicas must lie between 0 and maximum_replicas")
        if self.mix not in (CHEAPEST, FIRST):
            raise ValueError(f"mix must be {CHEAPEST} or {FIRST}, got {self.mix!r}")
        if not 0 <= self.floor_ratio <= 1:
            raise ValueError(f"floor_ratio must lie between 0 and 1, got {self.floor_ratio}")

    def bounded(self, replicas: int) -> int:
        """Return the count inside the bounds."""
        return min(self.maximum_replicas, max(self.minimum_replicas, replicas))

    def recommendation(
        self, observation: Observation, total: int, *, policy: str, reason: str, message: str = ""
    ) -> Recommendation:
        """Return a count spread over the variants."""
        replicas = spread(observation, total, mix=self.mix, floor_ratio=self.floor_ratio)
        return Recommendation(replicas, policy, reason, message)


def spread(
    observation: Observation, total: int, *, mix: str, floor_ratio: float
) -> Mapping[VariantName, int]:
    """Return how many replicas of each variant make up ``total``.

    What the cheapest variant cannot give now is asked of the next, and asked of the cheapest
    again every time. Replicas that stand in for it stay until it serves.
    """
    first, *others = observation.variants
    if mix == FIRST or not others:
        return {first.name: total, **{variant.name: 0 for variant in others}}
    counts = {variant.name: 0 for variant in observation.variants}
    counts[first.name] = math.ceil(floor_ratio * total)
    missing = unserved = total - counts[first.name]
    for variant in sorted(observation.variants, key=_price):
        kept = 0 if variant is not first else counts[first.name]
        stand_in = min(max(0, variant.current - kept), unserved)
        asked = max(missing, stand_in)
        counts[variant.name] = kept + asked
        given, serving = _expected(variant, kept + asked), min(variant.ready, kept + asked)
        missing = max(0, missing - max(0, given - kept))
        unserved = max(0, unserved - max(0, serving - kept))
    return counts


def _price(variant: VariantObservation) -> float:
    price = known(variant.price_usd_per_hour)
    return math.inf if price is None else price


def _expected(variant: VariantObservation, asked: int) -> int:
    """Return what will be there of what is asked: nothing new while the market is empty."""
    if variant.not_obtained > 0:
        return min(asked, variant.current)
    if variant.obtainable_replicas is not None:
        return min(asked, variant.current + variant.obtainable_replicas)
    return asked
