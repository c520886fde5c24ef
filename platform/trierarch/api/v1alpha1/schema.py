"""From a pydantic model to the structural schema that the API server takes.

Structural means: no references, no alternatives by type, a type at every level.
An optional field is one that may be absent, so ``null`` disappears.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

_DROPPED = frozenset({"title", "additionalProperties", "$defs"})
"""``additionalProperties`` is kept only where it is a schema; the API server prunes
unknown fields and refuses ``false``."""

_OPEN = "x-kubernetes-preserve-unknown-fields"


def build_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the structural schema of a model.

    Raises:
        ValueError: If the model holds a float or something else that no structural schema says.
    """
    schema = model.model_json_schema(by_alias=True)
    return _convert(schema, schema.get("$defs", {}), model.__name__)


def _convert(node: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> dict[str, Any]:
    node = _resolve(node, definitions, path)
    if node.get(_OPEN):
        kept = {key: node[key] for key in ("description",) if key in node}
        return _tidy({**kept, "type": "object", _OPEN: True})
    if node.get("type") == "number":
        raise ValueError(f"{path}: a float; use a string with a pattern")
    if "anyOf" in node or "oneOf" in node or "type" not in node:
        raise ValueError(f"{path}: cannot be said in a structural schema: {dict(node)}")
    found = {key: value for key, value in node.items() if key not in _DROPPED}
    if "properties" in node:
        found["properties"] = {
            name: _convert(child, definitions, f"{path}.{name}")
            for name, child in node["properties"].items()
        }
    if isinstance(node.get("additionalProperties"), Mapping):
        values = node["additionalProperties"]
        found["additionalProperties"] = _convert(values, definitions, f"{path}.*")
    if "items" in node:
        found["items"] = _convert(node["items"], definitions, f"{path}[]")
    if node["type"] == "object" and node.get("default") and "properties" in node:
        # The fields below have their own defaults; an empty object lets the server fill them.
        found["default"] = {}
    return _tidy(found)


def _resolve(
    node: Mapping[str, Any], definitions: Mapping[str, Any], path: str
) -> Mapping[str, Any]:
    """Return a node without references and without ``null``; words beside a reference win."""
    while "$ref" in node or "anyOf" in node:
        beside = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
        if beside.get("default", ...) is None:
            del beside["default"]
        if "anyOf" in node:
            choices = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
            if len(choices) != 1:
                raise ValueError(f"{path}: one type and null, not {node['anyOf']}")
            node = {**choices[0], **beside}
        else:
            target = definitions[node["$ref"].removeprefix("#/$defs/")]
            both = [*target.get("x-kubernetes-validations", ())]
            both += [r for r in beside.get("x-kubernetes-validations", ()) if r not in both]
            node = {**target, **beside}
            if both:
                node["x-kubernetes-validations"] = both
    if node.get("default", ...) is None:
        node = {key: value for key, value in node.items() if key != "default"}
    return node


def _tidy(schema: dict[str, Any]) -> dict[str, Any]:
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    return dict(sorted(schema.items()))
