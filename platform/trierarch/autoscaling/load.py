"""What the signals say about the load, and whether they can be trusted now.

Three outcomes: fresh, stale (counts are held), lost (counts are held and an
alarm is raised). Fresh but incomplete signals may add capacity and never remove
any. Flex requests fill idle capacity, so they are no load.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from enum import StrEnum

from trierarch.autoscaling.decision import Reason
from trierarch.autoscaling.signals import (
    NOT_REPORTED,
    LatencySummary,
    Measured,
    Missing,
    Observation,
    Signal,
    Stale,
    TierSignals,
)
from trierarch.autoscaling.specification import ScalingSpec

HOLD_AFTER_INTERVALS = 3.0
"""A reading that missed this many decisions describes another situation than the present one."""

MINIMUM_HOLD_AFTER_SECONDS = 45.0
"""Scrapes of 15 s with one lost are still fresh, however often decisions are made."""


class Freshness(StrEnum):
    """How far the signals can be trusted."""

    FRESH = "fresh"
    STALE = "stale"
    LOST = "lost"


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """The interactive load of one model deployment; None is unknown, not zero.

    Attributes:
        freshness: Whether a decision may follow it.
        reason: Why it is not fresh; None if it is.
        age_seconds: Of the oldest reading used; None if there is none.
        is_complete: Whether capacity may be given back on this evidence.
        arrivals_per_second: Demand.
        waiting_requests: At the gateway and in the engines' own lines.
        engine_waiting_requests: The part in the engines' lines.
        running_requests: In the engines' batches, flex excluded where that is known.
        waiting_tokens: Prompt tokens at the gateway.
    """

    freshness: Freshness
    reason: Reason | None
    age_seconds: float | None
    is_complete: bool
    arrivals_per_second: float | None = None
    waiting_requests: float = 0.0
    engine_waiting_requests: float = 0.0
    running_requests: float | None = None
    waiting_tokens: float | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing arrives, waits or runs; unknown is not idle."""
        return (
            self.is_complete
            and self.waiting_requests == 0
            and self.arrivals_per_second == 0
            and self.running_requests == 0
        )


def hold_after_seconds(spec: ScalingSpec) -> float:
    """Return the age from which a reading no longer changes counts."""
    behavior = spec.behavior
    hold = max(MINIMUM_HOLD_AFTER_SECONDS, HOLD_AFTER_INTERVALS * behavior.interval_seconds)
    return min(hold, behavior.stale_after_seconds)


def read_load(
    observation: Observation, spec: ScalingSpec, *, lost_for_seconds: float = 0.0
) -> Load:
    """Return the load, or why it is not known.

    Args:
        observation: The signals.
        spec: For the ages that matter.
        lost_for_seconds: Time since the last fresh load, for sources that never answered.
    """
    reader = _Reader(observation.now_unix_seconds, hold_after_seconds(spec))
    gateway = observation.gateway
    serving = [variant.engine for variant in observation.variants if variant.ready > 0]
    at_gateway = reader.tiers(gateway.waiting_requests)
    in_engines = reader.total(engine.waiting_requests for engine in serving)
    arrivals = reader.tiers(gateway.arrivals_per_second)
    running = reader.total(engine.running_requests for engine in serving)
    in_flight = reader.signal(gateway.in_flight_requests)
    flex = reader.signal(gateway.flex_in_flight_requests) or 0.0
    if not serving:
        in_engines, running = 0.0, 0.0
    ongoing = running if running is not None else in_flight
    if ongoing is not None:
        ongoing = max(0.0, ongoing - flex)
    seen_waiting = [value for value in (at_gateway, in_engines) if value is not None]
    if not serving and at_gateway is None:
        seen_waiting = []
    if not seen_waiting:
        return _unknown(reader, spec, lost_for_seconds)
    complete = (
        at_gateway is not None
        and arrivals is not None
        and (in_engines is not None or in_flight is not None)
        and ongoing is not None
    )
    return Load(
        freshness=Freshness.FRESH,
        reason=None,
        age_seconds=reader.oldest_seconds,
        is_complete=complete,
        arrivals_per_second=arrivals,
        waiting_requests=math.fsum(seen_waiting),
        engine_waiting_requests=in_engines or 0.0,
        running_requests=ongoing,
        waiting_tokens=reader.tiers(gateway.waiting_tokens),
    )


def fresh_latency(
    signal: Measured[LatencySummary] | Stale[LatencySummary] | Missing,
    *,
    now_unix_seconds: float,
    hold_after: float,
) -> LatencySummary | None:
    """Return a latency summary that is fresh enough to follow, or None."""
    if (
        isinstance(signal, Measured)
        and abs(now_unix_seconds - signal.at_unix_seconds) <= hold_after
    ):
        return signal.value
    return None


def fresh_value(signal: Signal, *, now_unix_seconds: float, hold_after: float) -> float | None:
    """Return a number that is fresh enough to follow, or None."""
    if (
        isinstance(signal, Measured)
        and abs(now_unix_seconds - signal.at_unix_seconds) <= hold_after
    ):
        return signal.value
    return None


def _unknown(reader: _Reader, spec: ScalingSpec, lost_for_seconds: float) -> Load:
    """Return what is said when nothing tells how many requests wait."""
    stale_after = spec.behavior.stale_after_seconds
    stale_age = reader.youngest_stale_seconds
    reason = Reason.METRICS_MISSING if stale_age is None else Reason.METRICS_STALE
    lost = lost_for_seconds >= stale_after or (stale_age is not None and stale_age >= stale_after)
    freshness = Freshness.LOST if lost else Freshness.STALE
    return Load(freshness, reason, stale_age, is_complete=False)


class _Reader:
    """Reads signals that are fresh and remembers how old the rest is."""

    def __init__(self, now_unix_seconds: float, hold_after: float) -> None:
        self._now = now_unix_seconds
        self._hold_after = hold_after
        self.oldest_seconds: float | None = None
        self.youngest_stale_seconds: float | None = None

    def signal(self, signal: Signal) -> float | None:
        """Return the value if it is fresh, else None."""
        if isinstance(signal, Missing):
            return None
        # A reading from the future means clocks disagree: as bad as an old one.
        age = abs(self._now - signal.at_unix_seconds)
        if isinstance(signal, Stale) or age > self._hold_after:
            if self.youngest_stale_seconds is None or age < self.youngest_stale_seconds:
                self.youngest_stale_seconds = age
            return None
        self.oldest_seconds = max(age, self.oldest_seconds or 0.0)
        return signal.value

    def tiers(self, tiers: TierSignals) -> float | None:
        """Return the sum of the interactive lanes; None if one that reports is not fresh."""
        reported = [s for s in (tiers.priority, tiers.default) if s != NOT_REPORTED]
        return self.total(reported) if reported else None

    def total(self, signals: Iterable[Signal]) -> float | None:
        """Return the sum of all signals; None if one is unknown."""
        values = [self.signal(signal) for signal in signals]
        known = [value for value in values if value is not None]
        return math.fsum(known) if len(known) == len(values) else None
