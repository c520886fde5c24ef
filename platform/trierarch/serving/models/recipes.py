"""The models this platform can make, by name."""

from __future__ import annotations

from collections.abc import Mapping

from trierarch.serving.models.pocket import PocketRecipe
from trierarch.serving.models.recipe import Recipe
from trierarch.serving.models.tiny_deepseek_v3 import TinyDeepseekV3Recipe
from trierarch.serving.models.tiny_qwen3_moe import TinyQwen3MoeRecipe

_RECIPES: tuple[Recipe, ...] = (PocketRecipe(), TinyDeepseekV3Recipe(), TinyQwen3MoeRecipe())

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _RECIPES}

MODEL_NAMES: tuple[str, ...] = tuple(RECIPES)
"""What ``--model`` takes besides a folder; the first is the default."""
