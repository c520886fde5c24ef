"""What a scaling decision may know: one frozen observation per model deployment.

A signal is measured, stale or missing; these are three facts and none of them
is zero. NaN, infinities and negative readings never become a measurement.
A replica is one whole expert-parallel group, and everything here counts groups.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from pydantic import TypeAdapter

from trierarch.core.identifiers import ModelName, ReplicaId, VariantName
from trierarch.core.usage import ServiceTier

ValueT = TypeVar("ValueT")


def _is_valid(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value >= 0


def _check(value: object, at_unix_seconds: float) -> None:
    if isinstance(value, int | float) and not _is_valid(value):
        raise ValueError(f"a signal must be finite and not negative, got {value}")
    if not math.isfinite(at_unix_seconds):
        raise ValueError(f"a signal's time must be finite, got {at_unix_seconds}")


@dataclasses.dataclass(frozen=True, slots=True)
class Measured(Generic[ValueT]):
    """A reading and when it was true.

    Raises:
        ValueError: If the value is not finite or negative.
    """

    value: ValueT
    at_unix_seconds: float
    kind: Literal["measured"] = "measured"

    def __post_init__(self) -> None:
        _check(self.value, self.at_unix_seconds)


@dataclasses.dataclass(frozen=True, slots=True)
class Stale(Generic[ValueT]):
    """The last reading of a source that has stopped answering.

    Raises:
        ValueError: If the value is not finite or negative.
    """

    value: ValueT
    at_unix_seconds: float
    kind: Literal["stale"] = "stale"

    def __post_init__(self) -> None:
        _check(self.value, self.at_unix_seconds)


@dataclasses.dataclass(frozen=True, slots=True)
class Missing:
    """Nothing is known; ``reason`` is a CamelCase word ("NotReported", "NotANumber", ...)."""

    reason: str = "NotReported"
    kind: Literal["missing"] = "missing"


Signal: TypeAlias = Measured[float] | Stale[float] | Missing
"""One number, or why there is none."""

NOT_REPORTED = Missing()


def measure(value: float | int | None, at_unix_seconds: float) -> Measured[float] | Missing:
    """Return a reading as a signal; what is no plausible number becomes ``Missing``."""
    if value is None:
        return NOT_REPORTED
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return Missing("NotANumber")
    if math.isinf(value):
        return Missing("Infinite")
    if value < 0:
        return Missing("Negative")
    if not math.isfinite(at_unix_seconds):
        return Missing("NoTime")
    return Measured(float(value), at_unix_seconds)


def known(signal: Measured[ValueT] | Stale[ValueT] | Missing) -> ValueT | None:
    """Return the value of a measured or stale signal; None if it is missing."""
    return None if isinstance(signal, Missing) else signal.value


@dataclasses.dataclass(frozen=True, slots=True)
class LatencySummary:
    """Quantiles of a latency over a recent window; a window without samples has no summary.

    Attributes:
        samples: How many requests are in the window.
        mean_seconds: Their mean.
        quantiles: Pairs of (ratio in 0..1, seconds), rising in both.

    Raises:
        ValueError: If a number is not finite, negative or out of order.
    """

    samples: int
    mean_seconds: float
    quantiles: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if self.samples < 1 or not self.quantiles or not _is_valid(self.mean_seconds):
            raise ValueError("a latency summary needs a sample, a mean and a quantile")
        ratios = [ratio for ratio, _ in self.quantiles]
        seconds = [value for _, value in self.quantiles]
        if not all(_is_valid(value) for value in (*ratios, *seconds)) or max(ratios) > 1:
            raise ValueError(f"latency quantiles must be finite and not negative: {self.quantiles}")
        if ratios != sorted(ratios) or seconds != sorted(seconds):
            raise ValueError(f"latency quantiles must rise: {self.quantiles}")

    def at_percentile(self, percentile: float) -> float:
        """Return the nearest known quantile at or above ``percentile`` (0..100)."""
        for ratio, seconds in self.quantiles:
            if ratio * 100.0 >= percentile - 1e-9:
                return seconds
        return self.quantiles[-1][1]


LatencySignal: TypeAlias = Measured[LatencySummary] | Stale[LatencySummary] | Missing
"""Quantiles, or why there are none."""


@dataclasses.dataclass(frozen=True, slots=True)
class TierSignals:
    """One signal for each lane of the gateway."""

    priority: Signal = NOT_REPORTED
    default: Signal = NOT_REPORTED
    flex: Signal = NOT_REPORTED

    def of(self, tier: ServiceTier) -> Signal:
        """Return the signal of one lane."""
        if tier is ServiceTier.PRIORITY:
            return self.priority
        return self.default if tier is ServiceTier.DEFAULT else self.flex

    @property
    def interactive(self) -> float | None:
        """Sum of priority and default, the lanes with an objective; None if both are missing."""
        values = [v for v in (known(self.priority), known(self.default)) if v is not None]
        return math.fsum(values) if values else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySignals:
    """What the gateway knows of one model.

    Attributes:
        arrivals_per_second: Demand since the last observation, refused requests included.
        waiting_requests: Accepted and not yet sent to a replica.
        waiting_tokens: Prompt tokens of those.
        in_flight_requests: Sent to replicas and not finished, all lanes.
        queue_wait: How long requests of the window waited at the gateway, flex excluded.
        ttft: Arrival at the gateway to first token, flex excluded.
        tpot: Mean time per output token after the first, flex excluded.
        mean_input_tokens: Per request of the window, cached tokens included.
        mean_output_tokens: Per request of the window.
        arrival_dispersion: Variance over mean of arrivals per second (1 is Poisson).
        completed_per_second: Requests that ended well since the last observation.
        shed_per_second: Requests refused or timed out since the last observation.
        slo_met_ratio: Share of the interactive requests that ended since the last observation
            (lost ones included) and met the latency objective; finer than quantiles.
        ttft_met_ratio: The same for the time to first token alone.
        interactive_completed_per_second: The part of ``completed_per_second`` that is not flex.
        flex_in_flight_requests: The part of ``in_flight_requests`` that is flex.
        flex_deadline_unix_seconds: When the first waiting flex request must have ended.
        flex_patience_seconds: From arrival to deadline of a flex request.
    """

    arrivals_per_second: TierSignals = TierSignals()
    waiting_requests: TierSignals = TierSignals()
    waiting_tokens: TierSignals = TierSignals()
    in_flight_requests: Signal = NOT_REPORTED
    queue_wait: LatencySignal = NOT_REPORTED
    ttft: LatencySignal = NOT_REPORTED
    tpot: LatencySignal = NOT_REPORTED
    mean_input_tokens: Signal = NOT_REPORTED
    mean_output_tokens: Signal = NOT_REPORTED
    arrival_dispersion: Signal = NOT_REPORTED
    completed_per_second: Signal = NOT_REPORTED
    shed_per_second: Signal = NOT_REPORTED
    slo_met_ratio: Signal = NOT_REPORTED
    ttft_met_ratio: Signal = NOT_REPORTED
    interactive_completed_per_second: Signal = NOT_REPORTED
    flex_in_flight_requests: Signal = NOT_REPORTED
    flex_deadline_unix_seconds: Signal = NOT_REPORTED
    flex_patience_seconds: Signal = NOT_REPORTED


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineSignals:
    """What the engines of one variant report, summed over its ready replicas.

    Attributes:
        running_requests: In the batches now.
        waiting_requests: In the engines' own lines (vLLM's ``num_requests_waiting``).
        kv_used_ratio: Mean share of KV memory in use.
        preemptions_per_second: Requests thrown back for lack of KV memory.
        input_tokens_per_second: Prompt tokens computed, cached ones excluded.
        cached_tokens_per_second: Prompt tokens found in prefix caches.
        output_tokens_per_second: Generated tokens.
        ttft: From arrival at the engine to the first token.
        tpot: Mean time per output token after the first.
        busy_ratio: Mean share of time in which engines had work.
    """

    running_requests: Signal = NOT_REPORTED
    waiting_requests: Signal = NOT_REPORTED
    kv_used_ratio: Signal = NOT_REPORTED
    preemptions_per_second: Signal = NOT_REPORTED
    input_tokens_per_second: Signal = NOT_REPORTED
    cached_tokens_per_second: Signal = NOT_REPORTED
    output_tokens_per_second: Signal = NOT_REPORTED
    ttft: LatencySignal = NOT_REPORTED
    tpot: LatencySignal = NOT_REPORTED
    busy_ratio: Signal = NOT_REPORTED


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLoad:
    """One ready replica; for laws that look at each replica instead of at sums.

    Raises:
        ValueError: If a number is not finite or negative.
    """

    replica_id: ReplicaId
    running_requests: float
    waiting_requests: float
    kv_used_ratio: float
    kv_used_tokens: float = 0.0
    waiting_tokens: float = 0.0
    ready_unix_seconds: float = 0.0

    def __post_init__(self) -> None:
        numbers = dataclasses.astuple(self)[1:]
        if not all(_is_valid(number) for number in numbers):
            raise ValueError(f"a replica's load must be finite and not negative: {self}")


@dataclasses.dataclass(frozen=True, slots=True)
class StartingReplica:
    """A replica that costs money and does not serve yet."""

    expected_ready_unix_seconds: float
    started_unix_seconds: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VariantObservation:
    """One way to run the model, now.

    Attributes:
        name: The variant.
        ready: Replicas that serve.
        starting: Replicas on their way.
        draining: Replicas that finish what they have and still cost money.
        price_usd_per_hour: Of one whole replica at this time.
        accelerators_per_replica: Accelerators of one expert-parallel group.
        obtainable_replicas: How many more the inventory or quota can give; None if unknown.
        not_obtained: Replicas asked for at the last decision and not given.
        reclaimed: Replicas taken back by the provider since the last observation.
        cold_starts_seconds: Measured cold starts, oldest first, a bounded number of them.
        engine: What its engines report.
        replicas: Each ready replica, if the source tells.
    """

    name: VariantName
    ready: int = 0
    starting: tuple[StartingReplica, ...] = ()
    draining: int = 0
    price_usd_per_hour: Signal = NOT_REPORTED
    accelerators_per_replica: int = 1
    obtainable_replicas: int | None = None
    not_obtained: int = 0
    reclaimed: int = 0
    cold_starts_seconds: tuple[float, ...] = ()
    engine: EngineSignals = EngineSignals()
    replicas: tuple[ReplicaLoad, ...] = ()

    def __post_init__(self) -> None:
        if min(self.ready, self.draining, self.not_obtained, self.reclaimed) < 0:
            raise ValueError(f"variant {self.name}: counts cannot be negative")
        if self.accelerators_per_replica < 1:
            raise ValueError(f"variant {self.name}: a replica has at least one accelerator")

    @property
    def current(self) -> int:
        """Ready plus starting: what a desired count is compared with."""
        return self.ready + len(self.starting)

    @property
    def paid(self) -> int:
        """Ready plus starting plus draining: what costs money."""
        return self.ready + len(self.starting) + self.draining


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CostSignals:
    """Spend and tokens of the rolling window, from the ledger.

    Attributes:
        spend_usd_per_hour: What capacity cost.
        input_tokens_per_hour: Cached ones included.
        cached_tokens_per_hour: The part found in prefix caches.
        output_tokens_per_hour: Generated tokens.
    """

    spend_usd_per_hour: Signal = NOT_REPORTED
    input_tokens_per_hour: Signal = NOT_REPORTED
    cached_tokens_per_hour: Signal = NOT_REPORTED
    output_tokens_per_hour: Signal = NOT_REPORTED


@dataclasses.dataclass(frozen=True, slots=True)
class ArrivalSample:
    """Demand of the interactive lanes over one earlier interval."""

    at_unix_seconds: float
    requests_per_second: float


@dataclasses.dataclass(frozen=True, slots=True)
class HourlyBudget:
    """The most that may be spent per hour from now on, by a tenant's or deployment's budget."""

    name: str
    usd_per_hour: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything one decision may know.

    Attributes:
        now_unix_seconds: Time of the decision.
        deployment: ``NAMESPACE/NAME`` of the model deployment.
        model: Served model name.
        variants: Every variant of the deployment, in the order of its spec.
        gateway: What the gateway reports.
        cost: What the ledger reports.
        arrival_history: Demand before the first observation, oldest first; seeds a forecaster
            after a restart without state.
        budgets: Spending limits in force.
        approved_usd_per_hour: Hourly cost that a person has approved; None if nobody has.
    """

    now_unix_seconds: float
    deployment: str
    model: ModelName
    variants: tuple[VariantObservation, ...]
    gateway: GatewaySignals = GatewaySignals()
    cost: CostSignals = CostSignals()
    arrival_history: tuple[ArrivalSample, ...] = ()
    budgets: tuple[HourlyBudget, ...] = ()
    approved_usd_per_hour: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.now_unix_seconds):
            raise ValueError(f"an observation needs a finite time, got {self.now_unix_seconds}")
        names = [variant.name for variant in self.variants]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"an observation needs variants with different names, got {names}")

    def variant(self, name: str) -> VariantObservation:
        """Return one variant.

        Raises:
            KeyError: If the deployment has no such variant.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(name)

    @property
    def ready(self) -> int:
        """Ready replicas of all variants."""
        return sum(variant.ready for variant in self.variants)

    @property
    def current(self) -> int:
        """Ready and starting replicas of all variants."""
        return sum(variant.current for variant in self.variants)

    def as_record(self) -> dict[str, Any]:
        """Return the observation as JSON values."""
        record: dict[str, Any] = _OBSERVATION.dump_python(self, mode="json")
        return record

    @staticmethod
    def from_record(record: object) -> Observation:
        """Return the observation that ``as_record`` wrote.

        Raises:
            ValueError: If the record is not one.
        """
        return _OBSERVATION.validate_python(record)


_OBSERVATION = TypeAdapter(Observation)
