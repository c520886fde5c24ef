"""A tenant's terms at the gateway, over real sockets with a simulated engine."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx

from trierarch.core.identifiers import ModelName, TenantId
from trierarch.cost.budgets import Action, Budget, Period, TenantTerms, day_of
from trierarch.gateway.errors import GatewayError
from trierarch.ports import TenantBook
from trierarch.settings.gateway import GatewaySettings
from trierarch.testing.local_gateway import TEST_KEY, LocalGateway
from trierarch.testing.replica_source import ready_replica
from trierarch.testing.scripted_engine import ScriptedEngine
from trierarch.testing.simulated_engines import EngineProcess
from trierarch.testing.waiting import wait_until

TENANT = TenantId("tenant")
CHAT = {
    "model": "simulated",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 10,
}
AUTH = {"authorization": f"Bearer {TEST_KEY}"}
WORST_USD = Decimal("0.000005")
"""Less than ten output tokens at the test rate cost with their prompt."""


def tell(gateway: LocalGateway, spent: str = "0", **terms: Any) -> None:
    days = {day_of(time.time()): Decimal(spent)}
    gateway.tenants.read = TenantBook({TENANT: TenantTerms(TENANT, **terms)}, {TENANT: days})


def post(gateway: LocalGateway, **fields: Any) -> httpx.Response:
    url = gateway.base_url + "/chat/completions"
    return httpx.post(url, headers=AUTH, json={**CHAT, **fields}, timeout=20.0)


def month(amount: str, action: Action = Action.BLOCK, **fields: Any) -> Budget:
    return Budget(Period.MONTH, Decimal(amount), action, **fields)


def test_a_budget_that_is_used_up_refuses_before_an_engine_works(engine: EngineProcess) -> None:
    with LocalGateway([ready_replica(engine.port)]) as gateway:
        tell(gateway, spent="0.9999999", budgets=(month("1.00"),))
        answer = post(gateway)
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "insufficient_quota"
        assert answer.headers["x-should-retry"] == "false"
        assert gateway.usage.records == []
        # Somebody raises it: the next request is let in.
        tell(gateway, spent="0.9999999", budgets=(month("1.50"),))
        assert post(gateway).status_code == 200
        usage = httpx.get(gateway.base_url + "/usage", headers=AUTH).json()
        [left] = usage["budgets"]
        assert (left["period"], left["amount"], left["action"]) == ("Month", "1.50", "Block")
        charged = Decimal(usage["spend"]["amount"])
        # What this process has charged counts at once, before the ledger has told it.
        assert Decimal(left["spent"]) == Decimal("0.9999999") + charged
        assert Decimal(left["remaining"]) == Decimal("0.5000001") - charged


def test_a_downgraded_request_is_answered_and_charged_as_the_cheaper_model(
    engine: EngineProcess,
) -> None:
    replicas = [ready_replica(engine.port, model="dear", replica_id="dear")]
    replicas.append(ready_replica(engine.port, replica_id="cheap"))
    cheap = ModelName("simulated")
    with LocalGateway(replicas) as gateway:
        tell(gateway, spent="1", budgets=(month("1", Action.DOWNGRADE, downgrade_to=cheap),))
        answer = post(gateway, model="dear")
        assert answer.status_code == 200
        assert answer.json()["model"] == "simulated"
        wait_until(lambda: bool(gateway.usage.records))
        [record] = gateway.usage.records
        assert (record.model, record.replica_id) == ("simulated", "cheap")


def test_limits_of_the_tenant_are_enforced_and_told(engine: EngineProcess) -> None:
    with LocalGateway([ready_replica(engine.port)]) as gateway:
        tell(gateway, requests_per_minute=2, allowed_models=frozenset({ModelName("simulated")}))
        first = post(gateway)
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert post(gateway).status_code == 200
        third = post(gateway)
        assert third.status_code == 429
        assert third.json()["error"]["code"] == "rate_limit_exceeded"
        assert int(third.headers["retry-after"]) >= 1
        assert post(gateway, model="other").status_code == 403


def test_parallel_requests_are_counted_until_they_end() -> None:
    with (
        ScriptedEngine(
            lambda connection, _request: engine.wait_for_client_to_leave(connection)
        ) as engine,
        LocalGateway([ready_replica(engine.port)]) as gateway,
        ThreadPoolExecutor() as pool,
    ):
        tell(gateway, parallel_requests=1, budgets=(month("1.00"),))
        client = httpx.Client(headers=AUTH)
        running = pool.submit(
            client.post, gateway.base_url + "/chat/completions", json=CHAT, timeout=1.0
        )
        wait_until(lambda: len(engine.requests) == 1)
        second = post(gateway)
        assert (second.status_code, second.json()["error"]["type"]) == (429, "requests")
        # The client gives up, so its place and its reservation are free again.
        assert isinstance(running.exception(20.0), httpx.ReadTimeout)
        client.close()
        assert engine.client_left.wait(20.0)
        assert gateway.server is not None
        desk = gateway.server.handler.tenants
        wait_until(lambda: _is_free(desk, gateway))


def _is_free(desk: Any, gateway: LocalGateway) -> bool:
    terms = gateway.tenants.read.terms[TENANT]
    try:
        desk.check_parallel(terms)
    except GatewayError:
        return False
    return desk.keeper.leases.lease_of(TENANT).reserved_usd == 0


def test_who_has_the_higher_priority_goes_first(engine: EngineProcess) -> None:
    settings = GatewaySettings(
        replica_poll_interval_seconds=0.02, max_ongoing_requests_per_replica=1
    )
    with (
        LocalGateway(settings=settings, models=["simulated"]) as gateway,
        ThreadPoolExecutor() as pool,
    ):
        gateway.keys.add("key-of-vip", "vip")
        vip = TenantId("vip")
        gateway.tenants.read = TenantBook({vip: TenantTerms(vip, priority=10)})

        def waiting() -> int:
            signals = httpx.get(gateway.admin_url + "/api/v1/signals").json()
            depth: int = signals["models"]["simulated"]["waiting"]["default"]
            return depth

        def ask(key: str) -> None:
            headers = {"authorization": f"Bearer {key}"}
            url = gateway.base_url + "/chat/completions"
            httpx.post(url, headers=headers, json=CHAT, timeout=30.0).raise_for_status()

        done = []
        for number, key in enumerate([TEST_KEY, TEST_KEY, "key-of-vip"], start=1):
            done.append(pool.submit(ask, key))
            wait_until(lambda n=number: waiting() == n)  # type: ignore[misc]
        gateway.replica_source.endpoints = [ready_replica(engine.port)]
        for future in done:
            future.result(30.0)
        assert [record.tenant for record in gateway.usage.records] == ["vip", TENANT, TENANT]
