"""A gateway in front of a simulated engine, shared by the contract tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import openai
import pytest
import pytest_asyncio

from trierarch.testing.local_gateway import TEST_KEY, LocalGateway
from trierarch.testing.replica_source import ready_replica
from trierarch.testing.simulated_engines import EngineProcess, simulated_engine

LIMITED_KEY = "limited-key"


@pytest.fixture(scope="session")
def engine() -> Iterator[EngineProcess]:
    with simulated_engine(step_seconds=0.002, max_model_tokens=512) as process:
        yield process


@pytest.fixture(scope="module")
def gateway(engine: EngineProcess) -> Iterator[LocalGateway]:
    replica = ready_replica(engine.port, max_model_tokens=512)
    with LocalGateway([replica], models=["sleeping"]) as local:
        local.keys.add(LIMITED_KEY, "limited", allowed_models=["sleeping"])
        yield local


@pytest.fixture
def client(gateway: LocalGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url, api_key=TEST_KEY, max_retries=0) as one:
        yield one


@pytest_asyncio.fixture
async def async_client(gateway: LocalGateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=gateway.base_url, api_key=TEST_KEY, max_retries=0
    ) as one:
        yield one
