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
    return typing.cast(SettingsT, _apply(settings, options, ""))


def _apply(settings: Any, options: Mapping[str, str], above: str) -> Any:
    """Return the settings with all changes made at once: they may need one another."""
    kinds_of = dict(_fields(settings))
    changes: dict[str, Any] = {}
    nested: dict[str, dict[str, str]] = {}
    for path, text in options.items():
        field, _, inner = path.partition(".")
        kinds = kinds_of.get(field)
        opens = dataclasses.is_dataclass(getattr(settings, field, None)) and _may_open(field)
        scalars = _scalars(kinds) if kinds is not None else ()
        if kinds is not None and inner and opens:
            nested.setdefault(field, {})[inner] = text
        elif kinds is not None and scalars and not inner:
            changes[field] = _parse(above + path, text, scalars, kinds)
        else:
            known = ", ".join(above + name for name in option_names(settings))
            raise ValueError(f"no option {above + path!r}; there are {known}")
    for field, inner_options in nested.items():
        changes[field] = _apply(getattr(settings, field), inner_options, f"{above}{field}.")
    return dataclasses.replace(settings, **changes)


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
