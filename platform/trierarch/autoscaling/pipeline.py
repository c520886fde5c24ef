"""The autoscaler: one observation in, one decision out; the same code in production and replay.

``observe -> analyze -> recommend -> place -> stabilize -> constrain -> decide``.
Pure: time is in the observation, memory in the state. What is not known never
takes capacity away.
"""

from __future__ import annotations

import dataclasses
import math
import statistics

from trierarch.autoscaling.admission import build_admission
from trierarch.autoscaling.constraints import constrain
from trierarch.autoscaling.cost_target import look_at_cost
from trierarch.autoscaling.decision import (
    DecisionInputs,
    DecisionStep,
    Reason,
    ScalingDecision,
    Stage,
)
from trierarch.autoscaling.demand import analyze_growth, fewest_safe
from trierarch.autoscaling.load import Freshness, Load, read_load
from trierarch.autoscaling.outlook import build_conditions, build_counterfactual, tokens_per_hour
from trierarch.autoscaling.placement import place, price_of
from trierarch.autoscaling.service_learning import Services, believed_service, teach_services
from trierarch.autoscaling.signals import Observation
from trierarch.autoscaling.sizing import Sizing, size_fleet
from trierarch.autoscaling.specification import ScalingSpec
from trierarch.autoscaling.state import PipelineState, Recommendation, Scarcity, SizingState
from trierarch.autoscaling.workload import learn_lengths, measure_workload, reference_variant
from trierarch.core.identifiers import DecisionId

SCALE_DOWN_WINDOW_COLD_STARTS = 0.7
"""Default window of scale-down in cold starts: what is given back too early costs one."""

RETRY_SECONDS = 600.0
"""Time before a variant that was not given is asked for again."""

LEAST_SCALE_DOWN_WINDOW_SECONDS = 60.0


@dataclasses.dataclass(slots=True)
class _Draft:
    """The number on its way through the stages."""

    replicas: int
    reason: Reason
    message: str
    steps: list[DecisionStep] = dataclasses.field(default_factory=list)

    def change(self, stage: Stage, after: int, reason: Reason, message: str) -> None:
        """Note a stage's word; it becomes the decision's if it changes the number."""
        self.steps.append(DecisionStep(stage, self.replicas, after, reason, message))
        if after != self.replicas:
            self.replicas, self.reason, self.message = after, reason, message


def decide(
    observation: Observation, spec: ScalingSpec, state: PipelineState, decision_id: DecisionId
) -> tuple[ScalingDecision, PipelineState]:
    """Return how many replicas of each variant there should be, and what to remember.

    Args:
        observation: What is known now.
        spec: What was asked for.
        state: What the last decision left.
        decision_id: Unique; given by the caller, because a pure function cannot make one.

    Raises:
        KeyError: If the observation has a variant that the spec has not.
    """
    now = observation.now_unix_seconds
    last_fresh = state.last_fresh_unix_seconds
    load = read_load(
        observation,
        spec,
        lost_for_seconds=0.0 if last_fresh is None else max(0.0, now - last_fresh),
    )
    # While cheaper replicas take over there are more than were asked for.
    current = observation.current
    if state.settled_replicas is not None:
        current = min(current, max(state.settled_replicas, spec.min_replicas))
    draft = _Draft(current, Reason.AT_TARGET, "it is what the load needs")
    next_state = dataclasses.replace(state, last_decision_unix_seconds=now)
    sizing: Sizing | None = None
    _observe(draft, load)
    if load.freshness is Freshness.FRESH:
        next_state = dataclasses.replace(next_state, last_fresh_unix_seconds=now)
        services = teach_services(observation, spec, state.services)
        sizing, learned = _size(observation, spec, load, state, services)
        next_state = dataclasses.replace(next_state, sizing=learned, services=services)
        _analyze(draft, observation, spec, load, sizing)
        next_state = _remember(next_state, observation, spec, draft.replicas)
        _stabilize(draft, observation, spec, next_state, current)
    elif last_fresh is None:
        next_state = dataclasses.replace(next_state, last_fresh_unix_seconds=now)
    before_limits, wanted_reason, wanted_message = draft.replicas, draft.reason, draft.message
    next_state = dataclasses.replace(
        next_state, scarce=_scarce(observation, state), settled_replicas=draft.replicas
    )
    scarce = frozenset(found.variant for found in next_state.scarce)
    mix = place(observation, spec, draft.replicas, scarce=scarce)
    placed = sum(mix.values())
    is_switching = any(mix[v.name] > v.current for v in observation.variants)
    if is_switching and placed > max(draft.replicas, spec.min_replicas):
        message = "cheaper replicas start; dearer ones go when those serve"
        draft.change(Stage.PLACE, placed, Reason.CHEAPER_VARIANT, message)
    limited = constrain(
        observation, spec, mix, wanted=draft.replicas, may_shrink=load.freshness is Freshness.FRESH
    )
    for limit in limited.limits:
        draft.change(Stage.CONSTRAIN, limit.replicas, limit.reason, limit.message)
    total = sum(limited.mix.values())
    if total != draft.replicas:
        message = f"the variants can carry {total}"
        draft.change(Stage.PLACE, total, Reason.INVENTORY, message)
    if total > observation.current and before_limits > current:
        next_state = dataclasses.replace(next_state, last_addition_unix_seconds=now)
    # A limit binds although the count stays as it is: that is why it stays.
    binding = limited.limits[-1].reason if limited.limits else wanted_reason
    reason, message = draft.reason, draft.message
    if total == observation.current and before_limits != current and limited.limits:
        reason = limited.limits[-1].reason
        message = f"{limited.limits[-1].message}; {wanted_message}"
    if not draft.steps:
        draft.steps.append(DecisionStep(Stage.ANALYZE, current, current, reason, message))
    served = tokens_per_hour(observation)
    outlook = look_at_cost(observation, spec, limited.mix, sizing, served) if served else None
    decision = ScalingDecision(
        id=decision_id,
        at_unix_seconds=now,
        deployment=observation.deployment,
        model=observation.model,
        replicas=limited.mix,
        previous={variant.name: variant.current for variant in observation.variants},
        reason=reason,
        message=_word(observation.current, total, message),
        steps=tuple(draft.steps),
        binding=binding,
        counterfactual=build_counterfactual(
            observation, spec, limited.mix, sizing, next_state.services
        ),
        conditions=build_conditions(observation, spec, load, limited.limits, outlook),
        admission=build_admission(
            observation, spec, load, {limit.reason for limit in limited.limits}
        ),
        feasible_usd_per_million_tokens=(
            None if outlook is None else outlook.feasible_usd_per_million_tokens
        ),
        inputs=DecisionInputs(observation, spec, state),
    )
    return decision, next_state


def _scarce(observation: Observation, state: PipelineState) -> tuple[Scarcity, ...]:
    """Return what lately could not be had; it is asked for again after a while."""
    now = observation.now_unix_seconds
    found = {s.variant: s for s in state.scarce if 0 <= now - s.at_unix_seconds < RETRY_SECONDS}
    for variant in observation.variants:
        if variant.not_obtained:
            found[variant.name] = Scarcity(variant.name, now)
    return tuple(found.values())


def _word(current: int, desired: int, message: str) -> str:
    noun = "replica" if max(current, desired) == 1 else "replicas"
    if desired == current:
        return f"keep {current} {noun}: {message}"
    return f"scale from {current} to {desired} {noun}: {message}"


def _observe(draft: _Draft, load: Load) -> None:
    if load.freshness is Freshness.FRESH:
        return
    age = "" if load.age_seconds is None else f", the newest is {load.age_seconds:.0f} s old"
    reason = load.reason or Reason.METRICS_MISSING
    message = f"signals are not fresh{age}; nothing is removed and nothing is added on guesses"
    draft.steps.append(DecisionStep(Stage.OBSERVE, draft.replicas, draft.replicas, reason, message))
    draft.reason, draft.message = reason, message


def _size(
    observation: Observation,
    spec: ScalingSpec,
    load: Load,
    state: PipelineState,
    services: Services,
) -> tuple[Sizing | None, SizingState]:
    if spec.slo is None:
        return None, state.sizing
    now, began = observation.now_unix_seconds, state.sizing.began_unix_seconds
    served_seconds = 0.0 if began is None else now - began
    last = state.last_decision_unix_seconds
    lengths = learn_lengths(
        state.sizing.lengths,
        observation,
        spec,
        elapsed_seconds=0.0 if last is None else now - last,
        served_seconds=served_seconds,
    )
    state = dataclasses.replace(state, sizing=dataclasses.replace(state.sizing, lengths=lengths))
    workload = measure_workload(observation, spec, load, lengths, served_seconds=served_seconds)
    if workload is None or not load.is_complete:
        return None, state.sizing
    return size_fleet(
        observation,
        spec,
        load,
        workload,
        state.sizing,
        last_decision_unix_seconds=state.last_decision_unix_seconds,
        horizon_seconds=cold_start_seconds(observation, spec) + spec.behavior.interval_seconds,
        service=believed_service(reference_variant(spec), services),
    )


def _analyze(
    draft: _Draft,
    observation: Observation,
    spec: ScalingSpec,
    load: Load,
    sizing: Sizing | None,
) -> None:
    """Put the largest need into the draft, or the smaller pool that would do."""
    current = draft.replicas
    needs = analyze_growth(observation, spec, load, sizing)
    for need in needs:
        step = DecisionStep(Stage.ANALYZE, current, need.replicas, need.reason, need.message)
        draft.steps.append(step)
    if needs:
        largest = max(needs, key=lambda need: need.replicas)
        if largest.replicas > current:
            draft.change(Stage.RECOMMEND, largest.replicas, largest.reason, largest.message)
        elif observation.ready < current:
            message = f"{largest.message}; {current - observation.ready} on the way cover it"
            draft.reason, draft.message = Reason.STARTING_CREDIT, message
            draft.change(Stage.RECOMMEND, current, Reason.STARTING_CREDIT, message)
        else:
            draft.reason, draft.message = largest.reason, largest.message
        return
    safe = fewest_safe(observation, spec, load, sizing)
    if safe is None:
        message = "signals are incomplete: enough to add capacity, not to give any back"
        draft.change(Stage.RECOMMEND, current, Reason.METRICS_MISSING, message)
        draft.reason, draft.message = Reason.METRICS_MISSING, message
    elif safe.replicas < current:
        draft.change(Stage.RECOMMEND, safe.replicas, safe.reason, safe.message)
    elif safe.reason is Reason.WARMING_UP:
        draft.reason, draft.message = safe.reason, safe.message


def _scale_down_window_seconds(observation: Observation, spec: ScalingSpec) -> float:
    window = spec.behavior.scale_down.window_seconds
    if window is not None:
        return window
    cold = cold_start_seconds(observation, spec)
    return max(LEAST_SCALE_DOWN_WINDOW_SECONDS, SCALE_DOWN_WINDOW_COLD_STARTS * cold)


def break_even_seconds(observation: Observation, spec: ScalingSpec) -> float:
    """Return how long the last replica stays idle: until that has cost what a new start costs.

    Whoever waits so long pays at most twice what the best choice would have cost, whenever the
    next request comes. A start costs the replica's price while it starts, and what the request
    that waits for it is worth; without a price only the time of the start counts.
    """
    told = spec.behavior.scale_to_zero
    if told.idle_seconds is not None:
        return told.idle_seconds
    cold = cold_start_seconds(observation, spec)
    prices = [price for v in observation.variants if v.ready and (price := price_of(v))]
    if not prices:
        return cold
    return cold + told.cold_start_miss_usd / (min(prices) / 3600.0)


def cold_start_seconds(observation: Observation, spec: ScalingSpec) -> float:
    """Return the longest of the variants' usual cold starts: measured, else believed."""
    longest = 0.0
    for variant in observation.variants:
        believed = spec.variant(variant.name).cold_start_seconds
        measured = variant.cold_starts_seconds
        longest = max(longest, statistics.median(measured) if measured else believed)
    return longest


def _remember(
    state: PipelineState, observation: Observation, spec: ScalingSpec, replicas: int
) -> PipelineState:
    now = observation.now_unix_seconds
    kept_seconds = max(
        spec.behavior.scale_up.window_seconds,
        _scale_down_window_seconds(observation, spec),
        break_even_seconds(observation, spec) if spec.behavior.scale_to_zero.enabled else 0.0,
    )
    kept = tuple(r for r in state.recommendations if 0 <= now - r.at_unix_seconds <= kept_seconds)
    return dataclasses.replace(state, recommendations=(*kept, Recommendation(now, replicas)))


def _stabilize(
    draft: _Draft, observation: Observation, spec: ScalingSpec, state: PipelineState, before: int
) -> None:
    current, wanted = before, draft.replicas
    now = observation.now_unix_seconds
    if wanted > current:
        _stabilize_growth(draft, observation, spec, state, before)
        return
    if wanted >= current:
        return
    behavior = spec.behavior.scale_down
    window = _scale_down_window_seconds(observation, spec)
    held_reason = Reason.STABILIZING
    if wanted == 0 and (break_even := break_even_seconds(observation, spec)) > window:
        window, held_reason = break_even, Reason.BREAK_EVEN
    recent = [r for r in state.recommendations if now - r.at_unix_seconds <= window]
    highest = max(r.replicas for r in recent)
    is_watched = now - recent[0].at_unix_seconds >= window - spec.behavior.interval_seconds
    if highest >= current or not is_watched:
        message = f"within the last {window:g} s the load needed up to {max(highest, current)}"
        draft.change(Stage.STABILIZE, current, held_reason, message)
        return
    dwell = behavior.dwell_seconds
    dwell = cold_start_seconds(observation, spec) if dwell is None else dwell
    added = state.last_addition_unix_seconds
    if added is not None and now - added < dwell:
        message = f"capacity was added {now - added:.0f} s ago; it stays for {dwell:.0f} s"
        draft.change(Stage.STABILIZE, current, Reason.DWELL, message)
        return
    if observation.ready < current:
        message = "replicas are still starting; none is removed before they serve"
        draft.change(Stage.STABILIZE, current, Reason.STABILIZING, message)
        return
    most = max(1, math.floor(behavior.max_step_ratio * current))
    lowest = max(highest, current - most)
    if lowest > wanted:
        message = f"at most {most} at once, and {highest} were needed in the last {window:g} s"
        draft.steps.append(
            DecisionStep(Stage.STABILIZE, wanted, lowest, Reason.STEP_LIMIT, message)
        )
        # The cause is still the low load; only the step is shorter.
        draft.replicas = lowest


def _stabilize_growth(
    draft: _Draft, observation: Observation, spec: ScalingSpec, state: PipelineState, before: int
) -> None:
    current, wanted = before, draft.replicas
    now = observation.now_unix_seconds
    behavior = spec.behavior.scale_up
    window = behavior.window_seconds
    if window > 0 and draft.reason is not Reason.ACTIVATION:
        recent = [r for r in state.recommendations if now - r.at_unix_seconds <= window]
        lasting = min(r.replicas for r in recent)
        is_watched = now - recent[0].at_unix_seconds >= window - spec.behavior.interval_seconds
        if lasting <= current or not is_watched:
            message = f"a higher demand must last {window:g} s"
            draft.change(Stage.STABILIZE, current, Reason.STABILIZING, message)
            return
        if lasting < wanted:
            draft.steps.append(
                DecisionStep(
                    Stage.STABILIZE,
                    wanted,
                    lasting,
                    Reason.STABILIZING,
                    f"{lasting} were needed during all of the last {window:g} s",
                )
            )
            wanted = draft.replicas = lasting
    most = max(behavior.max_step_replicas, math.floor(behavior.max_step_ratio * current))
    if wanted > current + most:
        draft.steps.append(
            DecisionStep(
                Stage.STABILIZE,
                wanted,
                current + most,
                Reason.STEP_LIMIT,
                f"at most {most} more at once",
            )
        )
        draft.replicas = current + most
