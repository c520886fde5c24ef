"""Attention by kind: parameters, cache bytes, bytes and operations of a step.

One number per token cannot describe a cache: a window ends it, compression thins it, an
index adds to it. So each kind answers for a whole sequence of a given length.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

from trierarch.hardware.formats import KvCacheFormat

SPARSE_LATENT_FP8_BYTES = 656
"""FP8 entry of 512 + 64 latent values in vLLM's sparse layout: 512 x 1, 4 scales of 4, 64 x 2."""

COMPRESSED_FP8_OVERHEAD_BYTES = 72
"""What an FP8 entry has beyond one byte per value (512 -> 584 bytes): BF16 rope part, scales."""

DENSE_CORE_EFFICIENCY = 0.6
"""Share of peak that dense attention kernels reach; FlashMLA states 660 of 989 on H800."""

SPARSE_CORE_EFFICIENCY = 0.3
"""The same where entries are gathered; fits measured DeepSeek-V4 modules on H200 and B200."""


class Attention(Protocol):
    """What one layer's attention costs."""

    @property
    def name(self) -> str:
        """Short name of the kind."""
        ...

    @property
    def heads(self) -> int:
        """Query heads; tensor parallelism must divide them."""
        ...

    @property
    def sharded_parameters(self) -> int:
        """Parameters that tensor parallelism divides."""
        ...

    @property
    def replicated_parameters(self) -> int:
        """Parameters that every tensor rank holds."""
        ...

    @property
    def operations(self) -> int:
        """Kernels per layer, for their start-up time."""
        ...

    @property
    def core_efficiency(self) -> float:
        """Share of the peak that its kernels reach."""
        ...

    def cache_bytes(self, context_tokens: float, form: KvCacheFormat) -> float:
        """Return the cache of one sequence."""
        ...

    def cache_shards(self, tensor: int) -> int:
        """Return over how many tensor ranks a cache is divided."""
        ...

    def read_bytes(self, context_tokens: float, form: KvCacheFormat) -> float:
        """Return what one decoded token reads of the cache."""
        ...

    def decode_flops(self, context_tokens: float) -> float:
        """Return the operations on cached entries for one decoded token."""
        ...

    def prefill_flops(self, input_tokens: float) -> float:
        """Return the operations on entries for a whole prompt, causal."""
        ...

    def index_flops(self, mean_context_tokens: float) -> float:
        """Return the operations of the index for one token; zero without an index."""
        ...


def capped_mean(length: float, stride: float, cap: float) -> float:
    """Return the mean of min(position / stride, cap) over a causal prompt."""
    if length <= 0:
        return 0.0
    if length / stride <= cap:
        return length / (2.0 * stride)
    return cap - cap * cap * stride / (2.0 * length)


@dataclasses.dataclass(frozen=True, slots=True)
class GroupedQueryAttention:
    """Keys and values per group of heads; with a window in some models."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    window_tokens: int | None = None

    name = "GQA"
    replicated_parameters = 0
    operations = 6
    core_efficiency = DENSE_CORE_EFFICIENCY

    @property
    def sharded_parameters(self) -> int:
        """Query, key, value and output projections."""
        return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    def _seen(self, context_tokens: float) -> float:
        return min(context_tokens, self.window_tokens or context_tokens)

    def cache_bytes(self, context_tokens: float, form: KvCacheFormat) -> float:
        """Return keys and values of what the window keeps."""
        entry = 2 * self.kv_heads * self.head_dim * form.bytes_per_value
        return self._seen(context_tokens) * entry

    def cache_shards(self, tensor: int) -> int:
        """Return the tensor ranks, but never more than there are key-value heads."""
        return min(tensor, self.kv_heads)

    def read_bytes(self, context_tokens: float, form: KvCacheFormat) -> float:
        """Return all that is cached."""
        return self.cache_bytes(context_tokens, form)

    def decode_flops(self, context_tokens: float) -> float:
        """Return scores and weighted sum."""
        return 4.0 * self.heads * self.head_dim * self._seen(context_tokens)

    def prefill_flops(self, input_tokens: float) -> float:
        """Return scores and weighted sums of the causal half."""
        keys = capped_mean(input_tokens, 1.0, float(self.window_tokens or input_tokens))
        return 4.0 * self.heads * self.head_dim * keys * input_tokens

    def index_flops(self, mean_context_tokens: float) -> float:
        """Return zero: there is no index."""
        return 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class SparseIndex:
    """A small attention that picks the entries the large one reads."""

    heads: int
    head_dim: int
    top_tokens: int


@dataclasses.dataclass(frozen=True, slots=True)
class LatentAttention:
    """MLA: one latent vector per token (DeepSeek-V2, V3, Kimi K2); V3.2 adds an index."""

    hidden: int
    heads: int
    query_rank: int | None
    latent_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int
    index: SparseIndex | None = None

    @property
    def name(self) -> str:
        """Tell the two kinds apart."""
        return "MLA" if self.index is None else "MLA+index"

    @property
    def sharded_parameters(self) -> int:
        """Up-projections and output; the index's queries are not divided by the engine."""
        query_input = self.query_rank or self.hidden
        query = query_input * self.heads * (self.nope_dim + self.rope_dim)
        latent = self.latent_rank * self.heads * (self.nope_dim + self.value_dim)
        return query + latent + self.heads * self.value_dim * self.hidden

    @property
    def replicated_parameters(self) -> int:
        """Down-projections and the index."""
        down = self.hidden * (self.latent_rank + self.rope_dim + (self.query_rank or 0))
        if self.index is None:
            return down
        width = self.index.heads * self.index.head_dim
        queries = (self.query_rank or self.hidden) * width
        return down + queries + self.hidden * (self.index.head_dim + self.index.heads)

    @property
    def operations(self) -> int:
        """Ten, and six for the index."""
        return 10 if self.index is None else 16

    @property
    def core_efficiency(self) -> float:
        """Gathering costs speed."""
        return DENSE_CORE_EFFICIENCY if self.index is None else SPARSE_CORE_EFFICIENCY

    def _entry_bytes(self, form: KvCacheFormat) -> int:
        values = self.latent_rank + self.rope_dim
        if self.index is None or form is KvCacheFormat.BF16:
            return values * form.bytes_per_value
        return values + SPARSE_LATENT_FP8_BYTES - 576

    def cache_bytes(self, context_tokens: float, form: KvCacheFormat) -> float:
        """Return latent vectors and index keys of every token."""
        index = 0 if self.index is None else form.index_entry_bytes(self.index.head_dim)
        return context_tokens * (self._entry_bytes(form) + index)

    def cache_shards(self, tensor: int) -> int:
        """Return 1: every tensor rank keeps the whole latent vector."""
        return 1

    def _keys(self, context_tokens: float) -> float:
        if self.index is None:
            return context_tokens
        return min(context_tokens, self.index.top_tokens)

    def read_bytes(self, context_tokens: float, form: KvCacheFormat) -> float:
        """Return the picked entries and every index key."""
        entries = self._keys(context_tokens) * self._entry_bytes(form)
        if self.index is None:
            return entries
        return entries + context_tokens * form.index_entry_bytes(self.index.head_dim)

    def decode_flops(self, context_tokens: float) -> float:
        """Return scores and sums in the latent space (absorbed projections)."""
        width = 2 * self.latent_rank + self.rope_dim
        return 2.0 * self.heads * width * self._keys(context_tokens)

    def prefill_flops(self, input_tokens: float) -> float:
        """Return scores and sums per head without an index, in the latent space with one."""
        if self.index is None:
            width = self.nope_dim + self.rope_dim + self.value_dim
            return self.heads * width * input_tokens * input_tokens
        keys = capped_mean(input_tokens, 1.0, float(self.index.top_tokens))
        return 2.0 * self.heads * (2 * self.latent_rank + self.rope_dim) * keys * input_tokens

    def index_flops(self, mean_context_tokens: float) -> float:
        """Return the index's scores of one token."""
        if self.index is None:
            return 0.0
        return 2.0 * self.index.heads * self.index.head_dim * mean_context_tokens


@dataclasses.dataclass(frozen=True, slots=True)
class CompressedAttention:
    """DeepSeek-V4: a window of plain entries, and one entry per ``ratio`` tokens.

    Attributes:
        ratio: Tokens per compressed entry; 0 for layers that have the window only.
        index: Of layers that read only some of the compressed entries.
    """

    hidden: int
    heads: int
    head_dim: int
    rope_dim: int
    query_rank: int
    output_groups: int
    output_rank: int
    window_tokens: int
    ratio: int
    index: SparseIndex | None = None

    core_efficiency = SPARSE_CORE_EFFICIENCY

    @property
    def name(self) -> str:
        """Window only, sparse (CSA) or heavily compressed (HCA)."""
        if self.ratio == 0:
            return "window"
        return f"{'CSA' if self.index else 'HCA'}/{self.ratio}"

    @property
    def sharded_parameters(self) -> int:
        """Queries and the grouped low-rank output."""
        width = self.heads * self.head_dim
        return width * (self.query_rank + self.output_rank) + (
            self.output_groups * self.output_rank * self.hidden
        )

    @property
    def replicated_parameters(self) -> int:
        """Down-projections, compressor (value and gate), index with its own compressor."""
        down = self.hidden * (self.query_rank + self.head_dim)
        if self.ratio == 0:
            return down
        # An entry with an index sums two strides and so has two projections.
        overlap = 2 if self.index else 1
        compressor = 2 * self.hidden * overlap * self.head_dim
        if self.index is None:
            return down + compressor
        queries = self.query_rank * self.index.heads * self.index.head_dim
        keys = 2 * self.hidden * overlap * self.index.head_dim + self.hidden * self.index.heads
        return down + compressor + queries + keys

    @property
    def operations(self) -> int:
        """Counted so that 3 microseconds each fit modules measured with one request."""
        if self.ratio == 0:
            return 14
        return 23 if self.index else 16

    def _entry_bytes(self, form: KvCacheFormat) -> int:
        if form is KvCacheFormat.BF16:
            return 2 * self.head_dim
        return self.head_dim + COMPRESSED_FP8_OVERHEAD_BYTES

    def _entries(self, context_tokens: float) -> float:
        return context_tokens / self.ratio if self.ratio else 0.0

    def _index_bytes(self, context_tokens: float, form: KvCacheFormat) -> float:
        if self.index is None:
            return 0.0
        return self._entries(context_tokens) * form.index_entry_bytes(self.index.head_dim)

    def cache_bytes(self, context_tokens: float, form: KvCacheFormat) -> float:
        """Return window, compressed entries and index keys."""
        entries = min(context_tokens, self.window_tokens) + self._entries(context_tokens)
        return entries * self._entry_bytes(form) + self._index_bytes(context_tokens, form)

    def cache_shards(self, tensor: int) -> int:
        """Return 1: there is one shared vector per entry."""
        return 1

    def _keys(self, context_tokens: float) -> float:
        picked = self._entries(context_tokens)
        if self.index is not None:
            picked = min(picked, self.index.top_tokens)
        return min(context_tokens, self.window_tokens) + picked

    def read_bytes(self, context_tokens: float, form: KvCacheFormat) -> float:
        """Return window, picked entries and every index key."""
        entries = self._keys(context_tokens) * self._entry_bytes(form)
        return entries + self._index_bytes(context_tokens, form)

    def decode_flops(self, context_tokens: float) -> float:
        """Return scores and weighted sum."""
        return 4.0 * self.heads * self.head_dim * self._keys(context_tokens)

    def prefill_flops(self, input_tokens: float) -> float:
        """Return scores and weighted sums, causal."""
        keys = capped_mean(input_tokens, 1.0, float(self.window_tokens))
        if self.ratio:
            cap = float(self.index.top_tokens) if self.index else input_tokens
            keys += capped_mean(input_tokens, float(self.ratio), cap)
        return 4.0 * self.heads * self.head_dim * keys * input_tokens

    def index_flops(self, mean_context_tokens: float) -> float:
        """Return the index's scores of one token."""
        if self.index is None:
            return 0.0
        entries = self._entries(mean_context_tokens)
        return 2.0 * self.index.heads * self.index.head_dim * entries
