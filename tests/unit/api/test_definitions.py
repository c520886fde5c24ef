"""The definitions follow from the models and are what the API server takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from trierarch.api.v1alpha1.definitions import KINDS, build_definition
from trierarch.api.v1alpha1.fields import RULES
from trierarch.api.v1alpha1.schema import build_schema
from trierarch_operators.generate import build_files

ROOT = Path(__file__).resolve().parents[3]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every level of a schema with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}.{key}")


SCHEMAS = {kind.name: build_schema(kind.model) for kind in KINDS}


FILES = build_files()


@pytest.mark.parametrize("path", FILES, ids=str)
def test_generated_files_are_as_new_as_their_models(path: Path) -> None:
    assert (ROOT / path).read_text() == FILES[path], "run `make generate`"


@pytest.mark.parametrize("kind", SCHEMAS)
def test_no_field_is_a_float(kind: str) -> None:
    assert [path for path, node in nodes(SCHEMAS[kind]) if node["type"] == "number"] == []


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_field_is_explained(kind: str) -> None:
    """``kubectl explain`` shows these sentences."""
    fields = [
        (f"{path}.{name}", child)
        for path, node in nodes(SCHEMAS[kind])
        for name, child in node.get("properties", {}).items()
    ]
    assert [path for path, node in fields if not node.get("description", "").endswith(".")] == []


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_rule_names_its_field_or_stands_on_it(kind: str) -> None:
    for path, node in nodes(SCHEMAS[kind]):
        for rule in node.get(RULES, ()):
            field = rule.get("fieldPath", path).rsplit(".", 1)[-1]
            assert field in rule["message"] or node["type"] == "string", (path, rule)


def test_a_float_is_refused_with_its_path() -> None:
    class Speed(BaseModel):
        ratio: float = 1.0

    with pytest.raises(ValueError, match=r"Speed\.ratio: a float"):
        build_schema(Speed)


def test_a_choice_of_types_is_refused() -> None:
    class Port(BaseModel):
        port: int | str = 80

    with pytest.raises(ValueError, match=r"Port\.port: "):
        build_schema(Port)


def test_model_deployments_can_be_scaled_and_listed_in_a_category() -> None:
    definition = build_definition(KINDS[0])
    version = definition["spec"]["versions"][0]
    assert version["subresources"]["scale"]["specReplicasPath"] == ".spec.replicas"
    assert set(version["subresources"]) == {"status", "scale"}
    assert definition["spec"]["names"]["shortNames"] == ["md"]
    assert definition["spec"]["names"]["categories"] == ["trierarch"]
