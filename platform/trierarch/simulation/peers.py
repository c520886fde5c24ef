"""The peers' policies by name, with what a fleet gives them and what is tried in tuning.

A peer gets the fleet's bounds, the fleet's objective where its law has one, and the
profile of one replica where it has a performance model. Where it has no default
target it gets half of a replica's seats, or 70 % of the rate that its profile
promises for the trace's mean request: what a load test tells an operator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trierarch.autoscaling.policies import dynamo_load
from trierarch.autoscaling.policies.aibrix_apa import AibrixApaPolicy
from trierarch.autoscaling.policies.aibrix_kpa import AibrixKpaPolicy
from trierarch.autoscaling.policies.dynamo_load import DynamoLoadPolicy
from trierarch.autoscaling.policies.dynamo_sla import DynamoSlaPolicy
from trierarch.autoscaling.policies.hpa import PODS, WAITING, HpaPolicy
from trierarch.autoscaling.policies.keda import KedaPolicy
from trierarch.autoscaling.policies.knative import KnativePolicy
from trierarch.autoscaling.policies.llm_d_slo import LlmDSloPolicy
from trierarch.autoscaling.policies.ray_serve import RayServePolicy
from trierarch.autoscaling.policies.replica_profile import ReplicaProfile, largest_batch
from trierarch.autoscaling.policies.skyserve import SkyServePolicy
from trierarch.autoscaling.policies.wva_actuation import VariantLimits
from trierarch.autoscaling.policies.wva_queueing import WvaQueueingPolicy
from trierarch.autoscaling.policies.wva_saturation import WvaSaturationPolicy
from trierarch.autoscaling.policies.wva_tokens import WvaTokensPolicy
from trierarch.core.errors import InvalidInput
from trierarch.core.identifiers import VariantName
from trierarch.simulation.controllers import PolicyController
from trierarch.simulation.fleet.setup import SPOT, VariantSetup
from trierarch.simulation.fleet.simulator import Controller
from trierarch.simulation.policy_options import apply_options, option_names
from trierarch.simulation.scenarios import Scenario
from trierarch.simulation.traces.trace import Tier

SEAT_RATIO = 0.5
"""Share of the seats that is a target where the peer has none."""
RATE_RATIO = 0.7
"""Share of the promised rate that is a target where the peer has none."""
UP_WINDOW, DOWN_WINDOW = "behavior.up_window_seconds", "behavior.down_window_seconds"
Setting = tuple[tuple[str, str], ...]
MakePolicy = Callable[[Scenario], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """One peer's law.

    Attributes:
        name: Kebab-case.
        summary: One line for help texts.
        make: Returns the policy with its defaults on a scenario.
        grid: Settings to try, as texts.
    """

    name: str
    summary: str
    make: MakePolicy
    grid: Callable[[Scenario], Sequence[Setting]]

    def build(self, scenario: Scenario, options: Mapping[str, str]) -> Controller:
        """Return the controller for a scenario and options.

        Raises:
            InvalidInput: If an option has no such value.
        """
        try:
            policy = apply_options(self.make(scenario), options)
        except ValueError as error:
            raise InvalidInput(f"policy {self.name}: {error}") from error
        return PolicyController(policy, name=self.name)

    def options(self, scenario: Scenario) -> Mapping[str, str]:
        """Return the options it takes, each with its default."""
        return option_names(self.make(scenario))


def profile_of(variant: VariantSetup) -> ReplicaProfile:
    """Return what a profile run of a variant tells."""
    service = variant.service
    return ReplicaProfile(
        name=VariantName(variant.name),
        alpha_seconds=service.step_seconds + service.expert_seconds,
        beta_seconds=service.prefill_token_seconds,
        gamma_seconds=service.context_token_seconds,
        maximum_requests=service.maximum_requests,
        step_tokens=service.step_tokens,
        kv_tokens=service.kv_limit_tokens,
        request_seconds=max(0.0, service.decode_token_seconds - service.prefill_token_seconds),
    )


def _profiles(scenario: Scenario) -> tuple[ReplicaProfile, ...]:
    return tuple(profile_of(variant) for variant in scenario.setup.variants)


def _bounds(scenario: Scenario) -> dict[str, Any]:
    variants = scenario.setup.variants
    return {
        "minimum_replicas": sum(variant.minimum_replicas for variant in variants),
        "maximum_replicas": max(variant.maximum_replicas for variant in variants),
    }


def _limits(scenario: Scenario) -> tuple[VariantLimits, ...]:
    return tuple(
        VariantLimits(VariantName(v.name), v.minimum_replicas, v.maximum_replicas)
        for v in scenario.setup.variants
    )


def _objective(scenario: Scenario) -> dict[str, Any]:
    objective = scenario.setup.objective
    return {"ttft_seconds": objective.ttft_seconds, "tpot_seconds": objective.tpot_seconds}


def _seats(scenario: Scenario) -> int:
    return scenario.setup.variants[0].service.maximum_requests


def promised_rate(scenario: Scenario) -> float:
    """Return the requests per second of one replica inside the objective, by its profile."""
    trace = scenario.trace
    interactive = trace.tiers != Tier.FLEX
    if not interactive.any():
        interactive = ~interactive
    inputs = float(trace.input_tokens[interactive].mean())
    outputs = max(1.0, float(trace.output_tokens[interactive].mean()))
    profile, objective = _profiles(scenario)[0], scenario.setup.objective

    def fits(batch: int) -> bool:
        return profile.decode_seconds(batch, inputs, outputs) <= objective.tpot_seconds

    batch = largest_batch(profile.seats(inputs, outputs), fits)
    return profile.service_rate(max(1, batch), inputs, outputs)


def _half_seats(scenario: Scenario) -> float:
    return SEAT_RATIO * _seats(scenario)


def _settings(*axes: tuple[str, Sequence[object]]) -> list[Setting]:
    """Return every combination of values."""
    settings: list[Setting] = [()]
    for name, values in axes:
        settings = [(*setting, (name, str(value))) for setting in settings for value in values]
    return settings


def _by_seats(
    name: str, *axes: tuple[str, Sequence[object]]
) -> Callable[[Scenario], Sequence[Setting]]:
    """Return a grid whose first axis is a number of requests, as shares of a replica's seats."""

    def grid(scenario: Scenario) -> Sequence[Setting]:
        shares = (0.015, 0.03, 0.05, 0.08, 0.12, 0.16, 0.2, 0.3)
        targets = [max(1, round(share * _seats(scenario))) for share in shares]
        return [*_settings((name, targets), *axes), *_with_floor(name, targets[2:5], scenario)]

    return grid


def _with_floor(name: str, targets: Sequence[object], scenario: Scenario) -> list[Setting]:
    """Return the settings that only several variants make different."""
    if len(scenario.setup.variants) < 2:
        return []
    mixes = _settings((name, targets), ("floor_ratio", (0.3,)))
    return [*mixes, *_settings((name, targets), ("mix", ("first",)))]


def _fixed(*axes: tuple[str, Sequence[object]]) -> Callable[[Scenario], Sequence[Setting]]:
    return lambda scenario: _settings(*axes)


def _hpa(scenario: Scenario) -> HpaPolicy:
    return HpaPolicy(target=_half_seats(scenario), **_bounds(scenario))


def _hpa_queue(scenario: Scenario) -> HpaPolicy:
    return HpaPolicy(target=5.0, metric=WAITING, kind=PODS, name="hpa-queue", **_bounds(scenario))


def _wva(scenario: Scenario) -> dict[str, Any]:
    return {"limits": _limits(scenario), "profiles": _profiles(scenario)}


def _dynamo(name: str, thresholds: tuple[float, float]) -> MakePolicy:
    def make(scenario: Scenario) -> DynamoLoadPolicy:
        return DynamoLoadPolicy(
            profile=_profiles(scenario)[0],
            up_ratio=thresholds[0],
            down_ratio=thresholds[1],
            name=name,
            **_bounds(scenario),
        )

    return make


def _skyserve(scenario: Scenario) -> SkyServePolicy:
    spot = tuple(VariantName(v.name) for v in scenario.setup.variants if v.capacity_type == SPOT)
    return SkyServePolicy(
        target_requests_per_second=RATE_RATIO * promised_rate(scenario),
        spot_variants=spot,
        **_bounds(scenario),
    )


def _sweep_skyserve(scenario: Scenario) -> Sequence[Setting]:
    rate = promised_rate(scenario)
    targets = [f"{share * rate:.4g}" for share in (0.25, 0.4, 0.55, 0.7, 0.85)]
    settings = _settings(
        ("target_requests_per_second", targets), ("upscale_delay_seconds", (20, 300))
    )
    if any(variant.capacity_type == SPOT for variant in scenario.setup.variants):
        settings += _settings(
            ("target_requests_per_second", targets[1:4]),
            ("upscale_delay_seconds", (20,)),
            ("spare_spot_replicas", (2,)),
        )
    return settings


def _sweep_wva_queueing(scenario: Scenario) -> Sequence[Setting]:
    ttft, tpot = scenario.setup.objective.ttft_seconds, scenario.setup.objective.tpot_seconds
    return [
        (
            ("ttft_seconds", f"{ratio * ttft:.4g}"),
            ("tpot_seconds", f"{ratio * tpot:.4g}"),
            (UP_WINDOW, "0"),
        )
        for ratio in (0.55, 0.6, 0.65, 0.7, 0.8, 0.9, 1.0)
        # A step without load already takes alpha; below it no rate is feasible.
        if ratio * tpot > _profiles(scenario)[0].alpha_seconds
    ]


def _sweep_dynamo_sla(scenario: Scenario) -> Sequence[Setting]:
    objective = scenario.setup.objective
    return [
        (
            ("ttft_seconds", f"{ratio * objective.ttft_seconds:.4g}"),
            ("tpot_seconds", f"{ratio * objective.tpot_seconds:.4g}"),
            ("predictor", predictor),
        )
        for ratio in (0.6, 0.7, 0.8, 0.9, 1.0)
        for predictor in ("kalman", "constant")
        if ratio * objective.tpot_seconds > _profiles(scenario)[0].alpha_seconds
    ]


PEERS: tuple[Peer, ...] = (
    Peer(
        "hpa",
        "Kubernetes HPA on requests in flight",
        _hpa,
        _by_seats("target", (DOWN_WINDOW, (300, 900))),
    ),
    Peer(
        "hpa-queue",
        "Kubernetes HPA on waiting requests",
        _hpa_queue,
        _fixed(("target", (0.5, 1, 2, 5, 10)), (DOWN_WINDOW, (300, 900, 1800))),
    ),
    Peer(
        "keda",
        "KEDA with a queue trigger",
        lambda scenario: KedaPolicy(**_bounds(scenario)),
        lambda scenario: [
            *_settings(("threshold", (1, 2, 5, 10)), (DOWN_WINDOW, (300, 1800))),
            *((("metric", "in-flight"), *setting) for setting in _by_seats("threshold")(scenario)),
        ],
    ),
    Peer(
        "knative",
        "Knative's stable and panic windows",
        lambda scenario: KnativePolicy(**_bounds(scenario)),
        _by_seats("target", ("down_delay_seconds", (0, 600))),
    ),
    Peer(
        "ray-serve",
        "Ray Serve's ongoing requests",
        lambda scenario: RayServePolicy(**_bounds(scenario)),
        lambda scenario: [
            *_by_seats("target_ongoing_requests")(scenario),
            *(
                (*setting, ("upscale_delay_seconds", "10"), ("downscale_delay_seconds", "120"))
                for setting in _by_seats("target_ongoing_requests")(scenario)
            ),
        ],
    ),
    Peer(
        "aibrix-apa",
        "AIBrix APA, as documented unless as_coded=true",
        lambda scenario: AibrixApaPolicy(target=_half_seats(scenario), **_bounds(scenario)),
        _by_seats("target", ("up_cooldown_seconds", (0, 180))),
    ),
    Peer(
        "aibrix-kpa",
        "AIBrix KPA, as documented unless as_coded=true",
        lambda scenario: AibrixKpaPolicy(target=_half_seats(scenario), **_bounds(scenario)),
        _by_seats("target", ("up_cooldown_seconds", (0, 180))),
    ),
    Peer(
        "llm-d-slo",
        "llm-d's ratio of latency to objective",
        lambda scenario: LlmDSloPolicy(**_objective(scenario), **_bounds(scenario)),
        _fixed(
            ("up_ratio", (0.55, 0.65, 0.75, 0.85)), ("down_ratio", (0.4, 0.5)), (UP_WINDOW, (0, 30))
        ),
    ),
    Peer(
        "wva-v1",
        "llm-d WVA, first engine: spare KV memory and queue",
        lambda scenario: WvaSaturationPolicy(**_wva(scenario)),
        _fixed(
            ("kv_threshold_ratio", (0.13, 0.16, 0.2, 0.3, 0.5)),
            ("queue_trigger", (3, 4)),
            (UP_WINDOW, (0,)),
        ),
    ),
    Peer(
        "wva-v2",
        "llm-d WVA, second engine: tokens of demand and capacity",
        lambda scenario: WvaTokensPolicy(**_wva(scenario)),
        lambda scenario: [
            (("up_ratio", f"{up:g}"), ("down_ratio", f"{up * share:.4g}"), (UP_WINDOW, "0"))
            for up in (0.15, 0.25, 0.35, 0.5, 0.7)
            for share in (0.35, 0.7)
        ],
    ),
    Peer(
        "wva-queue-model",
        "llm-d WVA, model-based engine: a queue model against the objectives",
        lambda scenario: WvaQueueingPolicy(**_wva(scenario), **_objective(scenario)),
        _sweep_wva_queueing,
    ),
    Peer(
        "dynamo",
        "NVIDIA Dynamo's planner as shipped: KV load, target throughput",
        _dynamo("dynamo", dynamo_load.THROUGHPUT),
        lambda scenario: (),
    ),
    Peer(
        "dynamo-load",
        "NVIDIA Dynamo's planner with thresholds of the user, by default those for latency",
        _dynamo("dynamo-load", dynamo_load.LATENCY),
        lambda scenario: [
            (("up_ratio", f"{up:g}"), ("down_ratio", f"{up * share:g}"))
            for up in (0.015, 0.025, 0.04, 0.08, 0.15, 0.3)
            for share in (0.5, 0.75)
        ],
    ),
    Peer(
        "dynamo-sla",
        "NVIDIA Dynamo's planner with latency targets",
        lambda scenario: DynamoSlaPolicy(
            profile=_profiles(scenario)[0], **_objective(scenario), **_bounds(scenario)
        ),
        _sweep_dynamo_sla,
    ),
    Peer("skyserve", "SkyServe's request rate with spot and fallback", _skyserve, _sweep_skyserve),
)
"""Every peer, in the order of tables."""
