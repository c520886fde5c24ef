"""A policy's settings as ``name=value`` texts; a setting inside another is ``outer.inner``."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

SettingsT = TypeVar("SettingsT")
FIXED_NAMES = ("name",)
"""Fields that say what a policy is and not how it behaves."""
_SCALARS = (int, float, bool, str)


def option_names(settings: Any) -> dict[str, str]:
    """Return every scalar setting by dotted name, with its value as text."""
    names: dict[str, str] = {}
    for field, kinds in _fields(settings):
        value = getattr(settings, field)
        if dataclasses.is_dataclass(value) and _may_open(field):
            names |= {f"{field}.{inner}": text for inner, text in option_names(value).items()}
        elif _scalars(kinds):
            names[field] = json.dumps(value) if not isinstance(value, str) else value
    return names


def apply_options(settings: SettingsT, options: Mapping[str, str]) -> SettingsT:
    """Return the settings with some of them changed.

    Raises:
        ValueError: If there is no such setting, or its value is refused.
    """
    for path, text in options.items():
        settings = _apply(settings, path, path, text)
    return settings


def _apply(settings: Any, path: str, rest: str, text: str) -> Any:
    field, _, inner = rest.partition(".")
    kinds = dict(_fields(settings)).get(field)
    if kinds is None:
        raise ValueError(f"no option {path!r}; there are {', '.join(option_names(settings))}")
    if inner:
        nested = getattr(settings, field)
        if not dataclasses.is_dataclass(nested) or not _may_open(field):
            raise ValueError(f"no option {path!r}")
        return dataclasses.replace(settings, **{field: _apply(nested, path, inner, text)})
    scalars = _scalars(kinds)
    if not scalars:
        raise ValueError(f"option {path!r} cannot be set")
    return dataclasses.replace(settings, **{field: _parse(path, text, scalars, kinds)})


def _parse(path: str, text: str, scalars: tuple[type, ...], kinds: tuple[type, ...]) -> Any:
    if types.NoneType in kinds and text.lower() in ("none", "null"):
        return None
    if str in scalars:
        return text
    if bool in scalars:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"option {path} must be true or false, got {text!r}")
        return text.lower() == "true"
    try:
        value = int(text) if float not in scalars else float(text)
    except ValueError as error:
        kind = "a number" if float in scalars else "a whole number"
        raise ValueError(f"option {path} must be {kind}, got {text!r}") from error
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"option {path} must be finite and not negative, got {text!r}")
    return value


def _fields(settings: Any) -> list[tuple[str, tuple[type, ...]]]:
    hints = typing.get_type_hints(type(settings))
    return [
        (field.name, typing.get_args(hints[field.name]) or (hints[field.name],))
        for field in dataclasses.fields(settings)
        if field.name not in FIXED_NAMES
    ]


def _may_open(field: str) -> bool:
    """Return whether what is inside belongs to the policy and not to the fleet."""
    return field == "behavior"


def _scalars(kinds: tuple[type, ...]) -> tuple[type, ...]:
    if any(kind not in (*_SCALARS, types.NoneType) for kind in kinds):
        return ()
    return tuple(kind for kind in kinds if kind in _SCALARS)
