"""Reading settings from the environment, and what a program says when it cannot start.

A misspelt variable would silently change nothing, so names with our prefix that
no setting has are refused.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from trierarch.core.errors import InvalidInput, TrierarchError

SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def read_settings(
    settings: type[SettingsT], owner: str, environment: Mapping[str, str] | None = None
) -> SettingsT:
    """Return settings read from the environment.

    Args:
        settings: Their class, with a prefix.
        owner: Whose they are, for messages.
        environment: To look for misspelt names in; the process's own by default.

    Raises:
        InvalidInput: If a value is missing or wrong, or a name with the prefix is unknown.
    """
    prefix = str(settings.model_config["env_prefix"])
    names = os.environ if environment is None else environment
    known = {f"{prefix}{field}".upper() for field in settings.model_fields}
    for name in sorted(names):
        base = name.upper().split("__", maxsplit=1)[0]
        if name.upper().startswith(prefix) and base not in known:
            raise InvalidInput(f"{name} is not a setting of the {owner}")
    nothing: dict[str, Any] = {}
    try:
        # Fields without a default come from the environment, which a type checker cannot know.
        return settings(**nothing)
    except ValidationError as error:
        first: dict[str, Any] = dict(error.errors()[0])
        field = "__".join(str(part) for part in first["loc"]).upper()
        raise InvalidInput(f"{prefix}{field}: {first['msg']}") from error


def run_program(name: str, work: Callable[[], None]) -> int:
    """Run a program's work; return its exit code, with one line for what stopped it.

    Args:
        name: In front of the line.
        work: The whole program; what users can put right it raises as ``TrierarchError``.
    """
    try:
        work()
    except InvalidInput as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 2
    except TrierarchError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 1
    return 0
