"""NVIDIA Dynamo's planner with static targets: one replica more or fewer by KV load.

Source: ``dynamo/planner/{config,core}`` of ai-dynamo 1.6.1, aggregated serving:
every 5 s, KV memory in use or queued over what there is; ``throughput`` (the
default) goes up above 1.0 and down below 0.6, ``latency`` above 0.4 and below 0.1,
``load`` takes thresholds of the user. Nothing happens while a change is in flight,
and none goes if the rest would then be told to grow. No metrics, no change.
"""

from __future__ import annotations

import dataclasses

from trierarch.autoscaling.policies.one_target import OneTarget
from trierarch.autoscaling.policies.readings import loads
from trierarch.autoscaling.policies.replica_profile import ReplicaProfile
from trierarch.autoscaling.policy import Recommendation
from trierarch.autoscaling.signals import Observation

THROUGHPUT, LATENCY = (1.0, 0.6), (0.4, 0.1)
"""Thresholds up and down of the two ready-made targets."""


@dataclasses.dataclass(frozen=True, slots=True)
class DynamoLoadState:
    """The count that is set and the time of the first call; None before it."""

    replicas: int | None = None
    began_seconds: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DynamoLoadPolicy(OneTarget):
    """KV load of every worker against two thresholds.

    Attributes:
        profile: Of one replica; its KV memory is what loads are compared with.
        up_ratio: One more if any worker is above.
        down_ratio: One fewer if all are below.
        settle_seconds: None fewer this soon after the first call: a run begins empty.
        name: For tables.
        interval_seconds: Between two decisions.
    """

    profile: ReplicaProfile
    up_ratio: float = THROUGHPUT[0]
    down_ratio: float = THROUGHPUT[1]
    settle_seconds: float = 180.0
    name: str = "dynamo"
    interval_seconds: float | None = 5.0

    def __post_init__(self) -> None:
        OneTarget.__post_init__(self)
        if not 0 < self.down_ratio <= self.up_ratio:
            raise ValueError("down_ratio must be positive and not above up_ratio")

    def initial_state(self) -> DynamoLoadState:
        """Return a state that takes over the count it finds."""
        return DynamoLoadState()

    def recommend(
        self, observation: Observation, state: DynamoLoadState
    ) -> tuple[Recommendation, DynamoLoadState]:
        """Return the count plus one, minus one, or as it is."""
        current = self.bounded(observation.current if state.replicas is None else state.replicas)
        workers, now = loads(observation), observation.now_unix_seconds
        began = now if state.began_seconds is None else state.began_seconds
        desired, reason = current, "Steady"
        if workers is None:
            reason = "MetricsMissing"
        elif observation.ready != current:
            reason = "InFlight"
        else:
            ratios = [
                (worker.kv_used_tokens + worker.waiting_tokens) / self.profile.kv_tokens
                for worker in workers
            ]
            step = self.step(tuple(ratios))
            if now - began < self.settle_seconds:
                step = max(0, step)
            desired = self.bounded(current + step)
            reason = {1: "LoadHigh", -1: "LoadLow"}.get(step, reason)
        recommendation = self.recommendation(observation, desired, policy=self.name, reason=reason)
        return recommendation, DynamoLoadState(desired, began)

    def step(self, ratios: tuple[float, ...]) -> int:
        """Return 1, 0 or -1 for the workers' loads."""
        highest, workers = max(ratios), len(ratios)
        if highest > self.up_ratio:
            return 1
        if highest >= self.down_ratio or workers < 2:
            return 0
        return 0 if highest * workers / (workers - 1) >= self.up_ratio else -1
