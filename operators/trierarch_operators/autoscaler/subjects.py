"""From a model deployment and what is seen of it to the subject of a decision: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation

from trierarch.api.v1alpha1.model_deployment import ModelDeployment
from trierarch.autoscaling.placement import place
from trierarch.autoscaling.signals import HourlyBudget, Observation, VariantObservation, measure
from trierarch.autoscaling.specification import ScalingSpec
from trierarch.controller.deciding import Subject, VariantSubject
from trierarch.core.identifiers import ModelName, VariantName
from trierarch.core.replicas import ReplicaEndpoint
from trierarch_operators.fleet import PlannedVariant
from trierarch_operators.labels import APPROVAL_ANNOTATION
from trierarch_operators.object_cache import Key
from trierarch_operators.scaling_specification import build_scaling_spec

_SEATS_OPTION = "max-num-seqs"
_GPU_SEATS = 256
_CPU_SEATS = 16


def build_subject(
    key: Key,
    deployment: ModelDeployment,
    annotations: Mapping[str, str],
    planned: Sequence[PlannedVariant],
    replicas: Mapping[str, Sequence[ReplicaEndpoint]],
    prices: Mapping[str, Decimal | None],
    now_unix_seconds: float,
    budgets: tuple[HourlyBudget, ...] = (),
) -> Subject:
    """Return what a decision is made for.

    Args:
        key: The deployment.
        deployment: As it is written.
        annotations: Its own.
        planned: Its variants that can be run; the others are no choice.
        replicas: By variant.
        prices: Hourly price of one whole group by variant, where one holds.
        now_unix_seconds: Of the decision.
        budgets: What its tenant's budgets leave for it.

    Raises:
        ValueError: If the deployment holds what its definition's rules refuse.
    """
    runnable = deployment.spec.model_copy(update={"variants": [one.variant for one in planned]})
    spec = build_scaling_spec(
        runnable,
        seats={one.variant.name: _seats(one) for one in planned},
        price_keys={
            one.variant.name: (one.price_key, one.accelerator_class.region or "") for one in planned
        },
    )
    waiting = {entry.name for entry in deployment.status.variants or () if entry.waiting_for}
    subjects = tuple(
        VariantSubject(
            name=VariantName(one.variant.name),
            replicas=replicas[one.variant.name],
            accelerators=one.plan.layout.accelerators,
            price_usd_per_hour=_number(prices.get(one.variant.name)),
            obtainable_replicas=0 if one.variant.name in waiting else None,
        )
        for one in planned
    )
    if deployment.spec.replicas is not None:
        spec = fix_replicas(str(key), spec, subjects, deployment.spec.replicas, now_unix_seconds)
    return Subject(
        deployment=str(key),
        model=ModelName(deployment.spec.model.name),
        spec=spec,
        variants=subjects,
        approved_usd_per_hour=read_approval(annotations),
        budgets=budgets,
    )


def _number(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)


def _seats(one: PlannedVariant) -> int:
    """Return how many requests one replica runs at once."""
    given = one.variant.engine_args.get(_SEATS_OPTION)
    usual = _CPU_SEATS if one.accelerator_class.cpu_only else _GPU_SEATS
    per_rank = given if isinstance(given, int) and given > 0 else usual
    return per_rank * one.plan.layout.data


def fix_replicas(
    deployment: str,
    spec: ScalingSpec,
    variants: Sequence[VariantSubject],
    replicas: int,
    now_unix_seconds: float,
) -> ScalingSpec:
    """Return the spec with bounds that leave only one choice: the cheapest mix of ``replicas``."""
    observation = Observation(
        now_unix_seconds=now_unix_seconds,
        deployment=deployment,
        model=ModelName(""),
        variants=tuple(
            VariantObservation(
                name=variant.name,
                price_usd_per_hour=measure(variant.price_usd_per_hour, now_unix_seconds),
                accelerators_per_replica=variant.accelerators,
            )
            for variant in variants
        ),
    )
    open_spec = spec.model_copy(
        update={"variants": tuple(v.model_copy(update={"min_replicas": 0}) for v in spec.variants)}
    )
    mix = place(observation, open_spec, replicas)
    zero = spec.behavior.scale_to_zero.model_copy(update={"enabled": False})
    return spec.model_copy(
        update={
            "variants": tuple(
                variant.model_copy(
                    update={"min_replicas": mix[variant.name], "max_replicas": mix[variant.name]}
                )
                for variant in spec.variants
            ),
            "behavior": spec.behavior.model_copy(update={"scale_to_zero": zero}),
        }
    )


def read_approval(annotations: Mapping[str, str]) -> float | None:
    """Return the hourly cost that a person has approved; None if nobody has, or no number."""
    text = annotations.get(APPROVAL_ANNOTATION, "")
    try:
        amount = Decimal(text)
    except InvalidOperation:
        return None
    return float(amount) if amount.is_finite() and amount >= 0 else None
