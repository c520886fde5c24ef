"""One typed description of an engine, the same for CPU and GPU.

Everything a replica needs to start is in an ``EngineSpec``: it travels as JSON
through Ray Serve's application arguments, so a Serve configuration file, the
embedded mode and the operator describe an engine in the same words.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveInt, model_validator

CPU_KV_CACHE_BYTES_DEFAULT = 1 << 30
"""Enough for 16 sequences of 2,048 tokens of the largest model made locally."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Parallelism(_Frozen):
    """How one replica splits a model; a replica always is the whole group."""

    data: PositiveInt = 1
    """Ranks that each hold the attention weights and serve their own requests."""
    tensor: PositiveInt = 1
    """Ways every matrix is split inside one data-parallel rank."""
    expert: bool = False
    """Spread whole experts over all data x tensor ranks instead of splitting each."""

    @model_validator(mode="after")
    def _expert_needs_ranks(self) -> Self:
        if self.expert and self.data * self.tensor == 1:
            raise ValueError("parallelism.expert: needs data or tensor above 1 to spread experts")
        return self

    @property
    def ranks(self) -> int:
        """Number of accelerators (or CPU processes) of one replica."""
        return self.data * self.tensor


class EngineSpec(_Frozen):
    """What a replica runs."""

    model_path: str
    """Folder with ``config.json``, weights and tokenizer; read by the engine from disk."""
    served_name: str
    """What clients write in ``model``."""
    variant: str = "cpu"
    """Name of this way of running the model, as in ``ModelDeployment.spec.variants``."""
    device: Literal["cpu", "cuda"] = "cpu"
    parallelism: Parallelism = Parallelism()
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    max_model_tokens: PositiveInt = 2048
    """Longest prompt plus answer."""
    max_running_requests: PositiveInt = 16
    """Sequences in one batch; more wait in the engine."""
    kv_cache_bytes: PositiveInt | None = None
    """KV cache per rank; None takes vLLM's own choice on GPUs and 1 GiB on CPUs."""
    threads_per_rank: PositiveInt = 1
    """OpenMP threads of one rank; CPU only."""
    trust_remote_code: bool = False
    spread_ranks: Literal["pack", "strict-pack", "strict-spread"] = "pack"
    """Whether data-parallel ranks share a node or must not."""
    engine_arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """Any further vLLM options by their command-line names without dashes in front."""
    otlp_traces_endpoint: str | None = None
    """OTLP/HTTP base address, without ``/v1/traces``; None writes no spans."""
