"""The model cache: each model is made once, whole or not at all.

A model is made in a hidden folder beside its place and renamed when every byte
is on disk, so a folder under a model's name is a finished model, whatever was
killed before. One process makes a model at a time; the others wait for it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from trierarch.core.errors import InvalidInput, Unavailable
from trierarch.serving.models.checkpoint import sync_folder, write_json, write_text, write_weights
from trierarch.serving.models.local_model import LocalModel, read_model_folder
from trierarch.serving.models.recipe import Recipe, fingerprint_recipe
from trierarch.serving.models.recipes import MODEL_NAMES, RECIPES
from trierarch.serving.models.smollm2 import (
    GGUF_SHA256,
    TOKENIZER_BYTES_UPPER_BOUND,
    build_tokenizer,
    read_smollm2,
)

Progress = Callable[[str, float], None]
"""Called with what is being done and the share done, 0..1."""

INVENTORY_FILE = "trierarch-model.json"
"""Names and sizes of a finished model's files: shows damage without reading gigabytes."""

_PARTIAL_SUFFIX = ".partial"
_HEADER_BYTES_UPPER_BOUND = 1 << 20
_SPACE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT})


def resolve_model(name_or_dir: str, data_dir: Path, progress: Progress) -> LocalModel:
    """Return a model that an engine can load, making it first if need be.

    Args:
        name_or_dir: One of ``MODEL_NAMES``, or a Hugging Face folder.
        data_dir: Where models made here are kept, under ``models``.
        progress: Told about each step.

    Raises:
        InvalidInput: If there is no such model or the folder is not one.
        Unavailable: If the model cannot be made: no space, no right to write, a package missing.
    """
    recipe = RECIPES.get(name_or_dir)
    if recipe is not None:
        return _resolve_recipe(recipe, data_dir / "models", progress)
    folder = Path(name_or_dir).expanduser()
    if not folder.is_dir():
        raise InvalidInput(
            f"no model {name_or_dir!r}: give one of {', '.join(MODEL_NAMES)}, "
            "or a folder with config.json, *.safetensors and a tokenizer"
        )
    model = read_model_folder(folder)
    progress(f"model {model.name}: found", 1.0)
    return model


def _resolve_recipe(recipe: Recipe, models_dir: Path, progress: Progress) -> LocalModel:
    fingerprint = fingerprint_recipe(recipe, inputs=[GGUF_SHA256])
    folder = models_dir / f"{recipe.name}-{fingerprint}"
    with _explain_write_errors(recipe, models_dir):
        if not is_complete(folder):
            models_dir.mkdir(parents=True, exist_ok=True)
            with _lock(models_dir / f".{recipe.name}.lock", recipe.name, progress):
                _remove_partial_models(models_dir, recipe.name)
                # Another process may have made it while this one waited.
                if not is_complete(folder):
                    _make(recipe, folder, progress)
    progress(f"model {recipe.name}: ready", 1.0)
    return read_model_folder(folder, recipe.name)


def is_complete(folder: Path) -> bool:
    """Return whether a folder holds a model made here with every file at its full size."""
    try:
        inventory = json.loads((folder / INVENTORY_FILE).read_text(encoding="utf-8"))
        return all(
            (folder / name).stat().st_size == size for name, size in inventory["files"].items()
        )
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
        return False


def measure_need_bytes(recipe: Recipe) -> int:
    """Return the disk space a model takes, rounded up generously."""
    weights = sum(tensor.size_bytes for tensor in recipe.tensors)
    return weights + _HEADER_BYTES_UPPER_BOUND + TOKENIZER_BYTES_UPPER_BOUND


def _make(recipe: Recipe, folder: Path, progress: Progress) -> None:
    """Make a model; the caller holds the lock."""
    _check_space(recipe, folder.parent)
    partial = folder.parent / f".{folder.name}{_PARTIAL_SUFFIX}"
    partial.mkdir()
    try:
        _write_model(recipe, partial, progress)
        if folder.exists():
            # Damaged, or it would have been taken.
            shutil.rmtree(folder)
        partial.rename(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_model(recipe: Recipe, folder: Path, progress: Progress) -> None:
    progress(f"model {recipe.name}: reading the tokenizer", 0.0)
    for file, content in build_tokenizer(read_smollm2()).items():
        write_json(folder / file, content)
    write_json(folder / "config.json", recipe.config)
    write_json(folder / "generation_config.json", recipe.generation_config)
    write_text(folder / "README.md", recipe.card)
    write_weights(
        folder / "model.safetensors",
        recipe.tensors,
        recipe.generate(),
        lambda share: progress(f"model {recipe.name}: making the weights", share),
    )
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    write_json(folder / INVENTORY_FILE, {"model": recipe.name, "files": files})
    sync_folder(folder)


def _check_space(recipe: Recipe, models_dir: Path) -> None:
    need_bytes = measure_need_bytes(recipe)
    free_bytes = shutil.disk_usage(models_dir).free
    if free_bytes < need_bytes:
        raise Unavailable(_word_full_disk(recipe, models_dir, free_bytes))


def _word_full_disk(recipe: Recipe, models_dir: Path, free_bytes: int) -> str:
    return (
        f"no room for model {recipe.name} in {models_dir}: it needs "
        f"{measure_need_bytes(recipe):,} bytes and {free_bytes:,} are free; "
        "free some space or choose another --data-dir"
    )


def _remove_partial_models(models_dir: Path, name: str) -> None:
    """Remove what killed processes left; the lock says that nobody is writing it."""
    for stale in models_dir.glob(f".{name}-*{_PARTIAL_SUFFIX}"):
        shutil.rmtree(stale)


@contextlib.contextmanager
def _lock(path: Path, name: str, progress: Progress) -> Iterator[None]:
    """Hold a lock that the kernel takes back when its holder dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"model {name}: another process is making it, waiting", 0.0)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explain_write_errors(recipe: Recipe, models_dir: Path) -> Iterator[None]:
    """Turn a refused write into one line that names the folder."""
    try:
        yield
    except OSError as error:
        if error.errno in _SPACE_ERRORS:
            free_bytes = shutil.disk_usage(models_dir).free
            raise Unavailable(_word_full_disk(recipe, models_dir, free_bytes)) from error
        raise Unavailable(
            f"cannot keep model {recipe.name} in {models_dir}: {error.strerror or error}; "
            "choose another --data-dir"
        ) from error
