"""What a replica serves within its latency targets.

A rank that holds b sequences gives all of them one token in S(b), and computes a new
prompt in P whenever one ends. One request therefore takes P + O S(b) / b of the rank's
time, and its own tokens come every S(b) + (b - 1) P / O: the prompts of the others run
in between. The largest b that memory and targets allow is the capacity, because more
sequences per step always share the reading of weights among more tokens.

Waiting for a free place is not part of it: that is the autoscaler's to keep short.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from enum import StrEnum

from trierarch.hardware.calibration import AGGREGATED_EFFICIENCY
from trierarch.hardware.layouts import (
    cache_bytes_per_accelerator,
    cache_space_bytes,
    weight_bytes_per_accelerator,
)
from trierarch.hardware.roofline import (
    PREFILL_CHUNK_TOKENS,
    Machine,
    decode_step,
    expert_seconds,
    prefill,
)

MOST_SEQUENCES_PER_RANK = 1024
"""Places in one rank's batch; vLLM's default on large accelerators."""


UNSUPPORTED: Mapping[str, frozenset[str]] = {"deepseek_v4": frozenset({"A100", "MI300X"})}
"""Accelerators without kernels for an architecture: vLLM's recipes of August 2026 leave out
MI300X, and A100 has a community's backport only."""


class InfeasibleReason(StrEnum):
    """Why a layout cannot serve."""

    ENGINE_DOES_NOT_SUPPORT = "EngineDoesNotSupport"
    TENSOR_DOES_NOT_DIVIDE = "TensorDoesNotDivide"
    TOO_FEW_EXPERTS = "TooFewExperts"
    WEIGHTS_DO_NOT_FIT = "WeightsDoNotFit"
    CONTEXT_DOES_NOT_FIT = "ContextDoesNotFit"
    TTFT_TOO_LONG = "TTFTTooLong"
    TPOT_TOO_LONG = "TPOTTooLong"


class Bound(StrEnum):
    """What keeps a batch from being larger."""

    CACHE_MEMORY = "CacheMemory"
    SEATS = "Seats"
    TTFT = "TTFT"
    TPOT = "TPOT"


@dataclasses.dataclass(frozen=True, slots=True)
class Workload:
    """What is asked.

    Attributes:
        input_tokens: Mean prompt.
        output_tokens: Mean answer.
        context_tokens: Longest sequence that must fit; at least a mean one.

    Raises:
        ValueError: If a length is not positive, or the mean request is longer than the longest.
    """

    input_tokens: int
    output_tokens: int
    context_tokens: int

    def __post_init__(self) -> None:
        if self.input_tokens < 1 or self.output_tokens < 1:
            raise ValueError("a request needs at least one input and one output token")
        if self.context_tokens < self.input_tokens + self.output_tokens:
            raise ValueError(
                f"{self.input_tokens} input and {self.output_tokens} output tokens"
                f" are more than a context of {self.context_tokens}"
            )

    @property
    def mean_context_tokens(self) -> float:
        """Length of a sequence half way through its answer."""
        return self.input_tokens + self.output_tokens / 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class LatencyTargets:
    """Upper bounds; None promises nothing."""

    ttft_seconds: float | None = None
    tpot_seconds: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Capacity:
    """What one replica serves at its limit.

    Attributes:
        sequences_per_rank: Batch of each data-parallel rank.
        kv_capacity_tokens: Cache of a replica, in tokens of mean requests.
        bound: What limits the batch.
    """

    sequences_per_rank: int
    max_running_requests: int
    kv_capacity_tokens: int
    ttft_seconds: float
    tpot_seconds: float
    requests_per_second: float
    input_tokens_per_second: float
    output_tokens_per_second: float
    bound: Bound

    @property
    def tokens_per_second(self) -> float:
        """Input plus output."""
        return self.input_tokens_per_second + self.output_tokens_per_second


@dataclasses.dataclass(frozen=True, slots=True)
class Infeasible:
    """Why not, for a program and for a person."""

    reason: InfeasibleReason
    message: str


def predict_capacity(
    machine: Machine,
    workload: Workload,
    targets: LatencyTargets,
    *,
    efficiency: float = AGGREGATED_EFFICIENCY,
    time_factor: float = 1.0,
    interleaves_prefill: bool = True,
    most_sequences: int = MOST_SEQUENCES_PER_RANK,
) -> Capacity | Infeasible:
    """Return what a replica serves, or why it serves nothing.

    Args:
        machine: Model, accelerator and layout.
        workload: Lengths.
        targets: What latency may be at most.
        efficiency: Of a system against its kernels.
        time_factor: Learned for this deployment; 1 if nothing was learned.
        interleaves_prefill: Whether prompts are computed by the same ranks as answers.
        most_sequences: Places in one rank's batch.
    """
    misfit = _misfit(machine, workload)
    if misfit is not None:
        return misfit
    slowdown = time_factor / efficiency
    mean_tokens = workload.input_tokens + workload.output_tokens
    space = cache_space_bytes(
        machine.architecture, machine.accelerator, machine.layout, machine.calibration
    )
    per_sequence = cache_bytes_per_accelerator(
        machine.architecture, machine.layout, mean_tokens, machine.cache
    )
    cached_sequences = space / per_sequence
    prompt_seconds = prefill(machine, workload.input_tokens).seconds * slowdown
    chunks = math.ceil(workload.input_tokens / PREFILL_CHUNK_TOKENS)

    def step(sequences: int) -> float:
        return decode_step(machine, sequences, workload.mean_context_tokens).seconds * slowdown

    def ttft(sequences: int) -> float:
        shared = step(sequences) if interleaves_prefill else step(1)
        return prompt_seconds + chunks * shared

    def tpot(sequences: int) -> float:
        others = (sequences - 1) * prompt_seconds / workload.output_tokens
        return step(sequences) + (others if interleaves_prefill else 0.0)

    late = _too_slow(ttft(1), tpot(1), targets)
    if late is not None:
        return late
    limits = {
        Bound.CACHE_MEMORY: math.floor(cached_sequences),
        Bound.SEATS: most_sequences,
        Bound.TTFT: largest_batch(ttft, targets.ttft_seconds, most_sequences),
        Bound.TPOT: largest_batch(tpot, targets.tpot_seconds, most_sequences),
    }
    bound = min(limits, key=lambda kind: limits[kind])
    sequences = max(1, limits[bound])
    ranks = machine.layout.data
    rate = ranks / (prompt_seconds + workload.output_tokens * step(sequences) / sequences)
    return Capacity(
        sequences_per_rank=sequences,
        max_running_requests=sequences * ranks,
        kv_capacity_tokens=int(cached_sequences * mean_tokens * ranks),
        ttft_seconds=ttft(sequences),
        tpot_seconds=tpot(sequences),
        requests_per_second=rate,
        input_tokens_per_second=rate * workload.input_tokens,
        output_tokens_per_second=rate * workload.output_tokens,
        bound=bound,
    )


def largest_batch(
    seconds: Callable[[int], float], limit_seconds: float | None, most_sequences: int
) -> int:
    """Return the largest batch within a limit on a time that grows with it; at least 1."""
    if limit_seconds is None or seconds(most_sequences) <= limit_seconds:
        return most_sequences
    low, high = 1, most_sequences
    while high - low > 1:
        middle = (low + high) // 2
        if seconds(middle) <= limit_seconds:
            low = middle
        else:
            high = middle
    return low


def _gigabytes(value: float) -> str:
    return f"{value / 1e9:.1f} GB"


def _misfit(machine: Machine, workload: Workload) -> Infeasible | None:
    """Return why a layout is impossible whatever the load."""
    model, layout = machine.architecture, machine.layout
    if machine.accelerator.name in UNSUPPORTED.get(model.kind, frozenset()):
        return Infeasible(
            InfeasibleReason.ENGINE_DOES_NOT_SUPPORT,
            f"vLLM has no kernels of {model.kind} for {machine.accelerator.name}",
        )
    if model.heads % layout.tensor:
        return Infeasible(
            InfeasibleReason.TENSOR_DOES_NOT_DIVIDE,
            f"{model.heads} attention heads cannot be divided by {layout.tensor}",
        )
    if layout.expert and model.experts and model.experts.routed < layout.accelerators:
        return Infeasible(
            InfeasibleReason.TOO_FEW_EXPERTS,
            f"{model.experts.routed} experts for {layout.accelerators} accelerators",
        )
    space = cache_space_bytes(model, machine.accelerator, layout, machine.calibration)
    if space <= 0:
        weights = weight_bytes_per_accelerator(model, layout)
        usable = space + weights
        return Infeasible(
            InfeasibleReason.WEIGHTS_DO_NOT_FIT,
            f"weights take {_gigabytes(weights)} of {_gigabytes(usable)} usable per accelerator",
        )
    needed = cache_bytes_per_accelerator(model, layout, workload.context_tokens, machine.cache)
    if needed > space:
        return Infeasible(
            InfeasibleReason.CONTEXT_DOES_NOT_FIT,
            f"one sequence of {workload.context_tokens} tokens takes {_gigabytes(needed)} of"
            f" {_gigabytes(space)} left per accelerator",
        )
    return None


def _too_slow(
    ttft_seconds: float, tpot_seconds: float, targets: LatencyTargets
) -> Infeasible | None:
    """Return the target that even a single request misses."""
    if targets.ttft_seconds is not None and ttft_seconds > targets.ttft_seconds:
        return Infeasible(
            InfeasibleReason.TTFT_TOO_LONG,
            f"the first token of a single request takes {ttft_seconds:.3g} s,"
            f" allowed are {targets.ttft_seconds:.3g} s",
        )
    if targets.tpot_seconds is not None and tpot_seconds > targets.tpot_seconds:
        return Infeasible(
            InfeasibleReason.TPOT_TOO_LONG,
            f"a token of a single request takes {tpot_seconds * 1e3:.3g} ms,"
            f" allowed are {targets.tpot_seconds * 1e3:.3g} ms",
        )
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class PredictedService:
    """The belief about speed that an autoscaler starts from, in the fields it asks for.

    A step of n requests of a replica is predicted as step + n (decode token + context
    token x context) + expert x share of experts that n tokens touch. Times per token are
    those of the whole replica: its ranks work side by side.
    """

    step_seconds: float
    expert_seconds: float
    expert_share_ratio: float
    prefill_token_seconds: float
    decode_token_seconds: float
    context_token_seconds: float


def predict_service(
    machine: Machine,
    workload: Workload,
    *,
    sequences_per_rank: int,
    efficiency: float = AGGREGATED_EFFICIENCY,
    time_factor: float = 1.0,
) -> PredictedService:
    """Return the straight line through the predicted steps of an empty and a full replica.

    Args:
        machine: Model, accelerator and layout.
        workload: Lengths.
        sequences_per_rank: Batch that counts as full, for example a capacity's.
        efficiency: Of a system against its kernels.
        time_factor: Learned for this deployment.
    """
    slowdown = time_factor / efficiency
    ranks = machine.layout.data
    context = workload.mean_context_tokens
    full = max(2.0, float(sequences_per_rank))

    def rest(sequences: float, context_tokens: float) -> float:
        parts = decode_step(machine, sequences, context_tokens)
        return parts.seconds - parts.expert_read_seconds

    slope = (rest(full, context) - rest(1.0 / ranks, context)) / (full * ranks - 1.0)
    by_context = (rest(full, 2.0 * context) - rest(full, context)) / (context * full * ranks)
    # Where an exchange hides behind computing, more work can cost nothing, but never less.
    slope = max(0.0, slope)
    by_context = max(0.0, min(by_context, slope / context))
    experts = machine.architecture.experts
    every_expert, share = 0.0, 0.0
    if experts is not None:
        share = experts.active / experts.routed
        every_expert = expert_seconds(machine, 1e9)[0]
    prompt = prefill(machine, workload.input_tokens).seconds
    return PredictedService(
        step_seconds=max(0.0, rest(1.0 / ranks, context) - slope) * slowdown,
        expert_seconds=every_expert * slowdown,
        expert_share_ratio=share,
        prefill_token_seconds=prompt / (workload.input_tokens * ranks) * slowdown,
        decode_token_seconds=max(0.0, slope - by_context * context) * slowdown,
        context_token_seconds=by_context * slowdown,
    )
