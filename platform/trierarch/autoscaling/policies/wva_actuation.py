"""How the workload variant autoscaler of llm-d acts: it publishes, an HPA follows.

Source: the chart of llm-d WVA at b08b1c7 (v0.5.1-rc.2+3): engine every 30 s, then an
HPA per variant with 240 s of stabilization both ways and ten replicas per 150 s, so
that nothing happens sooner than four minutes. Unlike other laws this one knows the
variants and their costs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from trierarch.autoscaling.policies.hpa_behavior import (
    NO_MEMORY,
    BehaviorState,
    HpaBehavior,
    apply_behavior,
)
from trierarch.autoscaling.policies.replica_profile import ReplicaProfile
from trierarch.autoscaling.signals import Observation, VariantObservation, known
from trierarch.core.identifiers import VariantName

CHART_BEHAVIOR = HpaBehavior(
    up_window_seconds=240.0,
    down_window_seconds=240.0,
    up_percent=None,
    up_replicas=10,
    up_period_seconds=150.0,
    down_percent=None,
    down_replicas=10,
    down_period_seconds=150.0,
)
UNKNOWN_COST = 10.0
"""Cost of a variant without one."""


@dataclasses.dataclass(frozen=True, slots=True)
class VariantLimits:
    """Bounds of one variant."""

    name: VariantName
    minimum_replicas: int
    maximum_replicas: int


@dataclasses.dataclass(frozen=True, slots=True)
class VariantState:
    """What was published for a variant, what its HPA set, and what that remembers."""

    name: VariantName
    published: int
    replicas: int
    behavior: BehaviorState = NO_MEMORY


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WvaSettings:
    """Settings of all three engines.

    Attributes:
        limits: Bounds by variant, in the order of the fleet.
        profiles: What a profile run told, in the same order.
        behavior: Of the HPAs that follow.
        interval_seconds: Of the engine.
    """

    limits: tuple[VariantLimits, ...]
    profiles: tuple[ReplicaProfile, ...]
    behavior: HpaBehavior = CHART_BEHAVIOR
    interval_seconds: float | None = 30.0

    def profile(self, name: VariantName) -> ReplicaProfile:
        """Return a variant's profile.

        Raises:
            KeyError: If it has none.
        """
        for profile in self.profiles:
            if profile.name == name:
                return profile
        raise KeyError(name)

    def bounded(self, counts: Mapping[VariantName, int]) -> dict[VariantName, int]:
        """Return the counts inside the bounds."""
        limits = {limit.name: limit for limit in self.limits}
        return {
            name: min(limits[name].maximum_replicas, max(limits[name].minimum_replicas, replicas))
            for name, replicas in counts.items()
        }

    def takes_more(self, name: VariantName, replicas: int) -> bool:
        """Return whether a variant may have more than ``replicas``."""
        return any(
            limit.name == name and replicas < limit.maximum_replicas for limit in self.limits
        )


def take_over(
    observation: Observation, states: tuple[VariantState, ...]
) -> tuple[VariantState, ...]:
    """Return the states, at first with the counts that are found."""
    return states or tuple(
        VariantState(variant.name, variant.current, variant.current)
        for variant in observation.variants
    )


def published_counts(states: tuple[VariantState, ...]) -> dict[VariantName, int]:
    """Return what is published, by variant."""
    return {state.name: state.published for state in states}


def follow(
    settings: WvaSettings,
    observation: Observation,
    states: tuple[VariantState, ...],
    published: Mapping[VariantName, int],
) -> tuple[dict[VariantName, int], tuple[VariantState, ...]]:
    """Publish counts and let every variant's HPA follow them."""
    after = []
    bounded = settings.bounded(published)
    for state in states:
        replicas, behavior = apply_behavior(
            settings.behavior,
            state.behavior,
            now_seconds=observation.now_unix_seconds,
            current=state.replicas,
            desired=bounded[state.name],
        )
        after.append(VariantState(state.name, bounded[state.name], replicas, behavior))
    return {state.name: state.replicas for state in after}, tuple(after)


def cost(variant: VariantObservation) -> float:
    """Return the cost of one replica."""
    price = known(variant.price_usd_per_hour)
    return UNKNOWN_COST if price is None or not math.isfinite(price) else price
