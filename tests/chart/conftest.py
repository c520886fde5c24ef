"""Helm and promtool, built from their pinned modules."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.chart.chart import Helm
from tests.cluster.build import build


@pytest.fixture(scope="session")
def helm_program() -> Path:
    return build("helm")


@pytest.fixture(scope="session")
def promtool_program() -> Path:
    return build("promtool")


@pytest.fixture(scope="session")
def helm(helm_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(helm_program, tmp_path_factory.mktemp("helm"))
