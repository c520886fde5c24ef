"""SkyServe: requests per second over a target, spot first, on-demand where spot lacks.

Source: ``sky/serve/autoscalers.py`` (request rate with fallback) and SpotHedge
(EuroSys 2025): rate over 60 s, decision every 20 s, a wish must last 300 s up and
1200 s down, no fixed on-demand base, one on-demand replica for each spot replica
that does not serve. It has no default target. Without its metric the target stays.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.autoscaling.policies.readings import arrival_rate
from trierarch.autoscaling.policies.series import Series, extend, mean, since
from trierarch.autoscaling.policy import Recommendation
from trierarch.autoscaling.signals import Observation, VariantObservation, known
from trierarch.core.identifiers import VariantName


@dataclasses.dataclass(frozen=True, slots=True)
class SkyServeState:
    """The target, the rates of the window, and how long a wish has lasted."""

    target: int | None = None
    arrivals: Series = ()
    direction: int = 0
    since_seconds: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SkyServePolicy:
    """Request rate, and spot with fallback.

    Attributes:
        target_requests_per_second: Per replica.
        spot_variants: Names of the variants that can be taken back.
        minimum_replicas: Never fewer in all.
        maximum_replicas: Never more in all.
        window_seconds: Of the rate.
        upscale_delay_seconds: A wish for more must last this long.
        downscale_delay_seconds: A wish for fewer must last this long.
        base_ondemand_replicas: Always on demand.
        dynamic_fallback: On demand for what spot lacks.
        spare_spot_replicas: More spot than needed, against losses.
        counts_flex: Whether work that can wait is load.
        name: For tables.
        interval_seconds: Between two decisions.

    Raises:
        ValueError: If a setting is impossible.
    """

    target_requests_per_second: float
    spot_variants: tuple[VariantName, ...] = ()
    minimum_replicas: int = 1
    maximum_replicas: int = 100
    window_seconds: float = 60.0
    upscale_delay_seconds: float = 300.0
    downscale_delay_seconds: float = 1200.0
    base_ondemand_replicas: int = 0
    dynamic_fallback: bool = True
    spare_spot_replicas: int = 0
    counts_flex: bool = False
    name: str = "skyserve"
    interval_seconds: float | None = 20.0

    def __post_init__(self) -> None:
        if not self.target_requests_per_second > 0:
            raise ValueError("target_requests_per_second must be positive")
        if not 0 <= self.minimum_replicas <= self.maximum_replicas:
            raise ValueError("minimum_replicas must lie between 0 and maximum_replicas")
        if min(self.base_ondemand_replicas, self.spare_spot_replicas) < 0:
            raise ValueError("base_ondemand_replicas and spare_spot_replicas cannot be negative")

    def initial_state(self) -> SkyServeState:
        """Return a state that takes over the count it finds."""
        return SkyServeState()

    def recommend(
        self, observation: Observation, state: SkyServeState
    ) -> tuple[Recommendation, SkyServeState]:
        """Return the target, spread over spot and on-demand."""
        now = observation.now_unix_seconds
        target = observation.current if state.target is None else state.target
        target = min(self.maximum_replicas, max(self.minimum_replicas, target))
        rate = arrival_rate(observation, counts_flex=self.counts_flex)
        if rate is None:
            after = SkyServeState(target, state.arrivals)
            return self._spread(observation, target, "MetricsMissing"), after
        arrivals = extend(state.arrivals, rate, keep_seconds=self.window_seconds)
        load = mean(since(arrivals, self.window_seconds, arrivals[-1].at_seconds))
        wanted = math.ceil(load / self.target_requests_per_second)
        wanted = min(self.maximum_replicas, max(self.minimum_replicas, wanted))
        direction = (wanted > target) - (wanted < target)
        began = state.since_seconds if direction == state.direction and direction else now
        delay = self.upscale_delay_seconds if direction > 0 else self.downscale_delay_seconds
        if direction and now - began >= delay:
            target, direction, began = wanted, 0, now
        after = SkyServeState(target, arrivals, direction, began)
        return self._spread(observation, target, "RequestRate"), after

    def _spread(self, observation: Observation, target: int, reason: str) -> Recommendation:
        spot = [v for v in observation.variants if v.name in self.spot_variants]
        on_demand = [v for v in observation.variants if v.name not in self.spot_variants]
        counts = {variant.name: 0 for variant in observation.variants}
        if not spot or not on_demand:
            counts[min(observation.variants, key=_price).name] = target
            return Recommendation(counts, self.name, reason)
        wanted = max(0, target - self.base_ondemand_replicas)
        counts[min(spot, key=_price).name] = wanted + (self.spare_spot_replicas if wanted else 0)
        serving = sum(variant.ready for variant in spot)
        fallback = max(0, wanted - serving) if self.dynamic_fallback else 0
        counts[min(on_demand, key=_price).name] = min(
            target, self.base_ondemand_replicas + fallback
        )
        return Recommendation(counts, self.name, reason)


def _price(variant: VariantObservation) -> float:
    price = known(variant.price_usd_per_hour)
    return math.inf if price is None else price
