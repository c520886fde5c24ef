"""Many clients at once: queueing, order, spreading, limits, and the end of a process."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from trierarch.core.objectives import LatencyPromise
from trierarch.core.replicas import ReplicaState
from trierarch.core.usage import Outcome
from trierarch.routing.waiting_queue import longest_wait_seconds
from trierarch.settings.gateway import GatewaySettings
from trierarch.testing.local_gateway import TEST_KEY, LocalGateway
from trierarch.testing.replica_source import ready_replica
from trierarch.testing.simulated_engines import EngineProcess, simulated_engine
from trierarch.testing.waiting import wait_until

AUTH = {"authorization": f"Bearer {TEST_KEY}"}
MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = {"model": "simulated", "messages": MESSAGES, "max_tokens": 4}


def settings(**fields: object) -> GatewaySettings:
    return GatewaySettings(replica_poll_interval_seconds=0.05, **fields)  # type: ignore[arg-type]


def signals(gateway: LocalGateway) -> dict[str, object]:
    document = httpx.get(gateway.admin_url + "/api/v1/signals").json()
    return document["models"]["simulated"]


def listed(gateway: LocalGateway, replica_id: str) -> dict[str, object]:
    replicas = httpx.get(gateway.admin_url + "/api/v1/replicas").json()["replicas"]
    [entry] = [one for one in replicas if one["replica_id"] == replica_id]
    return entry


def post(gateway: LocalGateway, **fields: object) -> httpx.Response:
    return httpx.post(
        gateway.base_url + "/chat/completions", headers=AUTH, json={**CHAT, **fields}, timeout=30.0
    )


@pytest.mark.asyncio
async def test_two_hundred_streams_at_once_lose_nothing(
    engine: EngineProcess, second_engine: EngineProcess
) -> None:
    replicas = [ready_replica(engine.port), ready_replica(second_engine.port)]
    with LocalGateway(replicas, settings(max_ongoing_requests_per_replica=64)) as gateway:
        async with openai.AsyncOpenAI(
            base_url=gateway.base_url,
            api_key=TEST_KEY,
            max_retries=0,
            timeout=120.0,
            http_client=openai.DefaultAsyncHttpxClient(
                limits=httpx.Limits(max_connections=200), timeout=120.0
            ),
        ) as client:

            async def stream(number: int) -> int:
                chunks = await client.chat.completions.create(
                    model="simulated",
                    messages=[{"role": "user", "content": f"number {number}"}],
                    max_tokens=20,
                    stream=True,
                    stream_options={"include_usage": True},
                )
                last = None
                async for chunk in chunks:
                    last = chunk
                assert last is not None
                assert last.usage is not None
                return last.usage.completion_tokens

            tokens = await asyncio.gather(*map(stream, range(200)))
        assert tokens == [20] * 200
        records = gateway.usage.records
        assert len({record.request_id for record in records}) == 200
        assert {record.outcome for record in records} == {Outcome.COMPLETED}
        assert sum(record.tokens.output_tokens for record in records) == 4000
        by_replica = Counter(record.replica_id for record in records)
        assert min(by_replica.values()) >= 60
        state = signals(gateway)
        assert (state["in_flight"], state["outstanding_tokens"]) == (0, 0)
        assert (state["arrivals_total"], state["completed_total"]) == (200, 200)


def test_what_does_not_fit_waits_at_the_gateway_in_order_of_tier() -> None:
    with (
        simulated_engine(step_seconds=0.05, max_batch=1) as slow,
        LocalGateway(
            [ready_replica(slow.port)], settings(max_ongoing_requests_per_replica=1)
        ) as gateway,
        ThreadPoolExecutor(8) as pool,
    ):
        first = pool.submit(post, gateway, max_tokens=120)
        wait_until(lambda: signals(gateway)["in_flight"] == 1)
        later = []
        for tier in ("flex", "default", "priority"):
            later.append(pool.submit(post, gateway, max_tokens=2, service_tier=tier))
            wait_until(lambda tier=tier: signals(gateway)["waiting"][tier] == 1)
        state = signals(gateway)
        assert state["in_flight"] == 1
        assert state["waiting"] == {"priority": 1, "default": 1, "flex": 1}
        assert all(count > 0 for count in state["waiting_tokens"].values())
        metrics = httpx.get(gateway.admin_url + "/metrics").text
        assert 'trierarch_gateway_queue_depth{model="simulated",tier="priority"} 1.0' in metrics
        assert all(one.result(30).status_code == 200 for one in (first, *later))
        order = [record.tier.value for record in gateway.usage.records]
        assert order == ["default", "priority", "default", "flex"]
        assert signals(gateway)["queue_wait_seconds_p95"] > 0.5


def test_under_overload_a_fresh_request_goes_before_those_that_are_late_anyway(
    engine: EngineProcess,
) -> None:
    starting = ready_replica(engine.port, state=ReplicaState.STARTING)
    with (
        LocalGateway([starting], settings(max_ongoing_requests_per_replica=1)) as gateway,
        ThreadPoolExecutor(4) as pool,
    ):
        promise = LatencyPromise(ttft_seconds=3.0)
        gateway.replica_source.promises = {starting.model: promise}
        waiting = []
        for tokens in (2, 3):
            waiting.append(pool.submit(post, gateway, max_tokens=tokens))
            wait_until(lambda: signals(gateway)["waiting"]["default"] == len(waiting))
        time.sleep(longest_wait_seconds(promise.ttft_seconds) + 0.1)
        waiting.append(pool.submit(post, gateway, max_tokens=4))
        wait_until(lambda: signals(gateway)["waiting"]["default"] == 3)
        gateway.replica_source.set_state(starting.replica_id, ReplicaState.READY)
        assert [one.result(10).status_code for one in waiting] == [200] * 3
        order = [record.tokens.output_tokens for record in gateway.usage.records]
        assert order == [4, 2, 3]
        metrics = httpx.get(gateway.admin_url + "/metrics").text
        labels = 'model="simulated",tier="default"'
        assert f"trierarch_gateway_relegated_total{{{labels}}} 2.0" in metrics


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    with (
        simulated_engine(step_seconds=0.05, max_batch=1) as slow,
        LocalGateway(
            [ready_replica(slow.port)],
            settings(max_ongoing_requests_per_replica=1, max_queued_requests_per_model=1),
        ) as gateway,
        ThreadPoolExecutor(4) as pool,
    ):
        running = [pool.submit(post, gateway, max_tokens=60)]
        wait_until(lambda: signals(gateway)["in_flight"] == 1)
        running.append(pool.submit(post, gateway))
        wait_until(lambda: signals(gateway)["waiting"]["default"] == 1)
        refused = post(gateway)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        assert [one.result(30).status_code for one in running] == [200, 200]
        outcomes = Counter(record.outcome for record in gateway.usage.records)
        assert outcomes == {Outcome.COMPLETED: 2, Outcome.SHED: 1}


def test_waiting_for_a_replica_ends_in_time() -> None:
    with LocalGateway([], settings(queue_timeout_seconds=0.3), models=["simulated"]) as gateway:
        response = post(gateway)
        assert (response.status_code, response.json()["error"]["code"]) == (504, "queue_timeout")
        [record] = gateway.usage.records
        assert (record.outcome, record.charge.amount) == (Outcome.SHED, 0)


def test_a_replica_that_becomes_ready_takes_those_who_wait(engine: EngineProcess) -> None:
    starting = ready_replica(engine.port, state=ReplicaState.STARTING)
    with LocalGateway([starting], settings()) as gateway, ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(post, gateway) for _ in range(3)]
        wait_until(lambda: signals(gateway)["waiting"]["default"] == 3)
        gateway.replica_source.set_state(starting.replica_id, ReplicaState.READY)
        assert [one.result(10).status_code for one in waiting] == [200] * 3


def test_a_draining_replica_gets_nothing_new_and_finishes(
    engine: EngineProcess, second_engine: EngineProcess
) -> None:
    first = ready_replica(engine.port, replica_id="a")
    second = ready_replica(second_engine.port, replica_id="b")
    with LocalGateway([first, second], settings()) as gateway, ThreadPoolExecutor(2) as pool:
        long = pool.submit(post, gateway, max_tokens=1000)
        wait_until(lambda: signals(gateway)["in_flight"] == 1)
        gateway.replica_source.set_state("a", ReplicaState.DRAINING)
        wait_until(lambda: listed(gateway, "a")["state"] == "draining")
        for _ in range(5):
            assert post(gateway).status_code == 200
        assert long.result(30).json()["usage"]["completion_tokens"] == 1000
        served = [record.replica_id for record in gateway.usage.records]
        assert Counter(served) == {"a": 1, "b": 5}


def test_the_list_may_go_away_while_serving(engine: EngineProcess) -> None:
    with LocalGateway([ready_replica(engine.port)], settings()) as gateway:
        gateway.replica_source.is_available = False
        replicas = gateway.admin_url + "/api/v1/replicas"
        wait_until(lambda: httpx.get(replicas).json()["list_age_seconds"] > 0.3)
        assert post(gateway).status_code == 200
        assert httpx.get(gateway.admin_url + "/readyz").status_code == 200


class TestReadiness:
    def test_before_the_first_list(self) -> None:
        source_off = LocalGateway([], settings())
        source_off.replica_source.is_available = False
        with source_off as gateway:
            answer = httpx.get(gateway.admin_url + "/readyz")
            assert answer.status_code == 503
            assert "replica list" in answer.json()["problems"][0]
            response = post(gateway)
            assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")

    def test_in_a_cluster_with_the_first_list_even_an_empty_one(self) -> None:
        cluster = settings(ready_without_replicas=True)
        with LocalGateway([], cluster) as gateway:
            assert httpx.get(gateway.admin_url + "/readyz").status_code == 200
        with_no_list = LocalGateway([], cluster)
        with_no_list.replica_source.is_available = False
        with with_no_list as gateway:
            assert httpx.get(gateway.admin_url + "/readyz").status_code == 503

    def test_with_the_first_ready_replica_and_ever_after(self, engine: EngineProcess) -> None:
        starting = ready_replica(engine.port, state=ReplicaState.STARTING)
        with LocalGateway([starting], settings()) as gateway:
            assert httpx.get(gateway.admin_url + "/healthz").status_code == 200
            assert httpx.get(gateway.admin_url + "/readyz").status_code == 503
            for state in (ReplicaState.READY, ReplicaState.STARTING):
                gateway.replica_source.set_state(starting.replica_id, state)
                wait_until(
                    lambda state=state: listed(gateway, starting.replica_id)["state"] == state
                )
                assert httpx.get(gateway.admin_url + "/readyz").status_code == 200

    def test_scaled_to_zero(self) -> None:
        with LocalGateway([], settings(), models=["simulated"]) as gateway:
            assert httpx.get(gateway.admin_url + "/readyz").status_code == 200


class TestShutdown:
    def test_running_streams_end_properly_and_nothing_new_begins(
        self, engine: EngineProcess
    ) -> None:
        with (
            LocalGateway([ready_replica(engine.port)], settings()) as gateway,
            httpx.Client(headers=AUTH, timeout=30.0) as client,
            client.stream(
                "POST",
                gateway.base_url + "/chat/completions",
                json={**CHAT, "max_tokens": 1000, "stream": True},
            ) as response,
        ):
            lines = response.iter_lines()
            next(lines)
            gateway.begin_stop()
            wait_until(lambda: httpx.get(gateway.admin_url + "/readyz").status_code == 503)
            with pytest.raises(httpx.ConnectError):
                post(gateway)
            rest = [line for line in lines if line]
            assert rest[-1] == "data: [DONE]"
            assert len(rest) == 1001
            assert gateway.join()
            [record] = gateway.usage.records
            assert record.outcome is Outcome.COMPLETED

    def test_what_takes_too_long_is_ended_with_an_error(self, engine: EngineProcess) -> None:
        with (
            LocalGateway(
                [ready_replica(engine.port)], settings(drain_timeout_seconds=0.3)
            ) as gateway,
            httpx.Client(headers=AUTH, timeout=30.0) as client,
            client.stream(
                "POST",
                gateway.base_url + "/chat/completions",
                json={**CHAT, "max_tokens": 4000, "stream": True},
            ) as response,
        ):
            lines = response.iter_lines()
            next(lines)
            gateway.begin_stop()
            last = [line for line in lines if line][-1]
            assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
            assert gateway.join()
            [record] = gateway.usage.records
            assert (record.outcome, record.charge.amount) == (Outcome.FAILED, 0)
