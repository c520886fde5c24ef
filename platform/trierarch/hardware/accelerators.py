"""Accelerators as numbers: memory, bandwidth, arithmetic, links.

Sources, by row. NVIDIA: the system files of NVIDIA's aiconfigurator (Apache-2.0, August
2026); memory there is what a process can use. H800 and H20: DeepSeek's DeepEP figures
and vendor tables. MI300X, MI325X, MI355X: vendor tables, in part second hand. Ascend:
analysts' estimates that conflict with each other; the lower one is taken. Rows with
figures that no primary source confirms have ``is_estimate`` set.

Bandwidth and arithmetic are peaks; what is reached of them is in ``calibration``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from trierarch.core.errors import InvalidInput
from trierarch.hardware.formats import Arithmetic

GIB = 1 << 30
GB = 10**9
TERA = 1e12


@dataclasses.dataclass(frozen=True, slots=True)
class Accelerator:
    """One kind of accelerator and the machine it is usually built into.

    Attributes:
        memory_bytes: Memory of one accelerator.
        memory_bytes_per_second: Peak bandwidth of that memory.
        flops_per_second: Dense peak by arithmetic; what is absent is not supported.
        scale_up_bytes_per_second: One direction, inside the scale-up domain (NVLink and alike).
        network_bytes_per_second: One direction, per accelerator, between domains.
        scale_up_accelerators: Accelerators of one scale-up domain.
        node_accelerators: Accelerators of one machine; tensor parallelism stays inside.
        is_estimate: Whether a figure of this row is unconfirmed.
        casts_fp8_to_int8: Whether FP8 checkpoints are served as INT8 at its full rate.
    """

    name: str
    memory_bytes: int
    memory_bytes_per_second: float
    flops_per_second: Mapping[Arithmetic, float]
    scale_up_bytes_per_second: float
    network_bytes_per_second: float
    scale_up_accelerators: int = 8
    node_accelerators: int = 8
    is_estimate: bool = False
    casts_fp8_to_int8: bool = False

    def supports(self, arithmetic: Arithmetic) -> bool:
        """Tell whether it computes in this arithmetic."""
        return arithmetic in self.flops_per_second

    def flops_for(self, arithmetic: Arithmetic) -> float:
        """Return the peak for operands of this kind, or of the next wider kind it has.

        Weights that the hardware cannot multiply are widened while they are read: they
        keep their size in memory and lose only speed.
        """
        if arithmetic is Arithmetic.FP8 and self.casts_fp8_to_int8:
            return self.flops_per_second.get(Arithmetic.INT8, self._bf16)
        if arithmetic is Arithmetic.FP4 and Arithmetic.FP4 not in self.flops_per_second:
            return self.flops_for(Arithmetic.FP8)
        return self.flops_per_second.get(arithmetic, self._bf16)

    @property
    def _bf16(self) -> float:
        return self.flops_per_second[Arithmetic.BF16]


def _row(
    name: str,
    memory_bytes: float,
    terabytes_per_second: float,
    teraflops: Mapping[Arithmetic, float],
    scale_up_gigabytes_per_second: float,
    network_gigabytes_per_second: float,
    *,
    scale_up_accelerators: int = 8,
    node_accelerators: int = 8,
    is_estimate: bool = False,
    casts_fp8_to_int8: bool = False,
) -> Accelerator:
    return Accelerator(
        name=name,
        memory_bytes=int(memory_bytes),
        memory_bytes_per_second=terabytes_per_second * TERA,
        flops_per_second={kind: value * TERA for kind, value in teraflops.items()},
        scale_up_bytes_per_second=scale_up_gigabytes_per_second * GB,
        network_bytes_per_second=network_gigabytes_per_second * GB,
        scale_up_accelerators=scale_up_accelerators,
        node_accelerators=node_accelerators,
        is_estimate=is_estimate,
        casts_fp8_to_int8=casts_fp8_to_int8,
    )


_BF16, _FP8, _FP4, _INT8 = Arithmetic.BF16, Arithmetic.FP8, Arithmetic.FP4, Arithmetic.INT8
_HOPPER = {_BF16: 989.0, _FP8: 1978.0}
_BLACKWELL = {_BF16: 2250.0, _FP8: 4500.0, _FP4: 9000.0}

_ROWS = (
    _row("A100", 80 * GIB, 2.04, {_BF16: 312.0, _INT8: 624.0}, 300, 25),
    # PCIe 4.0 only: what crosses two cards crosses the host.
    _row("L40S", 45 * GIB, 0.864, {_BF16: 362.0, _FP8: 733.0}, 32, 50, is_estimate=True),
    _row("H100", 80 * GIB, 3.35, _HOPPER, 450, 50),
    _row("H800", 80 * GB, 3.35, _HOPPER, 200, 50, is_estimate=True),
    _row("H20", 96 * GB, 4.0, {_BF16: 148.0, _FP8: 296.0}, 450, 50, is_estimate=True),
    _row("H200", 141 * GIB, 4.8, _HOPPER, 450, 50),
    _row("B200", 180 * GIB, 7.7, _BLACKWELL, 900, 100),
    _row("B300", 269 * GIB, 7.75, {**_BLACKWELL, _FP4: 14000.0}, 900, 100),
    _row(
        "GB200",
        185 * GIB,
        8.0,
        {_BF16: 2500.0, _FP8: 5000.0, _FP4: 10000.0},
        900,
        100,
        scale_up_accelerators=72,
        node_accelerators=4,
    ),
    _row(
        "GB300",
        278 * GIB,
        8.0,
        {_BF16: 2500.0, _FP8: 5000.0, _FP4: 15000.0},
        900,
        100,
        scale_up_accelerators=72,
        node_accelerators=4,
    ),
    _row("MI300X", 192 * GB, 5.3, {_BF16: 1307.0, _FP8: 2610.0}, 448, 50, is_estimate=True),
    _row("MI325X", 256 * GB, 6.0, {_BF16: 1307.0, _FP8: 2615.0}, 448, 50, is_estimate=True),
    _row(
        "MI355X",
        288 * GB,
        8.0,
        {_BF16: 2500.0, _FP8: 5000.0, _FP4: 10000.0},
        538,
        50,
        is_estimate=True,
    ),
    # Sources give 1.2 to 1.6 TB/s and 313 to 400 TFLOPS; no source for the link inside the
    # machine, 392 GB/s in both directions is what its successor doubles.
    _row("Ascend-910B", 64 * GB, 1.2, {_BF16: 313.0}, 196, 25, is_estimate=True),
    _row(
        "Ascend-910C",
        128 * GB,
        3.2,
        {_BF16: 780.0, _INT8: 1500.0},
        392,
        50,
        scale_up_accelerators=384,
        is_estimate=True,
        casts_fp8_to_int8=True,
    ),
)

ACCELERATORS: Mapping[str, Accelerator] = {row.name: row for row in _ROWS}
"""Every accelerator by its name in the price book."""


def find_accelerator(name: str) -> Accelerator:
    """Return an accelerator; capitals do not matter.

    Raises:
        InvalidInput: If there is none of this name; the message lists all names.
    """
    for known in ACCELERATORS.values():
        if known.name.casefold() == name.casefold():
            return known
    raise InvalidInput(
        f"accelerator '{name}' is not known; known are {', '.join(sorted(ACCELERATORS))}"
    )
