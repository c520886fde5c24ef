"""Answers that come to cost more than was reserved: more is reserved, or they end cleanly."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx
import pytest

from trierarch.core.identifiers import TenantId
from trierarch.core.usage import Outcome, UsageRecord
from trierarch.cost.budgets import Budget, Period, TenantTerms, day_of
from trierarch.gateway.spending import CHECK_BYTES
from trierarch.ports import TenantBook
from trierarch.testing.local_gateway import TEST_KEY, LocalGateway
from trierarch.testing.replica_source import ready_replica
from trierarch.testing.scripted_engine import (
    HTTP_OK_STREAM,
    ScriptedEngine,
    chunked,
    content_event,
    whole_answer,
)
from trierarch.testing.waiting import wait_until

TENANT = TenantId("tenant")
CHAT = {"model": "simulated", "messages": [{"role": "user", "content": "hi"}], "stream": True}
OUTPUT_USD = Decimal("0.0000004")
"""Of one output token, at the test rate."""


Script = Callable[[socket.socket, bytes], None]


def stream(*output_tokens: int, prompt_tokens: int = 3, pause_seconds: float = 0.0) -> Script:
    """Send one long event for each count, and the end."""

    def script(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(HTTP_OK_STREAM)
        for count in output_tokens:
            text = "x" * CHECK_BYTES
            connection.sendall(chunked(content_event(text, count, prompt_tokens)))
            time.sleep(pause_seconds)
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": output_tokens[-1]}
        final = json.dumps({"id": "c", "choices": [], "usage": usage}, separators=(",", ":"))
        connection.sendall(chunked(f"data: {final}\n\ndata: [DONE]\n\n".encode()) + b"0\r\n\r\n")

    return script


class Shop:
    """A gateway whose tenant has a budget, before an engine that follows a script."""

    def __init__(self, script: Script, budget: str) -> None:
        self.engine = ScriptedEngine(script)
        self.gateway = LocalGateway([ready_replica(self.engine.port)])
        terms = TenantTerms(TENANT, budgets=(Budget(Period.MONTH, Decimal(budget)),))
        self.gateway.tenants.read = TenantBook({TENANT: terms}, {TENANT: {day_of(time.time()): 0}})

    def __enter__(self) -> Shop:
        self.engine.__enter__()
        self.gateway.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.gateway.__exit__(*error)
        self.engine.__exit__(*error)

    def ask(self, **fields: Any) -> httpx.Response:
        return httpx.post(
            self.gateway.base_url + "/chat/completions",
            headers={"authorization": f"Bearer {TEST_KEY}"},
            json={**CHAT, **fields},
            timeout=20.0,
        )

    @property
    def record(self) -> UsageRecord:
        wait_until(lambda: bool(self.gateway.usage.records))
        [record] = self.gateway.usage.records
        return record

    def nothing_is_reserved(self) -> bool:
        assert self.gateway.server is not None
        leases = self.gateway.server.handler.tenants.keeper.leases
        return leases.lease_of(TENANT).reserved_usd == 0


def test_a_stream_takes_more_as_it_grows() -> None:
    counts = range(100, 20_000, 100)
    with Shop(stream(*counts), budget="1.00") as shop:
        answer = shop.ask()
        assert answer.text.endswith("data: [DONE]\n\n")
        assert answer.text.count('"content"') == len(counts)
        assert shop.record.outcome is Outcome.COMPLETED
        assert shop.record.charge.amount == 19_900 * OUTPUT_USD + 3 * OUTPUT_USD / 4
        wait_until(shop.nothing_is_reserved)


def test_a_stream_ends_cleanly_where_its_budget_ends() -> None:
    # It pays for a thousand tokens.
    with Shop(stream(*range(50, 5_000, 50), pause_seconds=0.005), budget="0.0004") as shop:
        answer = shop.ask()
        assert answer.status_code == 200
        *_, last, end = answer.text.split("\n\n")
        assert end == ""
        error = json.loads(last.removeprefix("data: "))["error"]
        assert error["code"] == "insufficient_quota"
        record = shop.record
        assert record.outcome is Outcome.ABORTED
        assert 500 <= record.tokens.output_tokens <= 1_000
        assert record.charge.amount <= Decimal("0.0004")
        # Where several events come at once, the last of them may be beyond what could be reserved.
        cost_usd = record.tokens.output_tokens * OUTPUT_USD + 3 * OUTPUT_USD / 4
        assert Decimal("0.0002") < record.charge.amount <= cost_usd
        wait_until(shop.nothing_is_reserved)


def test_a_stream_is_held_while_the_ledger_is_asked_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Shop(stream(1, 200_000, 200_001), budget="1.00") as shop:
        asked = threading.Event()
        exchange = shop.gateway.tenants.exchange_leases

        def slow(asks: Any) -> Any:
            if any(ask.least_usd > 100_000 * OUTPUT_USD for ask in asks):
                asked.set()
                time.sleep(0.3)
            return exchange(asks)

        monkeypatch.setattr(shop.gateway.tenants, "exchange_leases", slow)
        answer = shop.ask()
        assert asked.is_set()
        assert answer.text.count('"content"') == 3
        assert answer.text.endswith("data: [DONE]\n\n")
        assert shop.record.tokens.output_tokens == 200_001


def test_a_prompt_that_the_budget_cannot_pay_is_refused_before_the_first_byte() -> None:
    with Shop(stream(1, 2, prompt_tokens=50_000), budget="0.004") as shop:
        answer = shop.ask(max_tokens=5)
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "insufficient_quota"
        assert (shop.record.outcome, shop.record.charge.amount) == (Outcome.FAILED, 0)
        wait_until(shop.nothing_is_reserved)


@pytest.mark.parametrize(("budget", "status"), [("1.00", 200), ("0.004", 429)])
def test_an_answer_in_one_piece_takes_more_or_is_refused(budget: str, status: int) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 20_000}
    body = json.dumps({"id": "c", "choices": [], "usage": usage}).encode()
    with Shop(lambda c, _request: c.sendall(whole_answer(200, body)), budget=budget) as shop:
        assert shop.ask(stream=False).status_code == status
        assert (shop.record.charge.amount > 0) is (status == 200)
        wait_until(shop.nothing_is_reserved)


def test_an_absent_ledger_is_said_and_not_taken_for_an_empty_budget() -> None:
    with Shop(stream(1), budget="1.00") as shop:
        shop.gateway.tenants.is_away = True
        answer = shop.ask()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        shop.gateway.tenants.is_away = False
        assert shop.ask().status_code == 200


@pytest.mark.parametrize(("budget", "status"), [("1.00", 200), ("0.004", 429)])
def test_a_stream_that_comes_all_at_once_is_paid_or_refused(budget: str, status: int) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 20_000}
    final = json.dumps({"id": "c", "choices": [], "usage": usage}, separators=(",", ":"))
    events = content_event("x", 20_000) + f"data: {final}\n\ndata: [DONE]\n\n".encode()
    whole = HTTP_OK_STREAM + chunked(events) + b"0\r\n\r\n"
    with Shop(lambda c, _request: c.sendall(whole), budget=budget) as shop:
        assert shop.ask().status_code == status
        expected = 20_000 * OUTPUT_USD + 3 * OUTPUT_USD / 4 if status == 200 else 0
        assert shop.record.charge.amount == expected


def test_a_connection_whose_stream_is_held_may_serve_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine has finished; whose budget pays for it is decided later."""
    long = {"prompt_tokens": 3, "completion_tokens": 20_000}
    final = json.dumps({"id": "c", "choices": [], "usage": long}, separators=(",", ":"))
    events = content_event("x", 20_000) + f"data: {final}\n\ndata: [DONE]\n\n".encode()
    whole = HTTP_OK_STREAM + chunked(events) + b"0\r\n\r\n"
    released = threading.Event()

    def script(connection: socket.socket, request: bytes) -> None:
        if b'"prime"' in request:
            connection.sendall(whole.replace(b"20000", b"    1"))
        elif b'"second"' in request:
            connection.sendall(HTTP_OK_STREAM + chunked(content_event("y", 1)))
            released.set()
            time.sleep(0.5)
            connection.sendall(chunked(events.replace(b"20000", b"2")) + b"0\r\n\r\n")
        else:
            connection.sendall(whole)

    with Shop(script, budget="0.004") as shop, ThreadPoolExecutor() as pool:
        held = threading.Event()
        exchange = shop.gateway.tenants.exchange_leases

        def slow(asks: Any) -> Any:
            if any(ask.least_usd > 10_000 * OUTPUT_USD for ask in asks):
                held.set()
                assert released.wait(10.0)
            return exchange(asks)

        monkeypatch.setattr(shop.gateway.tenants, "exchange_leases", slow)
        # Something is leased already, so the second request need not wait for the ledger.
        assert shop.ask(user="prime", max_tokens=5).status_code == 200
        first = pool.submit(shop.ask)
        assert held.wait(10.0)
        second = shop.ask(user="second", max_tokens=5)
        assert first.result(10.0).status_code == 429
        assert second.text.endswith("data: [DONE]\n\n")
        assert shop.engine.connections == 1
