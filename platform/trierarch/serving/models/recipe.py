"""A recipe: everything that decides the bytes of a model made here.

A model's folder carries a fingerprint of its recipe in its name, so a changed
recipe never meets an old model. Recipes describe their tensors before they
compute one: the space a model needs is known before the first byte is written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np

ELEMENT_BYTES: Mapping[str, int] = {"BF16": 2, "F32": 4}
"""Bytes of one number, by the safetensors name of its format."""


@dataclasses.dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a checkpoint, before its numbers exist.

    Attributes:
        name: As the model's architecture spells it.
        shape: Outermost dimension first.
        format: Safetensors name of the number format.
    """

    name: str
    shape: tuple[int, ...]
    format: Literal["BF16", "F32"]

    @property
    def size_bytes(self) -> int:
        """Size of the numbers."""
        return math.prod(self.shape) * ELEMENT_BYTES[self.format]


class Recipe(Protocol):
    """How one model is made."""

    @property
    def name(self) -> str:
        """What a user calls the model."""
        ...

    @property
    def revision(self) -> int:
        """Raised whenever the arithmetic changes while everything else here stays."""
        ...

    @property
    def config(self) -> Mapping[str, object]:
        """The checkpoint's ``config.json``."""
        ...

    @property
    def generation_config(self) -> Mapping[str, object]:
        """The checkpoint's ``generation_config.json``."""
        ...

    @property
    def card(self) -> str:
        """The checkpoint's ``README.md``: what it is, where it comes from, its licence."""
        ...

    @property
    def tensors(self) -> Sequence[TensorSpec]:
        """Every tensor, in the order ``generate`` yields their numbers."""
        ...

    def generate(self) -> Iterator[np.ndarray]:
        """Yield each tensor's numbers, BF16 ones as ``uint16`` bit patterns."""
        ...


def fingerprint_recipe(recipe: Recipe, *, inputs: Sequence[str]) -> str:
    """Return a short name for the bytes this recipe makes.

    Args:
        recipe: The recipe.
        inputs: Digests of everything read from outside the recipe.
    """
    described = {
        "name": recipe.name,
        "revision": recipe.revision,
        "config": dict(recipe.config),
        "generation_config": dict(recipe.generation_config),
        "card": recipe.card,
        "tensors": [[t.name, list(t.shape), t.format] for t in recipe.tensors],
        "inputs": list(inputs),
    }
    text = json.dumps(described, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
