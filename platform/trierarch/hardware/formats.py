"""How numbers are stored and multiplied: bits in memory, arithmetic in use."""

from __future__ import annotations

import dataclasses
from enum import StrEnum


class Arithmetic(StrEnum):
    """What matrix units multiply."""

    BF16 = "bf16"
    FP8 = "fp8"
    INT8 = "int8"
    FP4 = "fp4"


@dataclasses.dataclass(frozen=True, slots=True)
class WeightFormat:
    """How one class of weights is kept.

    Attributes:
        bits_per_parameter: Scales included.
        arithmetic: What it is multiplied in where the hardware can.
    """

    name: str
    bits_per_parameter: float
    arithmetic: Arithmetic

    def bytes_of(self, parameters: float) -> float:
        """Return the size of so many parameters."""
        return parameters * self.bits_per_parameter / 8.0


FLOAT32 = WeightFormat("FP32", 32.0, Arithmetic.BF16)
BFLOAT16 = WeightFormat("BF16", 16.0, Arithmetic.BF16)
FP8_BLOCKS = WeightFormat("FP8", 8.0 + 32.0 / (128 * 128), Arithmetic.FP8)
"""One 32-bit scale per block of 128 x 128."""
MXFP4 = WeightFormat("MXFP4", 4.0 + 8.0 / 32.0, Arithmetic.FP8)
"""One 8-bit scale per 32; activations stay at 8 bits, so it is multiplied at the FP8 rate."""
NVFP4 = WeightFormat("NVFP4", 4.0 + 8.0 / 16.0, Arithmetic.FP4)
"""One 8-bit scale per 16; weights and activations both have 4 bits."""
INT4_GROUPS = WeightFormat("INT4", 4.0 + 16.0 / 32.0, Arithmetic.BF16)
"""One 16-bit scale per 32; weights only, widened to BF16."""
INT8_CHANNELS = WeightFormat("INT8", 8.0, Arithmetic.INT8)


class KvCacheFormat(StrEnum):
    """How keys and values are kept."""

    BF16 = "bf16"
    FP8 = "fp8"
    FP8_FP4_INDEX = "fp8+fp4-index"
    """FP8, and 4 bits for the keys of a sparse index (Blackwell)."""

    @property
    def bytes_per_value(self) -> int:
        """Return the nominal size of one value."""
        return 2 if self is KvCacheFormat.BF16 else 1

    def index_entry_bytes(self, width: int) -> int:
        """Return the size of one index key, with its 32-bit scale where it has one."""
        if self is KvCacheFormat.BF16:
            return 2 * width
        if self is KvCacheFormat.FP8:
            return width + 4
        return width // 2 + 4
