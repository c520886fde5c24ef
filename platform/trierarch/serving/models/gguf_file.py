"""Reading the container of a GGUF file: its metadata and where its tensors lie.

The format's own package builds an array for each of the tokenizer's hundred
thousand strings and takes five seconds for it; this reader takes a tenth. The
arithmetic of quantised numbers stays with that package.
"""

from __future__ import annotations

import dataclasses
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_MAGIC = b"GGUF"
_VERSION = 3
_ALIGNMENT_BYTES_DEFAULT = 32
_STRING = 8
_ARRAY = 9
_SCALARS: Mapping[int, str] = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
    10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
"""struct codes by GGUF value type."""


@dataclasses.dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where a tensor lies and how it is packed.

    Attributes:
        shape: Outermost dimension first (the file has it the other way round).
        quantization: GGML number of the packing.
        offset_bytes: From the start of the file.
    """

    shape: tuple[int, ...]
    quantization: int
    offset_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class GgufFile:
    """A parsed container.

    Attributes:
        path: The file.
        metadata: Every key with its value as a Python object.
        tensors: By name.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    def read_float32(self, name: str) -> np.ndarray:
        """Return a tensor's numbers, unpacked."""
        import numpy as np
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize, quant_shape_to_byte_shape

        tensor = self.tensors[name]
        quantization = GGMLQuantizationType(tensor.quantization)
        if quantization == GGMLQuantizationType.F32:
            return np.array(
                np.memmap(self.path, "<f4", "r", tensor.offset_bytes, shape=tensor.shape)
            )
        packed_shape = quant_shape_to_byte_shape(tensor.shape, quantization)
        packed = np.memmap(self.path, np.uint8, "r", tensor.offset_bytes, shape=packed_shape)
        return np.asarray(dequantize(packed, quantization), dtype=np.float32)


def read_gguf(path: Path) -> GgufFile:
    """Parse a GGUF file's header.

    Raises:
        ValueError: If it is not a GGUF file of the version this reader knows.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cursor = _Cursor(data)
        if cursor.take_bytes(4) != _MAGIC or cursor.take("<I") != _VERSION:
            raise ValueError(f"{path} is not a GGUF file of version {_VERSION}")
        tensor_count, key_count = cursor.take("<Q"), cursor.take("<Q")
        metadata: dict[str, Any] = {}
        for _ in range(key_count):
            key = cursor.take_string()
            metadata[key] = cursor.take_value(cursor.take("<I"))
        unplaced: list[tuple[str, tuple[int, ...], int, int]] = []
        for _ in range(tensor_count):
            name = cursor.take_string()
            sizes = [cursor.take("<Q") for _ in range(cursor.take("<I"))]
            unplaced.append((name, tuple(reversed(sizes)), cursor.take("<I"), cursor.take("<Q")))
        alignment = int(metadata.get("general.alignment", _ALIGNMENT_BYTES_DEFAULT))
        start = cursor.position + -cursor.position % alignment
    tensors = {
        name: GgufTensor(shape, quantization, start + offset)
        for name, shape, quantization, offset in unplaced
    }
    return GgufFile(path, metadata, tensors)


class _Cursor:
    """A place in a buffer that moves on with each value taken."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self.position = 0

    def take_bytes(self, count: int) -> bytes:
        end = self.position + count
        piece = self._data[self.position : end]
        if len(piece) != count:
            raise ValueError("the GGUF file ends too early")
        self.position = end
        return piece

    def take(self, code: str) -> Any:
        return struct.unpack(code, self.take_bytes(struct.calcsize(code)))[0]

    def take_string(self) -> str:
        return self.take_bytes(self.take("<Q")).decode("utf-8")

    def take_value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.take_string()
        if kind == _ARRAY:
            element, count = self.take("<I"), self.take("<Q")
            if element in _SCALARS:
                code = f"<{count}{_SCALARS[element][1]}"
                return list(struct.unpack(code, self.take_bytes(struct.calcsize(code))))
            return [self.take_value(element) for _ in range(count)]
        if kind not in _SCALARS:
            raise ValueError(f"unknown GGUF value type {kind}")
        return self.take(_SCALARS[kind])
