"""The import contracts name exactly the layers that exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "platform" / "trierarch"
CONTRACTS = {
    contract["name"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
}

DECISIONS = {"hardware", "autoscaling", "cost", "routing", "api", "core"}
"""Layers that compute and do nothing else."""

OUTSIDE_THE_LAYERS = {"testing"}
"""Fakes for tests; a contract of its own forbids to ship what imports them."""


def existing_layers() -> set[str]:
    """Return the names of trierarch's direct subpackages and modules."""
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    modules = {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    return packages | modules


def layer_names(entries: list[str]) -> dict[str, bool]:
    """Return each layer's name and whether its entry allows it to be absent."""
    names = {}
    for entry in entries:
        for part in entry.split("|"):
            found = re.fullmatch(r"(\()?trierarch\.(\w+)\)?", part.strip())
            assert found is not None, entry
            names[found[2]] = found[1] is not None
    return names


OPERATORS = "trierarch_operators"
"""A package of its own above all layers."""

LAYERS = layer_names(
    [
        entry
        for entry in CONTRACTS["Higher layers import lower layers"]["layers"]
        if entry != OPERATORS
    ]
)


def test_every_part_of_the_package_has_a_layer() -> None:
    assert existing_layers() - OUTSIDE_THE_LAYERS <= set(LAYERS)


def test_a_layer_may_be_absent_only_if_the_contract_says_so() -> None:
    required = {name for name, optional in LAYERS.items() if not optional}
    assert required <= existing_layers()


def test_no_layer_that_exists_is_called_optional() -> None:
    optional = {name for name, is_optional in LAYERS.items() if is_optional}
    assert optional & existing_layers() == set(), "take the parentheses off these in pyproject.toml"


def sources(contract: str) -> set[str]:
    """Return the layers that a contract restricts."""
    return {name.removeprefix("trierarch.") for name in CONTRACTS[contract]["source_modules"]}


def test_every_decision_layer_that_exists_is_kept_from_input_and_output() -> None:
    assert sources("Decisions do no I/O") == DECISIONS & existing_layers()


def test_only_serving_and_adapters_may_reach_the_engine() -> None:
    contract = "Only serving and the Ray adapters import ray; only serving imports vllm"
    allowed = {"serving", "adapters"} | OUTSIDE_THE_LAYERS
    assert sources(contract) == existing_layers() - DECISIONS - allowed


def test_nothing_that_ships_may_import_the_fakes() -> None:
    contract = "Nothing ships that imports trierarch.testing"
    assert sources(contract) == existing_layers() - OUTSIDE_THE_LAYERS | {OPERATORS}
