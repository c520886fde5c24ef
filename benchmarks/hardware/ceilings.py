"""What an accelerator reaches at best: a large copy, and a large product of matrices."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

COPY_BYTES = 4 << 30
MATRIX_SIZE = 8192
REPEATS = 20


def measure_ceilings() -> dict[str, float]:
    """Return bytes per second, read and written counted, and BF16 operations per second."""
    import torch

    found = {**_measure_memory(torch), **_measure_product(torch)}
    # The engine looks at what is free when it starts.
    torch.cuda.empty_cache()
    return found


def _measure_memory(torch: Any) -> dict[str, float]:
    source = torch.empty(COPY_BYTES // 2, dtype=torch.bfloat16, device="cuda").normal_()
    target = torch.empty_like(source)
    # One row against a large matrix only reads it: the pattern of a decode step.
    rows = source.view(-1, MATRIX_SIZE)
    row = torch.randn(MATRIX_SIZE, dtype=torch.bfloat16, device="cuda")
    copied_seconds = _median_seconds(torch, lambda: target.copy_(source))
    return {
        "copy_bytes_per_second": 2.0 * COPY_BYTES / copied_seconds,
        "read_bytes_per_second": COPY_BYTES / _median_seconds(torch, lambda: rows @ row),
    }


def _measure_product(torch: Any) -> dict[str, float]:
    shape = (MATRIX_SIZE, MATRIX_SIZE)
    left = torch.randn(*shape, dtype=torch.bfloat16, device="cuda")
    right = torch.randn(*shape, dtype=torch.bfloat16, device="cuda")
    seconds = _median_seconds(torch, lambda: left @ right)
    return {"bf16_flops_per_second": 2.0 * MATRIX_SIZE**3 / seconds}


def _median_seconds(torch: Any, work: Callable[[], object]) -> float:
    for _ in range(3):
        work()
    seconds: list[float] = []
    for _ in range(REPEATS):
        began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        began.record()
        work()
        ended.record()
        ended.synchronize()
        seconds.append(began.elapsed_time(ended) / 1e3)
    return statistics.median(seconds)
