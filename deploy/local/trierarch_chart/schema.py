"""The values' JSON schema: what Helm checks before it renders anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trierarch_chart.values import Value

DRAFT = "http://json-schema.org/draft-07/schema#"
"""The newest draft that all of Helm's versions check alike."""

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}


def build_schema(
    values: tuple[Value, ...], settings: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return the schema; every key that is not named is refused.

    Args:
        values: Of the chart.
        settings: Schema of each process's settings, by the name that ``{"settings": NAME}`` uses.
    """
    document = _build_group(values, settings)
    # Helm gives a chart the values of all charts around it under this name.
    document["properties"]["global"] = {"type": "object"}
    return {"$schema": DRAFT, "title": "Values of the Trierarch chart", **document}


def _build_group(
    values: tuple[Value, ...], settings: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {value.path[-1]: _build_value(value, settings) for value in values},
    }


def _build_value(value: Value, settings: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    if value.children:
        return _build_group(value.children, settings)
    if name := value.schema.get("settings"):
        return {"description": value.sentence, **settings[name]}
    implied: dict[str, Any] = {"description": value.sentence}
    if type(value.default) in _TYPES and not {"enum", "type"} & value.schema.keys():
        implied["type"] = _TYPES[type(value.default)]
    return implied | value.schema


def build_settings_schema(
    model_schema: dict[str, Any], set_by_the_chart: set[str]
) -> dict[str, Any]:
    """Return the schema of a process's settings as values of the chart.

    Args:
        model_schema: JSON schema of the settings' class.
        set_by_the_chart: Settings that users cannot give, because the chart decides them.

    Returns:
        The same with names in camelCase, in draft 7, without a default: a value that is
        not given is the process's own business.
    """
    definitions = model_schema.get("$defs", {})
    properties = {
        camel_case(name): _to_draft_7(schema, definitions)
        for name, schema in model_schema["properties"].items()
        if name not in set_by_the_chart
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def camel_case(name: str) -> str:
    """Return a snake_case name in camelCase."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _to_draft_7(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """Put definitions in their places, and drop titles and defaults."""
    if isinstance(schema, list):
        return [_to_draft_7(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if reference := schema.get("$ref"):
        return _to_draft_7(definitions[reference.rpartition("/")[2]], definitions)
    kept = {}
    for key, member in schema.items():
        if key == "properties":
            kept[key] = {name: _to_draft_7(each, definitions) for name, each in member.items()}
        elif key not in {"title", "default"}:
            kept[key] = _to_draft_7(member, definitions)
    return kept


def write_schema(schema: dict[str, Any]) -> str:
    """Return the text of the schema's file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
