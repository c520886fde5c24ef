"""Reading ``values.yaml``: each value with its sentence and what its schema adds.

Above a key stand ``# -- sentence`` and, where the default says too little,
``# @schema {JSON}``, which is merged into what the default implies. Keys that
only group others need no sentence.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import yaml

SENTENCE = "# -- "
SCHEMA = "# @schema "


class ValuesError(ValueError):
    """A values file that lacks something; the message names the key."""


@dataclasses.dataclass(frozen=True)
class Value:
    """One key of the values.

    Attributes:
        path: Keys from the top.
        default: Its default.
        sentence: What it is for; empty for a group.
        schema: What the schema adds to the default's type.
        children: Members, for a group.
    """

    path: tuple[str, ...]
    default: Any
    sentence: str
    schema: dict[str, Any]
    children: tuple[Value, ...] = ()

    @property
    def name(self) -> str:
        """Path with dots, as ``--set`` takes it."""
        return ".".join(self.path)


def read_values(text: str) -> tuple[Value, ...]:
    """Return the values of a file, in its order.

    Raises:
        ValuesError: If a value has no sentence, or a sentence belongs to no value.
    """
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise ValuesError("the values are no mapping")
    lines = text.splitlines()
    values = _read_mapping(node, lines, ())
    sentences = sum(line.strip().startswith(SENTENCE) for line in lines)
    if sentences != len(leaves(values)):
        raise ValuesError(f"{sentences} sentences for {len(leaves(values))} values")
    return values


def leaves(values: tuple[Value, ...]) -> list[Value]:
    """Return the values that hold something, without the groups."""
    found = []
    for value in values:
        found += leaves(value.children) if value.children else [value]
    return found


def _read_mapping(
    node: yaml.MappingNode, lines: list[str], above: tuple[str, ...]
) -> tuple[Value, ...]:
    return tuple(
        _read_value(str(key.value), key.start_mark.line, child, lines, above)
        for key, child in node.value
    )


def _read_value(
    key: str, line: int, node: yaml.Node, lines: list[str], above: tuple[str, ...]
) -> Value:
    path = (*above, key)
    sentence, schema = _read_comments(lines, line, path)
    default = yaml.SafeLoader("").construct_document(node)
    if isinstance(node, yaml.MappingNode) and node.value and not sentence:
        return Value(path, default, "", {}, _read_mapping(node, lines, path))
    if not sentence:
        raise ValuesError(f"{'.'.join(path)} has no sentence: write '{SENTENCE}...' above it")
    if default in (None, {}) and not schema:
        raise ValuesError(f"{'.'.join(path)} needs '{SCHEMA}{{...}}': its default has no type")
    return Value(path, default, sentence, schema)


def _read_comments(
    lines: list[str], line: int, path: tuple[str, ...]
) -> tuple[str, dict[str, Any]]:
    """Return the sentence and the schema in the comment lines straight above a key."""
    sentence = ""
    schema: dict[str, Any] = {}
    while line > 0 and (comment := lines[line - 1].strip()).startswith("#"):
        line -= 1
        if comment.startswith(SENTENCE):
            sentence = comment.removeprefix(SENTENCE)
        elif comment.startswith(SCHEMA):
            try:
                schema = json.loads(comment.removeprefix(SCHEMA))
            except json.JSONDecodeError as error:
                raise ValuesError(f"{'.'.join(path)}: {comment} is no JSON: {error}") from error
    return sentence, schema
