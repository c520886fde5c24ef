"""A decision in words: what it saw, what each stage did, what bound, what else was possible."""

from __future__ import annotations

from trierarch.autoscaling.decision import Alternative, ScalingDecision
from trierarch.autoscaling.outlook import unit_cost
from trierarch.autoscaling.signals import Measured, Missing, Signal, Stale, TierSignals, known
from trierarch.core.admission import Admission
from trierarch.core.clock import utc_datetime


def explain(decision: ScalingDecision) -> str:
    """Return the decision as lines for people."""
    when = utc_datetime(decision.at_unix_seconds).strftime("%Y-%m-%d %H:%M:%S UTC")
    lines = [
        f"{decision.id}  {when}  {decision.deployment}",
        f"  {decision.message}",
        f"  reason {decision.reason.value}, bound by {decision.binding.value}",
        "  saw",
        *(f"    {line}" for line in _inputs(decision)),
        "  steps",
    ]
    for step in decision.steps:
        change = f"{step.before}" if step.before == step.after else f"{step.before} -> {step.after}"
        lines.append(f"    {step.stage.value:<10} {change:<8} {step.reason.value}: {step.message}")
    lines += [f"  lanes: {_lanes(decision.admission)}"]
    lines += ["  choices", *(f"    {line}" for line in _choices(decision))]
    lines.append("  conditions")
    for condition in decision.conditions:
        lines.append(
            f"    {condition.type:<15} {condition.status.value:<8}"
            f" {condition.reason}: {condition.message}"
        )
    lines.append(f"  policy {decision.policy_version}")
    return "\n".join(lines)


def _inputs(decision: ScalingDecision) -> list[str]:
    observation = decision.inputs.observation
    gateway = observation.gateway
    now = observation.now_unix_seconds
    lines = [
        f"{variant.name}: {variant.ready} ready, {len(variant.starting)} starting,"
        f" {variant.draining} draining, price {_value(variant.price_usd_per_hour, now)} USD/h"
        for variant in observation.variants
    ]
    for variant in observation.variants:
        running = _value(variant.engine.running_requests, now)
        waiting = _value(variant.engine.waiting_requests, now)
        lines.append(f"{variant.name} engines: {running} running, {waiting} waiting")
    lines += [
        f"gateway: {_tiers(gateway.arrivals_per_second, now)} requests/s arrive,"
        f" {_tiers(gateway.waiting_requests, now)} wait,"
        f" {_value(gateway.in_flight_requests, now)} in flight",
    ]
    if known(gateway.waiting_requests.flex) or known(gateway.flex_in_flight_requests):
        lines.append(
            f"flex: {_value(gateway.waiting_requests.flex, now)} wait,"
            f" {_value(gateway.flex_in_flight_requests, now)} in flight{_deadline(decision)}"
        )
    lines += [
        f"budget {budget.name}: {budget.usd_per_hour:.4f} USD/h left"
        for budget in observation.budgets
    ]
    lines += [
        f"{service.variant} speed: learned from {service.model.samples} measurements,"
        f" the last predicted to {service.model.residual_ratio:.0%}"
        for service in decision.inputs.state.services
        if service.model.is_learned
    ]
    cost = unit_cost(observation)
    lines.append(
        "unit cost: " + ("unknown" if cost is None else f"{cost:.4f} USD per million tokens")
    )
    return lines


def _deadline(decision: ScalingDecision) -> str:
    at = known(decision.inputs.observation.gateway.flex_deadline_unix_seconds)
    if at is None:
        return ""
    return f", the first has {max(0.0, at - decision.at_unix_seconds):.0f} s left"


def _lanes(admission: Admission) -> str:
    flex = "flex may start" if admission.flex_open else "flex waits for idle capacity"
    if not admission.shed_tiers:
        return flex
    return f"{flex}; refused: {', '.join(tier.value for tier in admission.shed_tiers)}"


def _tiers(tiers: TierSignals, now: float) -> str:
    values = [tiers.priority, tiers.default]
    told = [value for value in values if not isinstance(value, Missing)]
    if not told:
        return _value(tiers.default, now)
    if len(told) == 1:
        return _value(told[0], now)
    return " + ".join(_value(value, now) for value in told)


def _value(signal: Signal, now: float) -> str:
    if isinstance(signal, Measured):
        return f"{signal.value:.4g}"
    if isinstance(signal, Stale):
        return f"{signal.value:.4g} ({now - signal.at_unix_seconds:.0f} s old)"
    return f"unknown ({signal.reason})"


def _choices(decision: ScalingDecision) -> list[str]:
    found = decision.counterfactual
    if found is None:
        return ["nothing could be predicted"]
    named = (
        ("chosen", found.chosen),
        ("one fewer", found.one_fewer),
        ("one more", found.one_more),
        ("cheapest other", found.cheapest_other),
    )
    return [f"{name:<14} {_alternative(choice)}" for name, choice in named if choice is not None]


def _alternative(choice: Alternative) -> str:
    counts = ", ".join(f"{count} x {name}" for name, count in choice.replicas.items())
    parts = [counts]
    parts.append(
        "price unknown" if choice.usd_per_hour is None else f"{choice.usd_per_hour:.4f} USD/h"
    )
    if choice.usd_per_million_tokens is not None:
        parts.append(f"{choice.usd_per_million_tokens:.4f} USD per million tokens at this load")
    if choice.ttft_seconds is not None and choice.tpot_seconds is not None:
        parts.append(
            f"first token in {choice.ttft_seconds:.2f} s and {choice.tpot_seconds:.3f} s per token"
            " expected"
        )
    if choice.meets_slo is not None:
        parts.append("keeps the objective" if choice.meets_slo else "misses the objective")
    return ", ".join(parts)
