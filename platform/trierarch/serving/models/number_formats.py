"""Number formats of weights, and numbers that depend on nothing but their name.

Weights without training come from a hash of the seed and the tensor's name: the
same on every machine and library version, whatever order tensors are made in.
(Random generators of numerical libraries promise neither.)
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Return float32 values as bfloat16 bit patterns, rounded to nearest, ties to even."""
    import numpy as np

    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    # Half of the last kept place, one less where that place is even.
    rounding = ((bits >> 16) & 1) + np.uint32(0x7FFF)
    return ((bits + rounding) >> 16).astype(np.uint16)


def draw_uniform(seed: str, shape: tuple[int, ...], *, deviation: float) -> np.ndarray:
    """Return float32 numbers with mean 0 that the seed alone decides.

    Args:
        seed: Any text; another text gives unrelated numbers.
        shape: Of the result.
        deviation: Standard deviation.
    """
    import numpy as np

    raw = np.frombuffer(hashlib.shake_256(seed.encode()).digest(4 * math.prod(shape)), "<u4")
    # 24 bits are exact in float32; the half keeps the numbers symmetric around 0.
    unit = ((raw >> 8).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23) - np.float32(1)
    return (unit * np.float32(deviation * math.sqrt(3.0))).reshape(shape)


def draw_permutation(seed: str, length: int) -> np.ndarray:
    """Return an order of ``range(length)`` that the seed alone decides."""
    import numpy as np

    keys = np.frombuffer(hashlib.shake_256(seed.encode()).digest(8 * length), "<u8")
    return np.argsort(keys, kind="stable")
