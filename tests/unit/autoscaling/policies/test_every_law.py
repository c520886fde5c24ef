"""What holds for every law: bounds, plain states, no guess without metrics, more for more."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from trierarch.autoscaling.policies.aibrix_apa import AibrixApaPolicy
from trierarch.autoscaling.policies.aibrix_kpa import AibrixKpaPolicy
from trierarch.autoscaling.policies.dynamo_load import DynamoLoadPolicy
from trierarch.autoscaling.policies.dynamo_sla import DynamoSlaPolicy
from trierarch.autoscaling.policies.hpa import PODS, WAITING, HpaPolicy
from trierarch.autoscaling.policies.keda import KedaPolicy
from trierarch.autoscaling.policies.knative import KnativePolicy
from trierarch.autoscaling.policies.llm_d_slo import LlmDSloPolicy
from trierarch.autoscaling.policies.ray_serve import RayServePolicy
from trierarch.autoscaling.policies.replica_profile import ReplicaProfile
from trierarch.autoscaling.policies.skyserve import SkyServePolicy
from trierarch.autoscaling.policies.wva_actuation import VariantLimits
from trierarch.autoscaling.policies.wva_queueing import WvaQueueingPolicy
from trierarch.autoscaling.policies.wva_saturation import WvaSaturationPolicy
from trierarch.autoscaling.policies.wva_tokens import WvaTokensPolicy
from trierarch.core.identifiers import VariantName

GPU = VariantName("gpu")
PROFILE = ReplicaProfile(GPU, 0.01, 1e-5, 1e-8, 64, 8192, 100_000, 1e-4)
LEAST, MOST = 1, 12
BOUNDS: dict[str, Any] = {"minimum_replicas": LEAST, "maximum_replicas": MOST}
OBJECTIVE: dict[str, Any] = {"ttft_seconds": 2.0, "tpot_seconds": 0.05}
VARIANTS: dict[str, Any] = {
    "limits": (VariantLimits(GPU, LEAST, MOST),),
    "profiles": (PROFILE,),
}
POLICIES = [
    HpaPolicy(target=10.0, **BOUNDS),
    HpaPolicy(target=5.0, metric=WAITING, kind=PODS, name="hpa-queue", **BOUNDS),
    KedaPolicy(**BOUNDS),
    KnativePolicy(target=10.0, **BOUNDS),
    RayServePolicy(upscale_delay_seconds=0.0, downscale_delay_seconds=0.0, **BOUNDS),
    AibrixApaPolicy(target=10.0, **BOUNDS),
    AibrixApaPolicy(target=10.0, as_coded=True, name="aibrix-apa-as-coded", **BOUNDS),
    AibrixKpaPolicy(target=10.0, **BOUNDS),
    AibrixKpaPolicy(target=10.0, as_coded=True, name="aibrix-kpa-as-coded", **BOUNDS),
    LlmDSloPolicy(**OBJECTIVE, **BOUNDS),
    WvaSaturationPolicy(**VARIANTS),
    WvaTokensPolicy(**VARIANTS),
    WvaQueueingPolicy(**OBJECTIVE, **VARIANTS),
    DynamoLoadPolicy(profile=PROFILE, **BOUNDS),
    DynamoSlaPolicy(profile=PROFILE, **OBJECTIVE, **BOUNDS),
    SkyServePolicy(target_requests_per_second=2.0, **BOUNDS),
]
NO_PROMISE = ("wva-v1", "aibrix-kpa-as-coded")
"""Laws that more waiting can make ask for less. Saturated replicas leave the mean of ``wva-v1``;
the code of ``aibrix-kpa`` keeps the count inside its tolerance and jumps to one replica's share
of the load above it (``test_aibrix_kpa_as_coded_answers_more_load_with_fewer``)."""
MONOTONE = [policy for policy in POLICIES if policy.name not in NO_PROMISE]
LOADS = st.fixed_dictionaries(
    {
        "ready": st.integers(1, 8),
        "starting": st.integers(0, 3),
        "held": st.integers(0, 300),
        "running": st.integers(0, 300),
        "rate": st.integers(0, 40),
        "metrics": st.sampled_from(["measured", "measured", "measured", "stale", "missing"]),
        "kv": st.floats(0, 1),
        "waiting": st.integers(0, 10),
    }
)
by_name = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def see(observe: Callable[..., Any], now: float, load: dict[str, Any]) -> Any:
    fields = dict(load)
    kv, waiting = fields.pop("kv"), fields.pop("waiting")
    replica = (kv, waiting, kv * PROFILE.kv_tokens, waiting * 1000.0)
    return observe(
        now=now,
        held_tokens=1000.0 * fields["held"],
        loads=(replica,) * fields["ready"],
        ttft=0.1 + 0.02 * fields["held"],
        tpot=0.04,
        **fields,
    )


@by_name
@quick
@given(sequence=st.lists(LOADS, min_size=1, max_size=6), step=st.sampled_from([15.0, 70.0, 400.0]))
def test_counts_stay_inside_the_bounds_and_states_survive(
    observe, policy, sequence, step: float
) -> None:
    state = policy.initial_state()
    adapter = TypeAdapter(type(state))
    for place, load in enumerate(sequence):
        observation = see(observe, place * step, load)
        recommendation, after = policy.recommend(observation, state)
        assert LEAST <= recommendation.desired_replicas <= MOST
        assert set(recommendation.replicas) == {GPU}
        assert recommendation.policy == policy.name
        # The same from what a restart would read back.
        restored = adapter.validate_json(adapter.dump_json(state))
        assert policy.recommend(observation, restored) == (recommendation, after)
        state = after


@by_name
@pytest.mark.parametrize("metrics", ["stale", "missing"])
def test_without_metrics_the_count_stays(observe, policy, metrics: str) -> None:
    if policy.name == "llm-d-slo":
        # As published; its own test shows both ways.
        policy = dataclasses.replace(policy, missing_is_idle=False)
    state = policy.initial_state()
    for now in (0.0, 30.0, 400.0, 1000.0):
        load = {"ready": 4, "held": 200, "running": 90, "kv": 0.9, "waiting": 9}
        observation = see(observe, now, {**load, "metrics": metrics})
        recommendation, state = policy.recommend(observation, state)
        assert recommendation.desired_replicas == 4


@pytest.mark.parametrize("policy", MONOTONE, ids=lambda policy: policy.name)
@quick
@given(load=LOADS, more=st.integers(1, 300))
def test_more_waiting_is_never_answered_by_fewer(observe, policy, load, more: int) -> None:
    load = {**load, "metrics": "measured"}
    counts = []
    for held in (load["held"], load["held"] + more):
        state = policy.initial_state()
        for now in (0.0, 400.0):
            recommendation, state = policy.recommend(
                see(observe, now, {**load, "held": held}), state
            )
        counts.append(recommendation.desired_replicas)
    assert counts[0] <= counts[1]
