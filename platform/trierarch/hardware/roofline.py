"""Step times from bytes and operations.

Reading weights and computing with them are added, not the larger one taken: measured
expert and projection kernels follow the sum, because a step first waits for weights and
then computes on what has arrived. Only inside the attention core, one long kernel, the
two overlap.
"""

from __future__ import annotations

import dataclasses
import math

from trierarch.hardware.accelerators import Accelerator
from trierarch.hardware.architecture import ModelArchitecture
from trierarch.hardware.attention import Attention
from trierarch.hardware.calibration import KERNELS, Calibration
from trierarch.hardware.formats import Arithmetic, KvCacheFormat, WeightFormat
from trierarch.hardware.layouts import Layout

DISPATCH_BYTES_PER_VALUE = 1
"""Tokens travel to experts as FP8."""

COMBINE_BYTES_PER_VALUE = 2
"""Results come back as BF16."""

PREFILL_CHUNK_TOKENS = 8192
"""Prompt tokens that one rank computes in one step; vLLM's default on large accelerators."""


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """What a step runs on.

    Attributes:
        hides_exchange: Whether two half batches take turns, so that one exchanges tokens
            while the other computes.
    """

    architecture: ModelArchitecture
    accelerator: Accelerator
    layout: Layout
    cache: KvCacheFormat
    calibration: Calibration = KERNELS
    hides_exchange: bool = False

    @property
    def memory_rate(self) -> float:
        """Bytes per second that memory reaches."""
        return self.accelerator.memory_bytes_per_second * self.calibration.memory_efficiency

    def compute_rate(self, form: WeightFormat) -> float:
        """Operations per second that matrices of a format reach."""
        return self.accelerator.flops_for(form.arithmetic) * self.calibration.compute_efficiency

    def core_rate(self, kind: Attention) -> float:
        """Operations per second that an attention core reaches."""
        return self.accelerator.flops_for(Arithmetic.BF16) * kind.core_efficiency

    def matrix_seconds(self, parameters: float, tokens: float, form: WeightFormat) -> float:
        """Return the time to read matrices once and pass tokens through them."""
        read = form.bytes_of(parameters) / self.memory_rate
        return read + 2.0 * parameters * tokens / self.compute_rate(form)

    @property
    def exchanges_tokens(self) -> bool:
        """Whether tokens leave their rank to reach experts."""
        return self.layout.data > 1 and self.architecture.experts is not None


@dataclasses.dataclass(frozen=True, slots=True)
class StepParts:
    """Where the time of a step goes.

    Attributes:
        expert_read_seconds: Reading the distinct experts of the batch.
        expert_compute_seconds: Computing in them, on the busiest rank.
        exchange_seconds: All-to-all of tokens, and tensor-parallel sums.
        other_seconds: Dense layers, output projection, kernel starts, host.
        hidden_seconds: Part of the exchange that runs behind computing.
    """

    attention_seconds: float
    expert_read_seconds: float
    expert_compute_seconds: float
    exchange_seconds: float
    other_seconds: float
    hidden_seconds: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return (
            self.attention_seconds
            + self.expert_read_seconds
            + self.expert_compute_seconds
            + self.exchange_seconds
            + self.other_seconds
            - self.hidden_seconds
        )


def distinct_experts(routed: int, active: int, tokens: float) -> float:
    """Return how many experts of a layer a batch touches on average.

    It saturates: beyond a few times ``routed / active`` tokens every expert is read.
    """
    if tokens <= 0 or active <= 0:
        return 0.0
    if active >= routed:
        return float(routed)
    return -routed * math.expm1(tokens * math.log1p(-active / routed))


def decode_step(machine: Machine, sequences_per_rank: float, context_tokens: float) -> StepParts:
    """Return the time in which every sequence of a replica gets one token.

    Args:
        machine: What it runs on.
        sequences_per_rank: Sequences on each data-parallel rank.
        context_tokens: Mean length of a sequence so far.
    """
    attention = 0.0
    for kind, count in machine.architecture.attention:
        core_flops = kind.decode_flops(context_tokens) / machine.layout.tensor
        cached = kind.read_bytes(context_tokens, machine.cache)
        read = cached / kind.cache_shards(machine.layout.tensor) / machine.memory_rate
        index = kind.index_flops(context_tokens) / machine.compute_rate(
            machine.architecture.dense_format
        )
        core = max(read, core_flops / machine.core_rate(kind)) + index
        attention += count * (
            _projection_seconds(machine, kind, sequences_per_rank) + sequences_per_rank * core
        )
    return _finish(
        machine,
        attention,
        tokens_per_rank=sequences_per_rank,
        output_tokens=sequences_per_rank,
        exchange=_small_exchange_seconds(machine, sequences_per_rank),
        host_seconds=machine.calibration.step_seconds,
    )


def prefill(machine: Machine, input_tokens: float, *, prompts: int = 1) -> StepParts:
    """Return the time in which every data-parallel rank computes prompts of its own.

    Args:
        machine: What it runs on.
        input_tokens: Length of each prompt.
        prompts: How many a rank computes together.
    """
    tokens = input_tokens * prompts
    chunks = max(1.0, math.ceil(tokens / PREFILL_CHUNK_TOKENS))
    chunk_tokens = tokens / chunks
    attention = 0.0
    for kind, count in machine.architecture.attention:
        core = kind.prefill_flops(input_tokens) / machine.layout.tensor / machine.core_rate(kind)
        index_flops = kind.index_flops(input_tokens / 2.0) * input_tokens
        core += index_flops / machine.compute_rate(machine.architecture.dense_format)
        projections = _projection_seconds(machine, kind, chunk_tokens)
        attention += count * (chunks * projections + prompts * core)
    per_chunk = _finish(
        machine,
        0.0,
        tokens_per_rank=chunk_tokens,
        output_tokens=max(1.0, prompts / chunks),
        exchange=_bulk_exchange_seconds(machine, chunk_tokens),
        host_seconds=machine.calibration.step_seconds,
        other_busy_seconds=attention / chunks,
    )
    return StepParts(
        attention,
        per_chunk.expert_read_seconds * chunks,
        per_chunk.expert_compute_seconds * chunks,
        per_chunk.exchange_seconds * chunks,
        per_chunk.other_seconds * chunks,
        per_chunk.hidden_seconds * chunks,
    )


def _projection_seconds(machine: Machine, kind: Attention, tokens: float) -> float:
    parameters = kind.replicated_parameters + kind.sharded_parameters / machine.layout.tensor
    start = kind.operations * machine.calibration.operation_seconds
    return start + machine.matrix_seconds(parameters, tokens, machine.architecture.dense_format)


DENSE_OPERATIONS = 4
"""Kernels of an ordinary feed-forward part."""

EXPERT_OPERATIONS = 10
"""Kernels of a mixture: route, sort, three products, gather; fits measured layers."""


def _finish(
    machine: Machine,
    attention: float,
    *,
    tokens_per_rank: float,
    output_tokens: float,
    exchange: float,
    host_seconds: float,
    other_busy_seconds: float = 0.0,
) -> StepParts:
    """Add everything but attention to a step."""
    model, layout = machine.architecture, machine.layout
    start = machine.calibration.operation_seconds
    sharded = model.feed_forward_parameters / layout.tensor
    other = host_seconds + machine.matrix_seconds(sharded, tokens_per_rank, model.dense_format)
    other += model.dense_layers * DENSE_OPERATIONS * start
    head = model.hidden * model.vocabulary / layout.tensor
    other += machine.matrix_seconds(head, output_tokens, model.embedding_format)
    read, compute = expert_seconds(machine, tokens_per_rank)
    if model.experts is not None:
        other += model.experts.layers * EXPERT_OPERATIONS * start
    sums = _all_reduce_seconds(machine, tokens_per_rank)
    busy = attention + other_busy_seconds + read + compute + other
    hidden = min(exchange, busy - host_seconds) if machine.hides_exchange else 0.0
    return StepParts(attention, read, compute, exchange + sums, other, hidden)


def expert_seconds(machine: Machine, tokens_per_rank: float) -> tuple[float, float]:
    """Return the time to read routed experts and to compute in them, all layers."""
    model, layout = machine.architecture, machine.layout
    experts = model.experts
    if experts is None:
        return 0.0, 0.0
    tokens = tokens_per_rank * layout.data
    touched = distinct_experts(experts.routed, experts.active, tokens) / layout.accelerators
    form = model.expert_format
    read = touched * form.bytes_of(model.expert_parameters) / machine.memory_rate
    pairs = tokens * experts.active / layout.accelerators
    # Tensor slices of every expert are equally busy; whole experts are not.
    skew = machine.calibration.expert_skew if layout.expert and layout.accelerators > 1 else 1.0
    compute = pairs * 2.0 * model.expert_parameters * skew / machine.compute_rate(form)
    return experts.layers * read, experts.layers * compute


def _all_reduce_seconds(machine: Machine, tokens: float) -> float:
    """Return the tensor-parallel sums of a step: after attention, and after a local mixture."""
    tensor = machine.layout.tensor
    if tensor == 1:
        return 0.0
    model = machine.architecture
    sums = model.layers + model.dense_layers
    if model.experts is not None and not machine.exchanges_tokens:
        sums += model.experts.layers
    payload = 2.0 * (tensor - 1) / tensor * tokens * model.hidden * COMBINE_BYTES_PER_VALUE
    rate = machine.accelerator.scale_up_bytes_per_second * machine.calibration.scale_up_efficiency
    return sums * (machine.calibration.all_reduce_seconds + payload / rate)


def _domains(machine: Machine) -> float:
    """Return over how many scale-up domains a replica is spread."""
    return max(1.0, machine.layout.accelerators / machine.accelerator.scale_up_accelerators)


def all_to_all_bytes_per_token(architecture: ModelArchitecture) -> float:
    """Return what one token sends and receives in all layers, if every expert is elsewhere."""
    experts = architecture.experts
    if experts is None:
        return 0.0
    each = DISPATCH_BYTES_PER_VALUE + COMBINE_BYTES_PER_VALUE
    return float(experts.layers * experts.active * architecture.hidden * each)


def _small_exchange_seconds(machine: Machine, tokens_per_rank: float) -> float:
    """Return dispatch and combine of a decode step: one message per token and expert."""
    experts = machine.architecture.experts
    if experts is None or not machine.exchanges_tokens:
        return 0.0
    tokens = tokens_per_rank / machine.layout.tensor
    total = 0.0
    for width in (DISPATCH_BYTES_PER_VALUE, COMBINE_BYTES_PER_VALUE):
        sent = tokens * experts.active * machine.architecture.hidden * width
        total += _message_seconds(machine, sent)
    return experts.layers * total


def _message_seconds(machine: Machine, sent_bytes: float) -> float:
    """Return the time of one small exchange whose targets are spread evenly."""
    calibration, accelerator = machine.calibration, machine.accelerator
    ranks, domains = machine.layout.accelerators, _domains(machine)
    outside = sent_bytes * (1.0 - 1.0 / domains)
    inside = sent_bytes / domains * (1.0 - domains / ranks)
    near = accelerator.scale_up_bytes_per_second * calibration.scale_up_efficiency
    far = accelerator.network_bytes_per_second * calibration.network_efficiency
    start = calibration.exchange_seconds
    if domains > 1:
        start += calibration.network_seconds
    return start + max(inside / near, outside / far)


def _bulk_exchange_seconds(machine: Machine, tokens_per_rank: float) -> float:
    """Return dispatch and combine of a prefill step: a token goes once to each target."""
    experts = machine.architecture.experts
    if experts is None or not machine.exchanges_tokens:
        return 0.0
    calibration, accelerator = machine.calibration, machine.accelerator
    ranks, domains = machine.layout.accelerators, _domains(machine)
    tokens = tokens_per_rank / machine.layout.tensor
    entry = machine.architecture.hidden * (DISPATCH_BYTES_PER_VALUE + COMBINE_BYTES_PER_VALUE)
    far_targets = _distinct_targets(domains, experts.active) * (1.0 - 1.0 / domains)
    inside = ranks / domains
    near_targets = _distinct_targets(inside, experts.active) * (1.0 - 1.0 / inside)
    near = accelerator.scale_up_bytes_per_second * calibration.bulk_scale_up_efficiency
    far = accelerator.network_bytes_per_second * calibration.network_efficiency
    start = 2.0 * calibration.exchange_seconds
    if domains > 1:
        start += 2.0 * calibration.network_seconds
    moved = tokens * entry
    return experts.layers * (start + max(moved * near_targets / near, moved * far_targets / far))


def _distinct_targets(targets: float, choices: int) -> float:
    """Return how many of some targets a token's choices reach on average."""
    if targets <= 1.0:
        return 1.0
    return targets * -math.expm1(choices * math.log1p(-1.0 / targets))
