"""A model on disk: what a replica needs to know before it loads one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

from trierarch.core.errors import InvalidInput

Precision = Literal["auto", "bfloat16", "float16", "float32"]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json")
"""Any one of these makes a tokenizer; every engine reads at least these forms."""

_PRECISIONS: Mapping[str, Precision] = {
    "bfloat16": "bfloat16",
    "float16": "float16",
    "float32": "float32",
}


@dataclasses.dataclass(frozen=True, slots=True)
class LocalModel:
    """A Hugging Face folder.

    Attributes:
        name: What clients write in ``model`` unless told otherwise.
        path: The folder: configuration, weights and tokenizer.
        dtype: Number format to compute in; ``auto`` leaves it to the engine. Engines
            compute float32 weights in a shorter format unless they are told.
        context_tokens: Longest prompt plus answer the model was made for, None if unsaid.
    """

    name: str
    path: Path
    dtype: Precision
    context_tokens: int | None


def read_model_folder(folder: Path, name: str | None = None) -> LocalModel:
    """Return the model in a Hugging Face folder.

    Args:
        folder: Where it is.
        name: Served name; None takes the folder's.

    Raises:
        InvalidInput: If the folder is not a model an engine could load.
    """
    config = _read_json(folder / "config.json")
    if not isinstance(config, dict) or not config.get("architectures"):
        raise InvalidInput(f"model folder {folder}: config.json names no architectures")
    _check_weights(folder)
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise InvalidInput(
            f"model folder {folder}: no tokenizer; one of {', '.join(_TOKENIZER_FILES)} is needed"
        )
    # Multimodal models describe their language model in a part of its own.
    text_config = config.get("text_config")
    parts = [config, text_config] if isinstance(text_config, dict) else [config]
    return LocalModel(
        name=name or folder.resolve().name,
        path=folder.resolve(),
        dtype=_find_precision(parts),
        context_tokens=_find_context(parts),
    )


def _check_weights(folder: Path) -> None:
    shards = {path.name for path in folder.glob("*.safetensors")}
    if not shards:
        raise InvalidInput(f"model folder {folder}: no weights (*.safetensors)")
    index_path = folder / "model.safetensors.index.json"
    if not index_path.exists():
        return
    index = _read_json(index_path)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict):
        raise InvalidInput(f"model folder {folder}: {index_path.name} has no weight_map")
    missing = sorted({str(shard) for shard in weight_map.values()} - shards)
    if missing:
        raise InvalidInput(
            f"model folder {folder}: {len(missing)} weight file(s) are missing, first {missing[0]}"
        )


def _read_json(path: Path) -> object:
    try:
        return cast(object, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InvalidInput(f"model folder {path.parent}: no {path.name}") from None
    except OSError as error:
        raise InvalidInput(f"model folder {path.parent}: {path.name}: {error.strerror}") from error
    except ValueError:
        raise InvalidInput(f"model folder {path.parent}: {path.name} is not JSON") from None


def _find_precision(parts: list[dict[str, object]]) -> Precision:
    for part in parts:
        for key in ("dtype", "torch_dtype"):
            precision = _PRECISIONS.get(str(part.get(key)))
            if precision is not None:
                return precision
    return "auto"


def _find_context(parts: list[dict[str, object]]) -> int | None:
    for part in parts:
        tokens = part.get("max_position_embeddings")
        if isinstance(tokens, int) and tokens > 0:
            return tokens
    return None
