"""What is the same for every policy: variants, prices, cold starts, metrics, objective.

Prices and charges are floats here, unlike in the ledger: a simulation predicts
money, it never bills any.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from trierarch.core.errors import InvalidInput
from trierarch.simulation.service import ServiceCoefficients
from trierarch.simulation.traces.spot import SpotTrace

ON_DEMAND, SPOT, RESERVED = "OnDemand", "Spot", "Reserved"
SECONDS_PER_HOUR = 3600.0
COLD_STARTS_DRAWN = 4096
"""Cold starts drawn per variant; a run that needs more begins again at the first."""


@dataclasses.dataclass(frozen=True, slots=True)
class PriceSteps:
    """Dollars per replica-hour over time: ``(from_seconds, usd_per_hour)``, the first from 0."""

    steps: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        times = [step[0] for step in self.steps]
        if not self.steps or times[0] != 0.0 or times != sorted(set(times)):
            raise InvalidInput("price steps must start at 0 and rise in time")
        if not all(math.isfinite(price) and price >= 0 for _, price in self.steps):
            raise InvalidInput("prices must be finite and not negative")

    @classmethod
    def constant(cls, usd_per_hour: float) -> PriceSteps:
        """Return a price that never changes."""
        return cls(((0.0, usd_per_hour),))

    def at(self, seconds: float) -> float:
        """Return the price in force."""
        return next(price for start, price in reversed(self.steps) if start <= max(seconds, 0.0))

    def charge_usd(self, start_seconds: float, end_seconds: float) -> float:
        """Return what one replica costs from start to end."""
        total = 0.0
        for index, (start, price) in enumerate(self.steps):
            end = self.steps[index + 1][0] if index + 1 < len(self.steps) else math.inf
            overlap = min(end, end_seconds) - max(start, start_seconds)
            total += price * max(0.0, overlap) / SECONDS_PER_HOUR
        return total


@dataclasses.dataclass(frozen=True, slots=True)
class ColdStart:
    """How long a replica costs money before it serves.

    Attributes:
        median_seconds: Half the starts take longer.
        spread_ratio: Standard deviation of the logarithm; 0 makes every start equal.
    """

    median_seconds: float
    spread_ratio: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.median_seconds) and self.median_seconds >= 0):
            raise InvalidInput("a cold start's median_seconds must be finite and not negative")
        if not 0 <= self.spread_ratio <= 2:
            raise InvalidInput("a cold start's spread_ratio must lie between 0 and 2")

    def draw(self, seed: int, variant_index: int) -> np.ndarray:
        """Return the durations of the first, second, ... start of a variant.

        They depend on the seed and the variant alone: the third start takes as long under one
        policy as under another.
        """
        generator = np.random.default_rng([seed, 0xC01D, variant_index])
        spread = generator.standard_normal(COLD_STARTS_DRAWN) * self.spread_ratio
        return np.asarray(self.median_seconds * np.exp(spread))


@dataclasses.dataclass(frozen=True, slots=True)
class SpotSupply:
    """What a spot market gives and takes back.

    Attributes:
        trace: Availability over time; repeated if the run is longer.
        pool_replicas: Replicas that full availability stands for.
        notice_seconds: From the warning, when draining starts, to the loss.
    """

    trace: SpotTrace
    pool_replicas: int
    notice_seconds: float = 120.0


@dataclasses.dataclass(frozen=True, slots=True)
class VariantSetup:
    """One way to run the model.

    Attributes:
        name: As in the variant of a model deployment.
        service: Its service model.
        price: Dollars per replica-hour.
        cold_start: From provisioning to serving.
        minimum_replicas: Never fewer.
        maximum_replicas: Never more.
        capacity_type: ``OnDemand``, ``Spot`` or ``Reserved``.
        accelerator: For people.
        accelerators_per_replica: For people.
        supply: The spot market; None where capacity is always there.
    """

    name: str
    service: ServiceCoefficients
    price: PriceSteps
    cold_start: ColdStart
    minimum_replicas: int = 0
    maximum_replicas: int = 64
    capacity_type: str = ON_DEMAND
    accelerator: str = ""
    accelerators_per_replica: int = 1
    supply: SpotSupply | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.minimum_replicas <= self.maximum_replicas:
            raise InvalidInput(f"variant {self.name}: minimum above maximum replicas")
        if self.maximum_replicas > 4096:
            raise InvalidInput(f"variant {self.name}: more than 4096 replicas are not simulated")


@dataclasses.dataclass(frozen=True, slots=True)
class Objective:
    """The latency objective of the requests that are not flex.

    Attributes:
        ttft_seconds: Time to first token, from arrival at the gateway.
        tpot_seconds: Mean time per output token after the first.
        percentile: Share of requests (in percent) that should meet both.
    """

    ttft_seconds: float = 2.0
    tpot_seconds: float = 0.050
    percentile: float = 99.0


@dataclasses.dataclass(frozen=True, slots=True)
class FleetSetup:
    """Everything about a fleet that no policy can change.

    Attributes:
        name: For people.
        variants: Ways to run the model.
        objective: What latency is promised.
        initial_replicas: Ready at time 0, per variant; the same for every policy.
        tick_seconds: Time between two decisions, unless a policy has its own.
        metrics_lag_seconds: Age of the newest metrics a decision can see.
        metrics_loss_ratio: Share of scrapes that fail.
        queue_limit: Requests the gateway holds before it refuses more.
        queue_timeout_seconds: How long it holds a request that has not started.
        flex_deadline_seconds: A flex request must end this long after it arrived, and before
            the window closes: work may be moved inside the window, not out of it.
        tail_seconds: Length of the window after the last arrival.
        late_requests_last: Requests that can no longer be in time wait for those that can, as at
            our gateway; False answers each lane in order of arrival.
    """

    name: str
    variants: tuple[VariantSetup, ...]
    objective: Objective = Objective()
    initial_replicas: tuple[int, ...] = ()
    tick_seconds: float = 15.0
    metrics_lag_seconds: float = 15.0
    metrics_loss_ratio: float = 0.0
    queue_limit: int = 100_000
    queue_timeout_seconds: float = 600.0
    flex_deadline_seconds: float = 86_400.0
    tail_seconds: float = 300.0
    late_requests_last: bool = True

    def __post_init__(self) -> None:
        if not self.variants:
            raise InvalidInput("a fleet needs at least one variant")
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise InvalidInput("a fleet's variants need different names")
        if self.initial_replicas and len(self.initial_replicas) != len(self.variants):
            raise InvalidInput("initial_replicas needs one number per variant")
        if self.tick_seconds <= 0:
            raise InvalidInput("a fleet's tick_seconds must be positive")
        if not 0 <= self.metrics_loss_ratio < 1:
            raise InvalidInput("a fleet's metrics_loss_ratio must lie in [0, 1)")

    def index_of(self, variant: str) -> int:
        """Return the variant's place.

        Raises:
            KeyError: If the fleet has no such variant.
        """
        for index, setup in enumerate(self.variants):
            if setup.name == variant:
                return index
        raise KeyError(variant)


def starting_counts(setup: FleetSetup) -> Sequence[int]:
    """Return the replicas at time 0: as given, or each variant's minimum."""
    return setup.initial_replicas or tuple(v.minimum_replicas for v in setup.variants)
