"""One run as the numbers people compare.

Latency attainment counts every request that arrived and is not flex: a lost or
unfinished one has missed. A flex request has met its objective if it ended
before its deadline. Tokens are input plus output; SLO tokens are those of
requests that met their objective.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np

from trierarch.core.quantities import TOKENS_PER_MILLION
from trierarch.simulation.engine.records import COMPLETED, LOST
from trierarch.simulation.fleet.ledger import cost_usd, replica_hours
from trierarch.simulation.fleet.simulator import RunResult
from trierarch.simulation.traces.trace import Tier

REVERSAL_WINDOW_SECONDS = 900.0
"""A change is a reversal if it undoes one made less than this ago: about the time in which a
replica that was started could first have been of use for as long as it took to start."""


@dataclasses.dataclass(frozen=True, slots=True)
class Attainment:
    """Shares of requests that met the objective."""

    ttft: float
    tpot: float
    both: float


@dataclasses.dataclass(frozen=True, slots=True)
class RunSummary:
    """The figures of one run.

    Attributes:
        policy: Who decided.
        cost_usd: All replicas from provisioning to release.
        usd_per_million_tokens: Per input and output token of completed requests; None if none.
        usd_per_million_slo_tokens: Per token of requests that met their objective.
        slo_attainment: Of the requests that are not flex.
        flex_attainment: Share of flex requests done by their deadline; None without any.
        replica_hours: Integral of the number of replicas.
        scale_events: Decisions that changed the number of replicas.
        reversals: Of those, how many undid a recent one.
        max_queue: Most interactive requests that waited at the gateway at one time.
        lost_requests: Refused or timed out.
        unfinished_requests: Neither completed nor lost when the simulation ended.
        requests: All that arrived.
        slo_tokens: Tokens of requests that met their objective.
        seed: Of the run.
    """

    policy: str
    cost_usd: float
    usd_per_million_tokens: float | None
    usd_per_million_slo_tokens: float | None
    slo_attainment: Attainment
    flex_attainment: float | None
    replica_hours: float
    scale_events: int
    reversals: int
    max_queue: int
    lost_requests: int
    unfinished_requests: int
    requests: int
    slo_tokens: int
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the names of the command's contract."""
        row = dataclasses.asdict(self)
        if self.flex_attainment is None:
            del row["flex_attainment"]
        return row


def request_latencies(result: RunResult) -> tuple[np.ndarray, np.ndarray]:
    """Return TTFT and TPOT in seconds per request; NaN where it never happened.

    A request of one output token has no TPOT; it counts as 0.
    """
    requests = result.requests
    ttft = requests["first_token_seconds"] - requests["arrival_seconds"]
    outputs = requests["output_tokens"]
    decode = requests["finish_seconds"] - requests["first_token_seconds"]
    tpot = np.where(
        outputs > 1, decode / np.maximum(outputs - 1, 1), np.where(decode >= 0, 0.0, np.nan)
    )
    return ttft, tpot


def met_objective(result: RunResult) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return per request whether TTFT was met, TPOT was met, and its objective as a whole."""
    requests = result.requests
    objective = result.setup.objective
    ttft, tpot = request_latencies(result)
    completed = requests["status"] == COMPLETED
    with np.errstate(invalid="ignore"):
        ttft_met = ttft <= objective.ttft_seconds
        tpot_met = completed & (tpot <= objective.tpot_seconds)
        in_time = completed & (requests["finish_seconds"] <= requests["deadline_seconds"])
    is_flex = requests["tier"] == Tier.FLEX
    return ttft_met, tpot_met, np.where(is_flex, in_time, ttft_met & tpot_met)


def summarize(result: RunResult) -> RunSummary:
    """Return the figures of a run."""
    requests = result.requests
    ttft_met, tpot_met, met = met_objective(result)
    is_flex = requests["tier"] == Tier.FLEX
    completed = requests["status"] == COMPLETED
    tokens = requests["input_tokens"] + requests["output_tokens"]
    served_tokens = int(tokens[completed].sum())
    slo_tokens = int(tokens[met].sum())
    cost = cost_usd(result.setup, result.lives)
    events, reversals = scale_events(result)
    interactive = ~is_flex
    lost = int((requests["status"] == LOST).sum())
    return RunSummary(
        policy=result.policy,
        cost_usd=cost,
        usd_per_million_tokens=_per_million(cost, served_tokens),
        usd_per_million_slo_tokens=_per_million(cost, slo_tokens),
        slo_attainment=Attainment(
            ttft=_share(ttft_met[interactive]),
            tpot=_share(tpot_met[interactive]),
            both=_share(met[interactive]),
        ),
        flex_attainment=_share(met[is_flex]) if is_flex.any() else None,
        replica_hours=replica_hours(result.lives),
        scale_events=events,
        reversals=reversals,
        max_queue=result.most_queued,
        lost_requests=lost,
        unfinished_requests=int(len(requests) - completed.sum() - lost),
        requests=len(requests),
        slo_tokens=slo_tokens,
        seed=result.seed,
    )


def scale_events(result: RunResult) -> tuple[int, int]:
    """Return how many decisions changed the fleet, and how many of them undid a recent one."""
    changes = [(moment.at_seconds, moment.change) for moment in result.moments if moment.change]
    reversals = sum(
        1
        for (before_at, before), (at, change) in itertools.pairwise(changes)
        if before * change < 0 and at - before_at < REVERSAL_WINDOW_SECONDS
    )
    return len(changes), reversals


def _share(met: np.ndarray) -> float:
    return float(met.mean()) if len(met) else 1.0


def _per_million(cost: float, tokens: int) -> float | None:
    return cost / (tokens / TOKENS_PER_MILLION) if tokens else None
