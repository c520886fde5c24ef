"""The architectures that ship with the package, by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import trierarch.hardware
from trierarch.hardware.architecture import ModelArchitecture
from trierarch.hardware.config_json import read_architecture

Bundled = Callable[[str], ModelArchitecture]


@pytest.fixture(scope="session")
def bundled() -> Bundled:
    models = Path(trierarch.hardware.__file__).parent / "models"

    def load(name: str) -> ModelArchitecture:
        return read_architecture(json.loads((models / f"{name}.json").read_text()))

    return load
