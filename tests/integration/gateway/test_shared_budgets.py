"""A budget that several gateway processes spend at once, with real databases and SIGKILL."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, text

from trierarch.adapters.ledger import Ledger
from trierarch.core.clock import SystemClock
from trierarch.core.identifiers import TenantId
from trierarch.cost.budgets import Budget, Period, TenantTerms
from trierarch.testing.gateway_process import GatewayProcess, build_environment, run_gateway
from trierarch.testing.postgresql_server import PostgresqlServer
from trierarch.testing.simulated_engines import EngineProcess
from trierarch.testing.waiting import wait_until

ACME = TenantId("acme")
REQUEST = {
    "model": "simulated",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 10,
}
LEASE_SECONDS = 2.0
DURABLE_SECONDS = 2.0
"""A record is on disk some ten milliseconds after its answer; more where processors are few."""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shared.db"
    postgresql: PostgresqlServer = request.getfixturevalue("postgresql_server")
    return postgresql.create_database()


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a client was given, and when by its own clock."""

    gateway: int
    asked_at: float
    given_at: float
    request_id: str
    usd: Decimal

    def may_be_lost_with(self, end: float) -> bool:
        """Return whether its record may not have been on disk when its gateway was killed.

        A client that waits for a processor reads some time after the kill what came before it.
        """
        return self.asked_at <= end < self.given_at + DURABLE_SECONDS


class Company:
    """Several gateway processes on one ledger, and the clients of one tenant."""

    def __init__(self, folder: Path, url: str, engine: EngineProcess) -> None:
        self.folder = folder
        self.url = url
        self.ledger = Ledger.open(url, SystemClock())
        self.key, _ = self.ledger.create_key(ACME)
        self.replicas = json.dumps([{"model": "simulated", "port": engine.port}])
        self.running: dict[int, GatewayProcess] = {}
        self.killed_at: dict[int, list[float]] = {}
        self.answers: list[Answer] = []
        self._stack = contextlib.ExitStack()

    def set_budget(self, usd: Decimal) -> None:
        self.ledger.replace_tenants([TenantTerms(ACME, budgets=(Budget(Period.MONTH, usd),))])

    def start(self, *numbers: int) -> None:
        for number in numbers:
            environment = build_environment(
                self.folder / f"gateway{number}",
                LEDGER_URL=self.url,
                STATIC_REPLICAS=self.replicas,
                LEASE_SECONDS=LEASE_SECONDS,
                ACCESS_LOG="false",
            )
            self.running[number] = self._stack.enter_context(run_gateway(environment))
        for number in numbers:
            wait_until(functools.partial(self._is_ready, number), timeout_seconds=120.0)

    def _is_ready(self, number: int) -> bool:
        # Where processors are few, a process that starts may not answer in time.
        with contextlib.suppress(httpx.TimeoutException):
            return self.running[number].is_ready()
        return False

    def kill(self, number: int) -> None:
        gateway = self.running.pop(number)
        self.killed_at.setdefault(number, []).append(time.monotonic())
        gateway.process.kill()
        gateway.process.wait(10)

    def ask(self, number: int) -> tuple[int, str]:
        """Return the status and the error's code of one request; 0 if there was no answer."""
        asked_at = time.monotonic()
        try:
            gateway = self.running[number]
            answer = httpx.post(
                gateway.url + "/chat/completions",
                headers={"x-api-key": self.key},
                json=REQUEST,
                timeout=30.0,
            )
            body = answer.json()
        except (httpx.TransportError, json.JSONDecodeError, KeyError):
            return 0, ""
        if answer.status_code == 200:
            usd = Decimal(body["usage"]["cost"]["amount"])
            name = answer.headers["x-request-id"]
            self.answers.append(Answer(number, asked_at, time.monotonic(), name, usd))
            return 200, ""
        return answer.status_code, body["error"]["code"]

    @property
    def spent(self) -> Decimal:
        return self.ledger.tenant_usage(ACME).spend.amount

    def charges(self) -> dict[str, Decimal]:
        engine = create_engine(self.url)
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT request_id, charge FROM usage")).all()
        engine.dispose()
        return {name: Decimal(charge) for name, charge in rows}

    def check_accounts(self) -> None:
        """Compare the ledger with what clients were given."""
        charges = self.charges()
        for answer in self.answers:
            ends = self.killed_at.get(answer.gateway, [])
            if not any(answer.may_be_lost_with(end) for end in ends):
                assert charges[answer.request_id] == answer.usd
        assert sum(charges.values()) == self.spent

    def leases(self) -> int:
        engine = create_engine(self.url)
        with engine.connect() as connection:
            count = connection.execute(text("SELECT count(*) FROM leases")).scalar_one()
        engine.dispose()
        return int(count)

    def close(self) -> None:
        self._stack.close()
        self.ledger.close()


@pytest.fixture
def company(tmp_path: Path, url: str, engine: EngineProcess) -> Iterator[Company]:
    opened = Company(tmp_path, url, engine)
    yield opened
    opened.close()


@pytest.fixture
def cost_usd(company: Company) -> Decimal:
    """Start three gateways and return what one request costs, by asking for it."""
    company.set_budget(Decimal(1))
    company.start(0, 1, 2)
    assert company.ask(0) == (200, "")
    [answer] = company.answers
    return answer.usd


@contextlib.contextmanager
def clients(company: Company, seen: set[tuple[int, str]]) -> Iterator[None]:
    """Have three clients of each of three gateways ask all the time, and note what they get."""
    stop = threading.Event()

    def keep_asking(number: int) -> None:
        while not stop.is_set():
            answer = company.ask(number)
            seen.add(answer)
            if answer != (200, ""):
                time.sleep(0.02)

    with ThreadPoolExecutor(9) as pool:
        asking = [pool.submit(keep_asking, number % 3) for number in range(9)]
        try:
            yield
        finally:
            stop.set()
        for client in asking:
            client.result()


def test_three_gateways_spend_a_budget_to_the_end_and_not_beyond(
    company: Company, cost_usd: Decimal
) -> None:
    # The first request was one; a hundred and twenty more fit, and a part of another.
    budget = cost_usd * 121 + cost_usd / 2
    company.set_budget(budget)
    seen: set[tuple[int, str]] = set()
    with clients(company, seen):
        wait_until(lambda: company.spent > budget - 3 * cost_usd, timeout_seconds=300.0)
    assert seen <= {(200, ""), (429, "insufficient_quota")}
    # Whoever asks last finds what others gave back.
    wait_until(lambda: company.ask(0) == (429, "insufficient_quota"), timeout_seconds=30.0)
    for gateway in company.running.values():
        assert gateway.end()[0] == 0
    # What is left does not pay for one more request as it is estimated.
    assert budget - 3 * cost_usd < company.spent <= budget
    assert len(company.charges()) == len(company.answers)
    company.check_accounts()
    assert company.leases() == 0


def test_kills_at_any_moment_neither_overspend_nor_lose(
    company: Company, cost_usd: Decimal
) -> None:
    budget = cost_usd * 251
    company.set_budget(budget)
    moments = random.Random(7)  # noqa: S311
    with clients(company, set()):
        # Sometimes it is away for longer than its lease.
        for pause_seconds in (0.0, LEASE_SECONDS + 0.5, 0.0):
            time.sleep(moments.uniform(0.2, 1.0))
            victim = moments.randrange(3)
            company.kill(victim)
            assert company.spent <= budget
            time.sleep(pause_seconds)
            company.start(victim)
        wait_until(lambda: company.spent > budget - 3 * cost_usd, timeout_seconds=300.0)
    for gateway in company.running.values():
        assert gateway.end()[0] == 0
    assert budget - 3 * cost_usd < company.spent <= budget
    company.check_accounts()
    assert company.leases() == 0


def test_what_a_dead_process_held_counts_as_spent_until_its_spool_returns(
    company: Company, cost_usd: Decimal
) -> None:
    company.set_budget(cost_usd * 41)
    assert company.running.pop(2).end()[0] == 0
    for _ in range(5):
        assert company.ask(0) == (200, "")
    company.kill(0)
    used = 0
    while company.ask(1) == (200, ""):
        used += 1
    held = company.ledger.tenant_book().spent_by_day[ACME]
    assert used < 35, "some of it is held"
    time.sleep(LEASE_SECONDS)
    held = sum(company.ledger.tenant_book().spent_by_day[ACME].values(), Decimal(0))
    assert company.spent < held <= cost_usd * 41
    company.start(0)
    more = 0
    wait_until(lambda: company.ask(1) == (200, ""), timeout_seconds=10.0)
    for number in itertools.cycle([0, 1]):
        if company.ask(number) != (200, ""):
            break
        more += 1
    assert used + more + 1 + 5 >= 38
    assert company.spent <= cost_usd * 41
