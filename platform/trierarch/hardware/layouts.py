"""How a model is spread over accelerators, and what each of them then holds."""

from __future__ import annotations

import dataclasses
import math

from trierarch.hardware.accelerators import Accelerator
from trierarch.hardware.architecture import ModelArchitecture
from trierarch.hardware.calibration import KERNELS, Calibration
from trierarch.hardware.formats import Arithmetic, KvCacheFormat


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """One whole replica.

    Attributes:
        data: Data-parallel ranks, each with sequences of its own.
        tensor: Accelerators that share the matrices of one rank.
        expert: Whether whole experts are spread over all accelerators.

    Raises:
        ValueError: If a size is not positive.
    """

    data: int = 1
    tensor: int = 1
    expert: bool = False

    def __post_init__(self) -> None:
        if self.data < 1 or self.tensor < 1:
            raise ValueError(f"a layout needs at least one rank of each kind, got {self}")

    @property
    def accelerators(self) -> int:
        """Accelerators of one replica."""
        return self.data * self.tensor

    def __str__(self) -> str:
        """Return the short form that operators write."""
        parts = [f"DP{self.data}"] if self.data > 1 else []
        parts += [f"TP{self.tensor}"] if self.tensor > 1 or not parts else []
        parts += [f"EP{self.accelerators}"] if self.expert else []
        return "+".join(parts)


def candidate_layouts(
    architecture: ModelArchitecture, accelerator: Accelerator, most_accelerators: int
) -> tuple[Layout, ...]:
    """Return layouts worth a look, small ones first, without asking whether they fit.

    Tensor parallelism stays inside a machine. Data-parallel ranks of a dense model would
    be replicas of their own, so only experts make a group of them.
    """
    found: list[Layout] = []
    size = 1
    while size <= most_accelerators:
        if size <= accelerator.node_accelerators:
            found.append(Layout(tensor=size))
        if architecture.experts is not None and size > 1:
            tensor = 1
            while tensor <= min(size, accelerator.node_accelerators):
                found.append(Layout(size // tensor, tensor, expert=True))
                tensor *= 2
        size *= 2
    return tuple(found)


def weight_bytes_per_accelerator(architecture: ModelArchitecture, layout: Layout) -> float:
    """Return the weights that one accelerator of a replica holds.

    Routed experts are divided by all accelerators, in whole experts if ``expert`` is set;
    everything else by tensor parallelism only.
    """
    dense = architecture.dense_format
    sharded = architecture.feed_forward_parameters
    replicated = 0
    for kind, count in architecture.attention:
        sharded += count * kind.sharded_parameters
        replicated += count * kind.replicated_parameters
    total = dense.bytes_of(replicated + sharded / layout.tensor)
    total += architecture.embedding_format.bytes_of(
        architecture.embedding_parameters / layout.tensor
    )
    return total + routed_bytes_per_accelerator(architecture, layout)


def routed_bytes_per_accelerator(architecture: ModelArchitecture, layout: Layout) -> float:
    """Return the routed experts that one accelerator holds."""
    experts = architecture.experts
    if experts is None:
        return 0.0
    per_rank: float = experts.routed / layout.accelerators
    if layout.expert:
        per_rank = math.ceil(per_rank)
    return architecture.expert_format.bytes_of(
        architecture.expert_parameters * per_rank * experts.layers
    )


def cache_bytes_per_accelerator(
    architecture: ModelArchitecture, layout: Layout, context_tokens: float, form: KvCacheFormat
) -> float:
    """Return what one sequence takes on each accelerator of its data-parallel rank."""
    return sum(
        count * kind.cache_bytes(context_tokens, form) / kind.cache_shards(layout.tensor)
        for kind, count in architecture.attention
    )


def cache_space_bytes(
    architecture: ModelArchitecture,
    accelerator: Accelerator,
    layout: Layout,
    calibration: Calibration = KERNELS,
) -> float:
    """Return the memory left for the cache on each accelerator; negative if weights do not fit."""
    usable = accelerator.memory_bytes * calibration.memory_utilization
    weights = weight_bytes_per_accelerator(architecture, layout)
    return usable - calibration.other_memory_bytes - weights


def default_cache_format(
    architecture: ModelArchitecture, accelerator: Accelerator
) -> KvCacheFormat:
    """Return what the engine is usually told to keep.

    Models with an index or compressed entries are served with FP8 where there is FP8, with
    a 4-bit index where there is FP4 arithmetic; for others BF16 is the engine's default.
    """
    if not architecture.has_compressed_cache or not accelerator.supports(Arithmetic.FP8):
        return KvCacheFormat.BF16
    if architecture.kind == "deepseek_v4" and accelerator.supports(Arithmetic.FP4):
        return KvCacheFormat.FP8_FP4_INDEX
    return KvCacheFormat.FP8
