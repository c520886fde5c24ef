"""Every layout on every accelerator: what it serves, what a million tokens cost, or why not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

from trierarch.hardware.accelerators import Accelerator
from trierarch.hardware.architecture import ModelArchitecture
from trierarch.hardware.calibration import AGGREGATED_EFFICIENCY, KERNELS, Calibration
from trierarch.hardware.capacity import (
    Capacity,
    Infeasible,
    LatencyTargets,
    Workload,
    predict_capacity,
)
from trierarch.hardware.formats import KvCacheFormat
from trierarch.hardware.layouts import (
    Layout,
    cache_space_bytes,
    candidate_layouts,
    default_cache_format,
    weight_bytes_per_accelerator,
)
from trierarch.hardware.roofline import Machine

MOST_ACCELERATORS = 64
"""Largest replica looked at; beyond it, groups of this size are wider than published ones."""

SECONDS_PER_HOUR = 3600.0


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedLayout:
    """One way to run a model.

    Attributes:
        weight_bytes: Per accelerator.
        cache_space_bytes: Memory left for the cache per accelerator.
        capacity: None if the layout cannot serve; then ``infeasible`` says why.
        usd_per_hour: Of one replica; None if the accelerator has no price.
        usd_per_million_tokens: Input plus output, at full capacity.
    """

    machine: Machine
    weight_bytes: float
    cache_space_bytes: float
    capacity: Capacity | None
    infeasible: Infeasible | None
    usd_per_hour: float | None
    usd_per_million_tokens: float | None
    usd_per_million_output_tokens: float | None

    @property
    def accelerator(self) -> Accelerator:
        """What it runs on."""
        return self.machine.accelerator

    @property
    def layout(self) -> Layout:
        """How it is spread."""
        return self.machine.layout

    @property
    def is_feasible(self) -> bool:
        """Whether it serves within the targets."""
        return self.capacity is not None


def plan_layouts(
    architecture: ModelArchitecture,
    accelerators: Iterable[Accelerator],
    workload: Workload,
    targets: LatencyTargets,
    *,
    usd_per_accelerator_hour: Mapping[str, float],
    most_accelerators: int = MOST_ACCELERATORS,
    cache: KvCacheFormat | None = None,
    efficiency: float = AGGREGATED_EFFICIENCY,
    calibration: Calibration = KERNELS,
) -> list[PlannedLayout]:
    """Return all layouts: feasible ones first, cheapest first, those without a price after them.

    Args:
        architecture: The model.
        accelerators: What to look at.
        workload: Lengths.
        targets: What latency may be at most.
        usd_per_accelerator_hour: By accelerator; one that is absent has no known price.
        most_accelerators: Largest replica.
        cache: None takes what the engine is usually told for each accelerator.
        efficiency: Of a system against its kernels.
        calibration: Kernel constants.
    """
    planned = [
        _plan_one(
            Machine(
                architecture,
                accelerator,
                layout,
                cache or default_cache_format(architecture, accelerator),
                calibration,
            ),
            workload,
            targets,
            usd_per_accelerator_hour.get(accelerator.name),
            efficiency,
        )
        for accelerator in accelerators
        for layout in candidate_layouts(architecture, accelerator, most_accelerators)
    ]
    return sorted(planned, key=_order)


def _order(row: PlannedLayout) -> tuple[bool, float, float, str]:
    cost = row.usd_per_million_tokens
    rate = row.capacity.tokens_per_second if row.capacity else 0.0
    per_accelerator = rate / row.layout.accelerators
    return (
        not row.is_feasible,
        math.inf if cost is None else cost,
        # Without a price, what an accelerator yields is the next best order.
        -per_accelerator,
        row.accelerator.name,
    )


def _plan_one(
    machine: Machine,
    workload: Workload,
    targets: LatencyTargets,
    price: float | None,
    efficiency: float,
) -> PlannedLayout:
    answer = predict_capacity(machine, workload, targets, efficiency=efficiency)
    capacity = answer if isinstance(answer, Capacity) else None
    hourly = None if price is None else price * machine.layout.accelerators
    per_million = per_million_output = None
    if capacity is not None and hourly is not None:
        per_million = cost_per_million(hourly, capacity.tokens_per_second)
        per_million_output = cost_per_million(hourly, capacity.output_tokens_per_second)
    return PlannedLayout(
        machine=machine,
        weight_bytes=weight_bytes_per_accelerator(machine.architecture, machine.layout),
        cache_space_bytes=cache_space_bytes(
            machine.architecture, machine.accelerator, machine.layout, machine.calibration
        ),
        capacity=capacity,
        infeasible=answer if isinstance(answer, Infeasible) else None,
        usd_per_hour=hourly,
        usd_per_million_tokens=per_million,
        usd_per_million_output_tokens=per_million_output,
    )


def cost_per_million(usd_per_hour: float, tokens_per_second: float) -> float:
    """Return dollars per million tokens of a replica that is never idle."""
    return usd_per_hour / SECONDS_PER_HOUR / tokens_per_second * 1e6
