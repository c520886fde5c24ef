"""The reference page of the custom resources, from the same schemas as their YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trierarch.api.v1alpha1 import API_VERSION
from trierarch.api.v1alpha1.definitions import KINDS, Kind
from trierarch.api.v1alpha1.fields import RULES
from trierarch.api.v1alpha1.schema import build_schema

_HEADER = """\
# Custom resources

Made by `make generate` from `trierarch/api/v1alpha1`; change those models, not this page.
`kubectl explain md.spec --recursive` shows the same.

API version `{version}`. Amounts, rates and durations with a fraction are strings: a JSON number
with a fraction is read differently by every client. "required" fields have no default."""


def build_reference() -> str:
    """Return the page as Markdown."""
    parts = [_HEADER.format(version=API_VERSION)]
    parts += ["\n".join(_describe(kind)) for kind in KINDS]
    return "\n\n".join(parts) + "\n"


def _describe(kind: Kind) -> Iterator[str]:
    schema = build_schema(kind.model)
    yield f"## {kind.name}"
    yield ""
    yield schema["description"]
    yield ""
    names = ", ".join(f"`{name}`" for name in (kind.plural, *kind.short_names))
    yield f"{kind.scope}; {names}; category `trierarch`."
    yield ""
    yield "| field | type | default | meaning |"
    yield "|---|---|---|---|"
    for part, node in schema["properties"].items():
        yield from _rows(part, node, part in schema.get("required", ()))
    found = list(_rules("", schema))
    if found:
        yield ""
        yield "Refused beside what the types say:"
        yield ""
        yield from found


def _rows(path: str, node: Mapping[str, Any], is_required: bool) -> Iterator[str]:
    default = "required" if is_required else ""
    if "default" in node and node["default"] not in ({}, []):
        default = f"`{_word(node['default'])}`"
    meaning = node.get("description", "").replace("|", "\\|")
    if "enum" in node:
        meaning += f" One of {', '.join(f'`{value}`' for value in node['enum'])}."
    yield f"| `{path}` | {_type(node)} | {default} | {meaning.strip()} |"
    yield from _children(path, node)


def _children(path: str, node: Mapping[str, Any]) -> Iterator[str]:
    for name, child in node.get("properties", {}).items():
        yield from _rows(f"{path}.{name}", child, name in node.get("required", ()))
    if "items" in node:
        yield from _children(f"{path}[]", node["items"])


def _type(node: Mapping[str, Any]) -> str:
    if node["type"] == "array":
        return f"list of {_type(node['items'])}"
    if "additionalProperties" in node:
        return f"map of {_type(node['additionalProperties'])}"
    bounds = [
        f"{sign} {node[name]}"
        for name, sign in (("minimum", "≥"), ("maximum", "≤"))
        if name in node
    ]
    return " ".join([str(node["type"]), *bounds])


def _rules(path: str, node: Mapping[str, Any]) -> Iterator[str]:
    for found in node.get(RULES, ()):
        yield f"- `{path}{found.get('fieldPath', '')}`: {found['message']}"
    for name, child in node.get("properties", {}).items():
        yield from _rules(f"{path}.{name}" if path else name, child)
    if "items" in node:
        yield from _rules(f"{path}[]", node["items"])


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
