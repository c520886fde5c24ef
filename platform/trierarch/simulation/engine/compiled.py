"""The typed door to the compiler, and a cache that cannot go stale.

The compiler's own cache looks only at the file a function stands in, so a
change in a callee of another file would keep running the old machine code. The
cache folder is therefore named by a digest of every file of this package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])

_PACKAGE = Path(__file__).parent
_DIGEST_LENGTH = 16


def _cache_folder() -> Path:
    digest = hashlib.sha256()
    for source in sorted(_PACKAGE.glob("*.py")):
        digest.update(source.read_bytes())
    return _PACKAGE / "__pycache__" / f"compiled-{digest.hexdigest()[:_DIGEST_LENGTH]}"


_CACHE_FOLDER = str(_cache_folder())


def compiled(function: Function) -> Function:
    """Compile ``function`` for callers in Python, or load it from an earlier process's cache."""
    before = numba.config.CACHE_DIR
    # Read when a function is decorated; an unwritable folder falls back to the user's own.
    numba.config.CACHE_DIR = _CACHE_FOLDER
    try:
        return cast(Function, numba.njit(cache=True)(function))
    finally:
        numba.config.CACHE_DIR = before


def inner(function: Function) -> Function:
    """Compile ``function`` for callers that are compiled themselves.

    Without the wrappers that Python needs; the caller's cache holds its code.
    """
    return cast(Function, numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)(function))


def is_warm() -> bool:
    """Tell whether an earlier process left compiled code for exactly these sources."""
    return any(Path(_CACHE_FOLDER).rglob("*.nbc"))
