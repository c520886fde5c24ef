"""Published throughput of real systems, and how far the prediction is from each.

No constant was fitted to these points, with one exception: how much of its kernels' speed
aggregated serving keeps was first seen on the DeepSeek-V4-Flash point. Conditions that a
source leaves out are assumed, and ``conditions`` says so; where the layout is not published
the best one of ours is taken. Speculative decoding is not modelled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import StrEnum

from trierarch.hardware.accelerators import find_accelerator
from trierarch.hardware.architecture import ModelArchitecture
from trierarch.hardware.calibration import (
    AGGREGATED_EFFICIENCY,
    DISAGGREGATED_EFFICIENCY,
    KERNELS,
    Calibration,
)
from trierarch.hardware.capacity import (
    Capacity,
    LatencyTargets,
    Workload,
    largest_batch,
    predict_capacity,
)
from trierarch.hardware.formats import NVFP4, KvCacheFormat
from trierarch.hardware.layouts import (
    Layout,
    cache_bytes_per_accelerator,
    cache_space_bytes,
    candidate_layouts,
    default_cache_format,
)
from trierarch.hardware.roofline import PREFILL_CHUNK_TOKENS, Machine, decode_step, prefill


class Phase(StrEnum):
    """What a published number counts."""

    PREFILL = "prefill"
    DECODE = "decode"
    TOTAL = "total"


@dataclasses.dataclass(frozen=True, slots=True)
class PublishedPoint:
    """One published number.

    Attributes:
        source: Who published it, and when.
        model: Name of the reference configuration.
        tokens_per_second: Per accelerator; input, output or both by ``phase``.
        layout: None if it is not published.
        sequences_per_rank: Batch; None if it follows from memory or ``tpot_seconds``.
        is_disaggregated: Whether prefill and decode have accelerators of their own.
        balances_experts: Whether hot experts were doubled until ranks are even.
        expert_is_nvfp4: Whether experts were quantized to NVFP4.
    """

    source: str
    model: str
    accelerator: str
    phase: Phase
    tokens_per_second: float
    conditions: str
    input_tokens: int
    output_tokens: int = 1
    layout: Layout | None = None
    sequences_per_rank: int | None = None
    tpot_seconds: float | None = None
    is_disaggregated: bool = True
    hides_exchange: bool = False
    balances_experts: bool = False
    expert_is_nvfp4: bool = False
    cache: KvCacheFormat | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """A published number beside the prediction for its conditions.

    Attributes:
        predicted_tokens_per_second: Per accelerator; 0 if no layout is predicted to serve.
    """

    point: PublishedPoint
    predicted_tokens_per_second: float

    @property
    def error_ratio(self) -> float:
        """Predicted over published, less 1."""
        return self.predicted_tokens_per_second / self.point.tokens_per_second - 1.0


def _wide(ranks: int) -> Layout:
    return Layout(data=ranks, expert=True)


_PROFILE = "DeepSeek profile 2025-02"
_SGLANG = "SGLang 2025-05"
_HUAWEI = "CloudMatrix 2025-06"
_BENCH = "InferenceX 2026"
_PREFILL, _DECODE, _TOTAL = Phase.PREFILL, Phase.DECODE, Phase.TOTAL
_V3, _PRO, _FLASH = "deepseek-v3", "deepseek-v4-pro", "deepseek-v4-flash"

PUBLISHED_POINTS: tuple[PublishedPoint, ...] = (
    PublishedPoint(
        _PROFILE, _V3, "H800", _PREFILL, 7838.0, "EP32, 4K prompts, 62.7k per node",
        4096, layout=_wide(32), hides_exchange=True, balances_experts=True,
    ),
    PublishedPoint(
        _PROFILE, _V3, "H800", _DECODE, 2325.0, "EP128, 4K, 18.6k per node; 128 per rank assumed",
        4096, layout=_wide(128), sequences_per_rank=128, hides_exchange=True,
        balances_experts=True,
    ),
    PublishedPoint(
        "DeepSeek production 2025-03", _V3, "H800", _DECODE, 1850.0,
        "EP144, KV 5K, mean of a day; 21 tokens/s per user",
        4989, layout=_wide(144), tpot_seconds=1 / 21, hides_exchange=True, balances_experts=True,
    ),
    PublishedPoint(
        _SGLANG, _V3, "H100", _PREFILL, 7209.0, "EP32, 1K prompts",
        1024, layout=_wide(32), hides_exchange=True, balances_experts=True,
    ),
    PublishedPoint(
        _SGLANG, _V3, "H100", _PREFILL, 6818.0, "EP32, 2K prompts",
        2048, layout=_wide(32), hides_exchange=True, balances_experts=True,
    ),
    PublishedPoint(
        _SGLANG, _V3, "H100", _PREFILL, 6288.0, "EP32, 4K prompts",
        4096, layout=_wide(32), hides_exchange=True, balances_experts=True,
    ),
    PublishedPoint(
        _SGLANG, _V3, "H100", _DECODE, 2785.0, "EP72, 2K, 256 per rank",
        2000, 100, layout=_wide(72), sequences_per_rank=256, hides_exchange=True,
        balances_experts=True,
    ),
    PublishedPoint(
        "vLLM and llm-d 2025-12", _V3, "H200", _DECODE, 2200.0,
        "EP32, 2K and 256 per rank assumed",
        2048, layout=_wide(32), sequences_per_rank=256, hides_exchange=True,
        balances_experts=True,
    ),
    PublishedPoint(
        "vLLM 2026-02", _V3, "GB200", _PREFILL, 26200.0, "2 accelerators, 2K, NVFP4",
        2048, layout=_wide(2), expert_is_nvfp4=True,
    ),
    PublishedPoint(
        "vLLM 2026-02", _V3, "GB200", _DECODE, 10100.0,
        "8 accelerators, 2K/2K, NVFP4; 512 per rank assumed",
        2048, 2048, layout=_wide(8), sequences_per_rank=512, expert_is_nvfp4=True,
        cache=KvCacheFormat.FP8,
    ),
    PublishedPoint(
        _HUAWEI, _V3, "Ascend-910C", _PREFILL, 6688.0, "INT8; 16 of two dies, 4K assumed",
        4096, layout=_wide(16), hides_exchange=True, balances_experts=True,
    ),
    PublishedPoint(
        _HUAWEI, _V3, "Ascend-910C", _DECODE, 1943.0, "EP320 (dies), TPOT 50 ms, 4K assumed",
        4096, layout=_wide(160), tpot_seconds=0.050, hides_exchange=True, balances_experts=True,
    ),
    PublishedPoint(
        _HUAWEI, _V3, "Ascend-910C", _DECODE, 538.0, "EP320 (dies), TPOT 15 ms, 4K assumed",
        4096, layout=_wide(160), tpot_seconds=0.015, hides_exchange=True, balances_experts=True,
    ),
    PublishedPoint(
        "Huawei Atlas 800I A2 2025-05", _V3, "Ascend-910B", _DECODE, 765.0,
        "4 nodes, TPOT 100 ms, middle of 723 to 808; 2K assumed",
        2048, layout=_wide(32), tpot_seconds=0.100,
    ),
    PublishedPoint(
        "SGLang 2026-07", _FLASH, "H200", _TOTAL, 4573.0,
        "4 accelerators, 1024 at once, TPOT 124 ms; 8K/1K assumed",
        8192, 1024, layout=_wide(4), tpot_seconds=0.124, is_disaggregated=False,
    ),
    PublishedPoint(
        _BENCH, _PRO, "GB300", _TOTAL, 6182.0, "8K/1K at 27 tokens/s per user",
        8192, 1024, tpot_seconds=1 / 27,
    ),
    PublishedPoint(
        _BENCH, _PRO, "GB200", _TOTAL, 2189.0, "8K/1K at 27 tokens/s per user",
        8192, 1024, tpot_seconds=1 / 27,
    ),
    PublishedPoint(
        _BENCH, _PRO, "GB300", _TOTAL, 10000.0, "8K/1K at 13 to 18 tokens/s per user",
        8192, 1024, tpot_seconds=1 / 15.5,
    ),
    PublishedPoint(
        _BENCH, _PRO, "GB200", _TOTAL, 8500.0, "8K/1K at 13 to 18 tokens/s per user",
        8192, 1024, tpot_seconds=1 / 15.5,
    ),
    PublishedPoint(
        _BENCH, _PRO, "MI355X", _TOTAL, 2256.0, "8K/1K at 9.4 tokens/s per user",
        8192, 1024, tpot_seconds=1 / 9.4, is_disaggregated=False,
    ),
    PublishedPoint(
        _BENCH, _V3, "B200", _TOTAL, 5857.0, "8K/1K, FP8, at 23 tokens/s per user",
        8192, 1024, tpot_seconds=1 / 23, is_disaggregated=False,
    ),
    PublishedPoint(
        _BENCH, _V3, "B200", _TOTAL, 2558.0, "8K/1K, FP8, at 75 tokens/s per user",
        8192, 1024, tpot_seconds=1 / 75, is_disaggregated=False,
    ),
    PublishedPoint(
        _BENCH, _V3, "GB200", _TOTAL, 5790.0, "8K/1K, FP8, at 75 tokens/s per user",
        8192, 1024, tpot_seconds=1 / 75,
    ),
    PublishedPoint(
        _BENCH, _V3, "MI300X", _TOTAL, 725.0, "8K/1K, FP8, at 23 tokens/s per user",
        8192, 1024, tpot_seconds=1 / 23, is_disaggregated=False,
    ),
    PublishedPoint(
        _BENCH, _V3, "MI325X", _TOTAL, 854.0, "8K/1K, FP8, at 25 tokens/s per user",
        8192, 1024, tpot_seconds=1 / 25, is_disaggregated=False,
    ),
    PublishedPoint(
        _BENCH, _V3, "H100", _TOTAL, 266.0, "1K/1K, FP8, at 42 tokens/s per user",
        1024, 1024, tpot_seconds=1 / 42, is_disaggregated=False,
    ),
)  # fmt: skip
"""In the order of the docs; see ``docs/concepts/hardware.md`` for the sources in full."""


def check_points(
    models: Mapping[str, ModelArchitecture],
    points: tuple[PublishedPoint, ...] = PUBLISHED_POINTS,
) -> list[Checked]:
    """Return every point with its prediction.

    Args:
        models: Architectures by the name the points use.
        points: What to compare with.
    """
    return [Checked(point, _predict(point, models[point.model])) for point in points]


def _predict(point: PublishedPoint, model: ModelArchitecture) -> float:
    if point.expert_is_nvfp4:
        model = dataclasses.replace(model, expert_format=NVFP4)
    calibration = KERNELS
    if point.balances_experts:
        calibration = dataclasses.replace(KERNELS, expert_skew=1.0)
    accelerator = find_accelerator(point.accelerator)
    layouts = [point.layout] if point.layout else candidate_layouts(model, accelerator, 64)
    return max(_predict_layout(point, model, layout, calibration) for layout in layouts)


def _predict_layout(
    point: PublishedPoint, model: ModelArchitecture, layout: Layout, calibration: Calibration
) -> float:
    accelerator = find_accelerator(point.accelerator)
    cache = point.cache or default_cache_format(model, accelerator)
    machine = Machine(model, accelerator, layout, cache, calibration, point.hides_exchange)
    efficiency = DISAGGREGATED_EFFICIENCY if point.is_disaggregated else AGGREGATED_EFFICIENCY
    if point.phase is Phase.PREFILL:
        # Prompts shorter than a chunk are computed several at a time.
        prompts = max(1, PREFILL_CHUNK_TOKENS // point.input_tokens)
        seconds = prefill(machine, point.input_tokens, prompts=prompts).seconds
        return efficiency * prompts * point.input_tokens / seconds / layout.tensor
    if point.phase is Phase.DECODE:
        return _decode_rate(point, machine, efficiency)
    capacity = predict_capacity(
        machine,
        Workload(point.input_tokens, point.output_tokens, point.input_tokens + point.output_tokens),
        LatencyTargets(tpot_seconds=point.tpot_seconds),
        efficiency=efficiency,
        interleaves_prefill=not point.is_disaggregated,
    )
    if not isinstance(capacity, Capacity):
        return 0.0
    return capacity.tokens_per_second / layout.accelerators


def _decode_rate(point: PublishedPoint, machine: Machine, efficiency: float) -> float:
    """Return output tokens per second and accelerator of a replica that only decodes."""
    context = point.input_tokens + point.output_tokens / 2.0

    def step(sequences: int) -> float:
        return decode_step(machine, sequences, context).seconds / efficiency

    sequences = point.sequences_per_rank
    if sequences is None:
        model, layout = machine.architecture, machine.layout
        space = cache_space_bytes(model, machine.accelerator, layout, machine.calibration)
        each = cache_bytes_per_accelerator(model, layout, context, machine.cache)
        sequences = min(int(space / each), largest_batch(step, point.tpot_seconds, 1024))
    if sequences < 1 or (point.tpot_seconds and step(sequences) > point.tpot_seconds):
        return 0.0
    return sequences / step(sequences) / machine.layout.tensor
