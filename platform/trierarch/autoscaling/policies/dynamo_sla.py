"""NVIDIA Dynamo's planner with latency targets: a forecast as floor, latency above it.

Source: ``dynamo/planner/core/{throughput_scaling,load_scaling}.py`` of ai-dynamo
1.6.1, aggregated serving: every 180 s a floor from the predicted rate over what one
engine can do inside the objectives, at most 8 replicas of change; every 5 s one more
if every worker's estimated TTFT or ITL is above its objective, one fewer if the rest
would keep 80 % of both. The performance model is the replica's profile. No metrics,
no change.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.autoscaling.policies.dynamo_forecasts import CONSTANT, KALMAN, predict_next
from trierarch.autoscaling.policies.one_target import OneTarget
from trierarch.autoscaling.policies.readings import arrival_rate, lengths, loads
from trierarch.autoscaling.policies.replica_profile import ReplicaProfile, largest_batch
from trierarch.autoscaling.policies.series import Series, extend, mean, since
from trierarch.autoscaling.policy import Recommendation
from trierarch.autoscaling.signals import Observation, ReplicaLoad

KEPT_INTERVALS = 50


@dataclasses.dataclass(frozen=True, slots=True)
class DynamoSlaState:
    """The count, the floor, and the rates it is predicted from."""

    replicas: int | None = None
    floor: int = 0
    planned_seconds: float | None = None
    arrivals: Series = ()
    rates: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DynamoSlaPolicy(OneTarget):
    """Both clocks of the planner.

    Attributes:
        profile: Of one replica.
        ttft_seconds: Objective.
        tpot_seconds: Objective, ITL there.
        plan_seconds: Between two floors.
        predictor: ``kalman`` or ``constant``.
        most_change: Of one floor.
        down_sensitivity_ratio: Share of the objectives that the rest has to keep.
        name: For tables.
        interval_seconds: Between two looks at the load.
    """

    profile: ReplicaProfile
    ttft_seconds: float
    tpot_seconds: float
    plan_seconds: float = 180.0
    predictor: str = KALMAN
    most_change: int = 8
    down_sensitivity_ratio: float = 0.8
    name: str = "dynamo-sla"
    interval_seconds: float | None = 5.0

    def __post_init__(self) -> None:
        OneTarget.__post_init__(self)
        if self.predictor not in (CONSTANT, KALMAN):
            raise ValueError(f"predictor must be {CONSTANT} or {KALMAN}, got {self.predictor!r}")
        if not (self.ttft_seconds > 0 and self.tpot_seconds > 0):
            raise ValueError("ttft_seconds and tpot_seconds must be positive")

    def initial_state(self) -> DynamoSlaState:
        """Return a state that takes over the count it finds."""
        return DynamoSlaState()

    def recommend(
        self, observation: Observation, state: DynamoSlaState
    ) -> tuple[Recommendation, DynamoSlaState]:
        """Return the count of the load, not below the floor of the forecast."""
        current = self.bounded(observation.current if state.replicas is None else state.replicas)
        shape = lengths(observation)
        state = self._plan(observation, state, current, shape)
        workers = loads(observation)
        desired, reason = current, "Steady"
        if workers is None or shape is None:
            reason = "MetricsMissing"
        elif observation.ready != current:
            reason = "InFlight"
        else:
            step = self.step(workers, *shape)
            desired = current + step
            reason = {1: "LatencyHigh", -1: "LatencyLow"}.get(step, reason)
        if desired < state.floor:
            desired, reason = state.floor, "Forecast"
        desired = self.bounded(desired)
        recommendation = self.recommendation(
            observation,
            desired,
            policy=self.name,
            reason=reason,
            message=f"the forecast asks for {state.floor}",
        )
        return recommendation, dataclasses.replace(state, replicas=desired)

    def engine_rate(self, inputs: float, outputs: float) -> float:
        """Return the most requests per second of one engine inside the objectives."""

        def fits(batch: int) -> bool:
            return (
                self.profile.prefill_seconds(batch, inputs, outputs) <= self.ttft_seconds
                and self.profile.decode_seconds(batch, inputs, outputs) <= self.tpot_seconds
            )

        batch = largest_batch(self.profile.seats(inputs, outputs), fits)
        return self.profile.service_rate(max(1, batch), inputs, outputs)

    def step(self, workers: tuple[ReplicaLoad, ...], inputs: float, outputs: float) -> int:
        """Return 1, 0 or -1 for the workers' loads and mean lengths."""
        if all(self._ttft(w, inputs) > self.ttft_seconds for w in workers) or all(
            self._tpot(w, 1.0, inputs, outputs) > self.tpot_seconds for w in workers
        ):
            return 1
        if len(workers) < 2:
            return 0
        grown = len(workers) / (len(workers) - 1)
        own = self.profile.alpha_seconds + self.profile.beta_seconds * inputs
        share = self.down_sensitivity_ratio
        is_safe = all(
            worker.waiting_tokens * self.profile.beta_seconds * grown
            < share * (self.ttft_seconds - own)
            and self._tpot(worker, grown, inputs, outputs) < share * self.tpot_seconds
            and worker.kv_used_tokens * grown < self.profile.kv_tokens
            for worker in workers
        )
        return -1 if is_safe else 0

    def _ttft(self, worker: ReplicaLoad, inputs: float) -> float:
        tokens = worker.waiting_tokens + inputs
        return self.profile.alpha_seconds + self.profile.beta_seconds * tokens

    def _tpot(self, worker: ReplicaLoad, grown: float, inputs: float, outputs: float) -> float:
        running = worker.running_requests * grown
        computed = self.profile.beta_seconds * (inputs + outputs) / (outputs + 1)
        seconds = self.profile.alpha_seconds + running * (self.profile.request_seconds + computed)
        return seconds + self.profile.gamma_seconds * worker.kv_used_tokens * grown

    def _plan(
        self,
        observation: Observation,
        state: DynamoSlaState,
        current: int,
        shape: tuple[float, float] | None,
    ) -> DynamoSlaState:
        now, rate = observation.now_unix_seconds, arrival_rate(observation)
        if rate is None:
            return state
        arrivals = extend(state.arrivals, rate, keep_seconds=self.plan_seconds)
        state = dataclasses.replace(state, arrivals=arrivals)
        if state.planned_seconds is None:
            # Nothing is known of the load before the first interval has passed.
            return dataclasses.replace(state, floor=current, planned_seconds=now)
        if now - state.planned_seconds < self.plan_seconds or shape is None:
            return state
        observed = mean(since(arrivals, self.plan_seconds, arrivals[-1].at_seconds))
        rates = (*state.rates, observed * self.plan_seconds)[-KEPT_INTERVALS:]
        expected = predict_next(rates, self.predictor) / self.plan_seconds
        floor = math.ceil(expected / self.engine_rate(*shape))
        floor = min(current + self.most_change, max(current - self.most_change, floor))
        return dataclasses.replace(state, floor=floor, planned_seconds=now, rates=rates)
