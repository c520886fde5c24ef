"""Simulated engines in processes of their own, shared by the tests of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from trierarch.testing.simulated_engines import EngineProcess, simulated_engine


@pytest.fixture(scope="session")
def engine() -> Iterator[EngineProcess]:
    with simulated_engine(step_seconds=0.002, max_batch=256) as process:
        yield process


@pytest.fixture(scope="session")
def second_engine() -> Iterator[EngineProcess]:
    with simulated_engine(step_seconds=0.002, max_batch=256) as process:
        yield process
