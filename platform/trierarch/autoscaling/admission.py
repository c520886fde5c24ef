"""Which lanes the gateway keeps waiting or refuses until the next decision.

Flex fills what the others leave idle. Where the cost target caps the replicas below what the
load needs, lanes give way in the order in which they are sold: flex is refused first, default
waits for what the capped replicas can do, and it is refused only once even priority requests
wait beyond the queue target, because then it would wait in vain. Priority is never refused.
"""

from __future__ import annotations

from collections.abc import Collection

from trierarch.autoscaling.decision import Reason
from trierarch.autoscaling.load import Freshness, Load, fresh_value, hold_after_seconds
from trierarch.autoscaling.signals import Observation, Signal
from trierarch.autoscaling.specification import ScalingSpec
from trierarch.core.admission import OPEN, Admission
from trierarch.core.usage import ServiceTier

FLEX_MARGIN_SECONDS = 1800.0
"""A flex request whose deadline is nearer than this waits no longer for idle capacity."""

FLEX_MARGIN_RATIO = 0.25
"""The margin is never more than this share of all the time that flex requests have: where they
may wait ten minutes only, half an hour would be always."""


def build_admission(
    observation: Observation, spec: ScalingSpec, load: Load, limits: Collection[Reason]
) -> Admission:
    """Return what the gateway should do with lanes that can wait.

    Args:
        observation: Deadlines and waiting requests.
        spec: The queue target.
        load: Whether requests wait, and whether that is known.
        limits: That the decision felt.
    """
    if load.freshness is not Freshness.FRESH:
        # The gateway itself always serves flex last; a lane closed on guesses might stay closed.
        return OPEN
    is_open = load.waiting_requests == 0 or is_flex_due(observation, spec)
    is_capped = Reason.COST_TARGET in limits
    shed: tuple[ServiceTier, ...] = ()
    if is_capped and load.waiting_requests > 0:
        shed = (ServiceTier.FLEX,)
        if _waits_beyond_target(observation, spec):
            shed = (ServiceTier.FLEX, ServiceTier.DEFAULT)
    return Admission(flex_open=is_open, shed_tiers=shed)


def _fresh(observation: Observation, spec: ScalingSpec, signal: Signal) -> float | None:
    return fresh_value(
        signal,
        now_unix_seconds=observation.now_unix_seconds,
        hold_after=hold_after_seconds(spec),
    )


def is_flex_due(
    observation: Observation, spec: ScalingSpec, *, at_least_seconds: float = 0.0
) -> bool:
    """Tell whether the first waiting flex request has little time left.

    To hold flex back because more capacity is wanted, or because the objective is missed, only
    piles it up, and what was piled up runs all at once; for ever it may not wait at all.

    Args:
        observation: Its deadline.
        spec: For the age from which a reading counts no more.
        at_least_seconds: Time that it needs before it can run, a cold start for example.
    """
    gateway = observation.gateway
    deadline = _fresh(observation, spec, gateway.flex_deadline_unix_seconds)
    patience = _fresh(observation, spec, gateway.flex_patience_seconds)
    if deadline is None:
        return False
    margin_seconds = FLEX_MARGIN_SECONDS
    if patience is not None:
        margin_seconds = min(margin_seconds, FLEX_MARGIN_RATIO * patience)
    return deadline - observation.now_unix_seconds < max(margin_seconds, at_least_seconds)


def _waits_beyond_target(observation: Observation, spec: ScalingSpec) -> bool:
    waiting = _fresh(observation, spec, observation.gateway.waiting_requests.priority)
    return waiting is not None and waiting > spec.target_queue_depth * max(1, observation.ready)
