"""A model as what its steps cost: layers by kind, experts, formats."""

from __future__ import annotations

import dataclasses

from trierarch.hardware.attention import Attention
from trierarch.hardware.formats import BFLOAT16, KvCacheFormat, WeightFormat

MATRICES_PER_EXPERT = 3
"""Gate, up and down."""


@dataclasses.dataclass(frozen=True, slots=True)
class MixtureOfExperts:
    """The layers whose feed-forward part is a choice of experts.

    Attributes:
        layers: How many layers have it.
        routed: Experts per layer to choose from.
        active: Routed experts per token.
        width: Inner width of one routed expert.
        shared_width: Inner width of what every token passes; 0 without.
    """

    layers: int
    routed: int
    active: int
    width: int
    shared_width: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class ModelArchitecture:
    """What of a model decides memory and speed.

    Attributes:
        kind: ``model_type`` of its configuration.
        attention: Layers by kind of attention, with their number.
        dense_layers: Layers with an ordinary feed-forward part.
        dense_width: Its inner width.
        experts: None for a dense model.
        output_shares_embedding: Whether the output projection is the embedding itself.
        context_limit_tokens: Longest sequence it was made for.
        expert_format: Of routed experts.
        dense_format: Of all other matrices but the embeddings, which stay BF16.
    """

    kind: str
    hidden: int
    vocabulary: int
    attention: tuple[tuple[Attention, int], ...]
    dense_layers: int
    dense_width: int
    experts: MixtureOfExperts | None
    output_shares_embedding: bool
    context_limit_tokens: int
    expert_format: WeightFormat
    dense_format: WeightFormat
    embedding_format: WeightFormat = BFLOAT16

    @property
    def layers(self) -> int:
        """Number of layers; those of a draft head are not counted."""
        return sum(count for _, count in self.attention)

    @property
    def heads(self) -> int:
        """Query heads, the same in every layer."""
        return self.attention[0][0].heads

    @property
    def attention_names(self) -> str:
        """Kinds with their number, for a person."""
        return ", ".join(f"{count} x {attention.name}" for attention, count in self.attention)

    @property
    def expert_parameters(self) -> int:
        """Parameters of one routed expert."""
        if self.experts is None:
            return 0
        return MATRICES_PER_EXPERT * self.hidden * self.experts.width

    @property
    def routed_parameters(self) -> int:
        """Parameters of all routed experts."""
        if self.experts is None:
            return 0
        return self.expert_parameters * self.experts.routed * self.experts.layers

    @property
    def attention_parameters(self) -> int:
        """Parameters of all attention layers."""
        return sum(
            count * (kind.sharded_parameters + kind.replicated_parameters)
            for kind, count in self.attention
        )

    @property
    def feed_forward_parameters(self) -> int:
        """Parameters of dense layers, shared experts and routers."""
        total = MATRICES_PER_EXPERT * self.hidden * self.dense_width * self.dense_layers
        if self.experts is not None:
            shared = MATRICES_PER_EXPERT * self.hidden * self.experts.shared_width
            total += self.experts.layers * (shared + self.hidden * self.experts.routed)
        return total

    @property
    def embedding_parameters(self) -> int:
        """Parameters of embedding and output projection."""
        return self.hidden * self.vocabulary * (1 if self.output_shares_embedding else 2)

    @property
    def total_parameters(self) -> int:
        """All parameters, norms (some millions) and draft heads left out."""
        return (
            self.routed_parameters
            + self.attention_parameters
            + self.feed_forward_parameters
            + self.embedding_parameters
        )

    @property
    def active_parameters(self) -> int:
        """Parameters that one token touches, embeddings counted as vendors do."""
        inactive = 0
        if self.experts is not None:
            idle = self.experts.routed - self.experts.active
            inactive = self.expert_parameters * idle * self.experts.layers
        return self.total_parameters - inactive

    @property
    def has_compressed_cache(self) -> bool:
        """Whether any layer keeps less than one entry per token, or an index."""
        return any(kind.index_flops(1.0) > 0 for kind, _ in self.attention)

    def kv_bytes_of_sequence(self, context_tokens: float, form: KvCacheFormat) -> float:
        """Return the cache of one sequence, all layers."""
        return sum(c * kind.cache_bytes(context_tokens, form) for kind, c in self.attention)

    def kv_bytes_of_next_token(self, context_tokens: float, form: KvCacheFormat) -> float:
        """Return by how much the cache grows per token at this length, averaged over a stride."""
        # The longest stride of a compressed entry is far below this.
        stride = 4096.0
        grown = self.kv_bytes_of_sequence(context_tokens + stride, form)
        return (grown - self.kv_bytes_of_sequence(context_tokens, form)) / stride
