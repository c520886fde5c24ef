"""A gateway whose ledger is PostgreSQL, as in a cluster: it accounts, and survives the server."""

from __future__ import annotations

import concurrent.futures
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from trierarch.adapters.ledger import Ledger
from trierarch.core.clock import SystemClock
from trierarch.core.identifiers import TenantId
from trierarch.testing.gateway_process import GatewayProcess, build_environment, run_gateway
from trierarch.testing.postgresql_server import PostgresqlServer, reason_to_skip
from trierarch.testing.simulated_engines import EngineProcess
from trierarch.testing.waiting import wait_until

ACME = TenantId("acme")
MESSAGES: list[dict[str, str]] = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    if reason := reason_to_skip():
        pytest.skip(reason)
    # A commit that was answered must be there after the kill.
    server = PostgresqlServer(is_durable=True)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def url(server: PostgresqlServer) -> str:
    return server.create_database()


@pytest.fixture
def env(tmp_path: Path, url: str, engine: EngineProcess) -> dict[str, str]:
    replicas = json.dumps([{"model": "simulated", "port": engine.port}])
    return build_environment(tmp_path, LEDGER_URL=url, STATIC_REPLICAS=replicas)


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger.open(url, SystemClock())
    yield opened
    opened.close()


def ask(gateway: GatewayProcess, key: str) -> tuple[int, str]:
    """Stream an answer and return its output tokens and what it cost."""
    with openai.OpenAI(base_url=gateway.url, api_key=key, max_retries=0) as client:
        stream = client.chat.completions.create(
            model="simulated",
            messages=MESSAGES,
            max_tokens=5,
            stream=True,
            stream_options={"include_usage": True},
        )
        final = list(stream)[-1]
    assert final.usage is not None
    return final.usage.completion_tokens, (final.usage.model_extra or {})["cost"]["amount"]


def totals(ledger: Ledger) -> tuple[int, int]:
    usage = ledger.tenant_usage(ACME)
    return usage.requests, usage.tokens.output_tokens


def test_from_a_request_to_the_ledger(env: dict[str, str], ledger: Ledger) -> None:
    key, _ = ledger.create_key(ACME)
    with run_gateway(env) as gateway:
        wait_until(gateway.is_ready)
        tokens, cost = ask(gateway, key)
        spent = httpx.get(gateway.url + "/usage", headers={"x-api-key": key}).json()
        assert (spent["requests"], spent["spend"]["amount"]) == (1, cost)
        assert gateway.end()[0] == 0
    assert totals(ledger) == (1, tokens)


def test_two_gateways_share_a_ledger(
    tmp_path: Path, env: dict[str, str], url: str, ledger: Ledger
) -> None:
    key, _ = ledger.create_key(ACME)
    replicas = env["TRIERARCH_GATEWAY_STATIC_REPLICAS"]
    second = build_environment(tmp_path / "second", LEDGER_URL=url, STATIC_REPLICAS=replicas)
    with run_gateway(env) as one, run_gateway(second) as other:
        wait_until(lambda: one.is_ready() and other.is_ready())
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: ask((one, other)[n % 2], key), range(40)))
        assert (one.end()[0], other.end()[0]) == (0, 0)
    assert totals(ledger) == (40, sum(tokens for tokens, _ in answers))


def test_a_server_that_dies_under_load_costs_no_answer_and_no_usage(
    env: dict[str, str], server: PostgresqlServer, ledger: Ledger
) -> None:
    key, _ = ledger.create_key(ACME)
    stop = threading.Event()

    def keep_asking() -> list[int]:
        answers = []
        while not stop.is_set():
            answers.append(ask(gateway, key)[0])
        return answers

    with run_gateway(env) as gateway:
        wait_until(gateway.is_ready)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(keep_asking) for _ in range(4)]
            wait_until(lambda: ledger.tenant_usage(ACME).requests > 0)
            server.kill()
            # Some answers are given while there is no database.
            threading.Event().wait(1.0)
            server.start()
            stop.set()
            answers = [tokens for client in clients for tokens in client.result()]
        # The connections of before are dead; the reader's next attempt takes a new one.
        wait_until(lambda: totals(ledger) == (len(answers), sum(answers)))
        assert gateway.end()[0] == 0
    assert totals(ledger) == (len(answers), sum(answers))


def test_a_killed_gateway_finishes_its_accounts_when_it_starts_again(
    env: dict[str, str], server: PostgresqlServer, ledger: Ledger
) -> None:
    key, _ = ledger.create_key(ACME)
    with run_gateway(env) as gateway:
        wait_until(gateway.is_ready)
        server.kill()
        try:
            answers = [ask(gateway, key)[0] for _ in range(3)]
            # Longer than the spool gathers before it syncs.
            threading.Event().wait(0.5)
            gateway.process.kill()
            gateway.process.wait(10)
        finally:
            server.start()
    assert totals(ledger) == (0, 0)
    with run_gateway(env) as again:
        wait_until(lambda: totals(ledger) == (3, sum(answers)))
        # Accounts are settled before it is ready to be told to end.
        wait_until(again.is_ready)
        assert again.end()[0] == 0


def test_a_gateway_without_its_server_says_so_in_one_line(
    env: dict[str, str], server: PostgresqlServer, url: str
) -> None:
    gone = url.replace("pg-", "gone-").replace("ledger@", "ledger:secret@")
    with run_gateway(env | {"TRIERARCH_GATEWAY_LEDGER_URL": gone}) as gateway:
        _, errors = gateway.process.communicate(timeout=60)
    assert gateway.process.returncode == 1
    [line] = errors.splitlines()
    assert line.startswith("trierarch gateway: the ledger postgresql+psycopg://ledger:***@")
    assert "secret" not in line
