"""Reading the engine in the middle of its runs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trierarch.simulation.engine.compiled import compiled, inner
from trierarch.simulation.engine.records import Engine
from trierarch.simulation.engine.steps import run_seconds

SLOT, VARIANT, RUNNING, WAITING, KV_TOKENS, PENDING_PREFILL, DECODED = range(7)
GAUGES = 7


@inner
def steps_done(engine: Engine, slot: int, now_seconds: float) -> int:
    """Return how many steps of its present run a replica has finished."""
    replica = engine.replicas[slot]
    low, high = 0, replica["run_steps"]
    elapsed = now_seconds - replica["run_start_seconds"]
    first, growth = replica["first_step_seconds"], replica["step_growth_seconds"]
    while low < high:
        middle = (low + high + 1) // 2
        if run_seconds(first, growth, middle) <= elapsed:
            low = middle
        else:
            high = middle - 1
    return int(low)


@compiled
def read_gauges(engine: Engine, now_seconds: float, busy: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one row per slot in ``busy``; ``DECODED`` is what a run has made so far."""
    rows = np.zeros((len(busy), GAUGES), np.int64)
    for row, slot in enumerate(busy):
        replica = engine.replicas[slot]
        decoded = 0
        if replica["run_steps"] > 0:
            decoded = steps_done(engine, slot, now_seconds) * replica["decoding"]
        rows[row, SLOT] = slot
        rows[row, VARIANT] = replica["variant"]
        rows[row, RUNNING] = replica["decoding"] + replica["prefilling"]
        rows[row, WAITING] = replica["waiting"]
        rows[row, KV_TOKENS] = replica["kv_tokens"] + decoded
        rows[row, PENDING_PREFILL] = replica["pending_prefill_tokens"]
        rows[row, DECODED] = decoded
    return rows
