"""Writing a checkpoint in the safetensors format, one tensor at a time.

The format puts all names, shapes and offsets in front, and the shapes are known
before the numbers: so the largest tensor is the most that is ever in memory,
where the format's own library wants the whole model there at once.
Files are synced to disk: a checkpoint that has been announced survives a crash.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trierarch.serving.models.recipe import TensorSpec

if TYPE_CHECKING:
    import numpy as np

_HEADER_ALIGNMENT_BYTES = 8
"""Readers map the numbers as an array; eight bytes suit every number format."""


def build_header(tensors: Sequence[TensorSpec]) -> bytes:
    """Return the length-prefixed safetensors header for tensors laid out in order."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.size_bytes
        entries[tensor.name] = {
            "dtype": tensor.format,
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT_BYTES)
    return len(text).to_bytes(8, "little") + text


def write_weights(
    path: Path,
    tensors: Sequence[TensorSpec],
    numbers: Iterator[np.ndarray],
    on_progress: Callable[[float], None],
) -> None:
    """Write all tensors into one safetensors file.

    Args:
        path: The file; it must not exist.
        tensors: What the file holds.
        numbers: The numbers of each tensor, in the same order.
        on_progress: Called with the share written, 0..1.

    Raises:
        ValueError: If the numbers do not fit the description.
    """
    total_bytes = sum(tensor.size_bytes for tensor in tensors)
    written_bytes = 0
    with path.open("xb") as file:
        file.write(build_header(tensors))
        for tensor, array in zip(tensors, numbers, strict=True):
            if array.shape != tensor.shape or array.nbytes != tensor.size_bytes:
                raise ValueError(f"{tensor.name}: made {array.shape}, described {tensor.shape}")
            file.write(array.data)
            written_bytes += array.nbytes
            on_progress(written_bytes / total_bytes)
        _sync(file.fileno())


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a small JSON file."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a small text file."""
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        _sync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)
