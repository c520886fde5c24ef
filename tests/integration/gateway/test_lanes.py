"""Lanes that the autoscaler closes or sheds, over real sockets with a simulated engine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import orjson
import pytest

from trierarch.adapters.http_server import build_http_server
from trierarch.adapters.ray_serve import parse_application
from trierarch.autoscaling.admission import FLEX_MARGIN_RATIO
from trierarch.autoscaling.decision import ScalingDecision
from trierarch.autoscaling.pipeline import decide
from trierarch.autoscaling.signals import (
    GatewaySignals,
    Measured,
    Observation,
    TierSignals,
    VariantObservation,
)
from trierarch.autoscaling.state import PipelineState
from trierarch.controller.deployment import ModelDeployment
from trierarch.controller.fleet import Fleet
from trierarch.controller.observing import GatewayReader
from trierarch.controller.replica_records import parse_announcement
from trierarch.controller.server import build_app, expect_token
from trierarch.controller.telemetry import ControllerMetrics
from trierarch.core.admission import Admission
from trierarch.core.clock import SystemClock
from trierarch.core.identifiers import DecisionId, ModelName, VariantName
from trierarch.core.quantities import ZERO_USD
from trierarch.core.usage import Outcome, ServiceTier
from trierarch.gateway.replicas import TimedAdmission
from trierarch.settings.gateway import GatewaySettings
from trierarch.testing.local_gateway import TEST_KEY, LocalGateway
from trierarch.testing.replica_source import ready_replica
from trierarch.testing.simulated_engines import EngineProcess
from trierarch.testing.waiting import wait_until

MODEL = ModelName("simulated")
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
CLOSED = Admission(flex_open=False)


def settings(**fields: object) -> GatewaySettings:
    return GatewaySettings(replica_poll_interval_seconds=0.02, **fields)  # type: ignore[arg-type]


def post(gateway: LocalGateway, tier: str, **fields: object) -> httpx.Response:
    return httpx.post(
        gateway.base_url + "/chat/completions",
        headers={"authorization": f"Bearer {TEST_KEY}"},
        json={**CHAT, "service_tier": tier, **fields},
        timeout=20.0,
    )


def signals(gateway: LocalGateway) -> dict[str, object]:
    document = httpx.get(gateway.admin_url + "/api/v1/signals").json()
    assert isinstance(document, dict)
    return document


def metric(gateway: LocalGateway, name: str, **labels: str) -> float | None:
    httpx.get(gateway.admin_url + "/metrics").raise_for_status()
    return gateway.metrics.registry.get_sample_value(name, labels)


def say(gateway: LocalGateway, admission: Admission) -> None:
    """Let the list say something of lanes, and wait until the gateway acts on it."""
    gateway.replica_source.admissions = {MODEL: TimedAdmission(admission, 60.0)}

    def is_heard() -> bool:
        assert gateway.server is not None
        return gateway.server.handler.directory.dispatchers[MODEL].admission == admission

    wait_until(is_heard)


def test_flex_waits_while_the_lane_is_closed_and_the_others_are_served(
    engine: EngineProcess,
) -> None:
    with (
        LocalGateway([ready_replica(engine.port)], settings()) as gateway,
        ThreadPoolExecutor() as pool,
    ):
        say(gateway, CLOSED)
        asked_unix_seconds = time.time()
        flex = pool.submit(post, gateway, "flex")
        wait_until(lambda: signals(gateway)["models"][MODEL]["waiting"]["flex"] == 1)  # type: ignore[index]
        assert post(gateway, "default").status_code == 200
        assert post(gateway, "priority").status_code == 200
        assert not flex.done()
        assert metric(gateway, "trierarch_gateway_flex_lane_open", model=MODEL) == 0.0
        # What the autoscaler makes of it: a deadline, and load without flex.
        found = GatewayReader().read(signals(gateway), MODEL)
        assert found.flex_deadline_unix_seconds.kind == "measured"
        deadline = found.flex_deadline_unix_seconds.value
        assert deadline == pytest.approx(asked_unix_seconds + 600.0, abs=30.0)
        assert found.flex_patience_seconds.kind == "measured"
        assert found.flex_patience_seconds.value == 600.0
        assert found.queue_wait.kind == "measured"
        assert found.queue_wait.value.samples == 2
        say(gateway, Admission())
        assert flex.result(20.0).status_code == 200
        assert metric(gateway, "trierarch_gateway_flex_lane_open", model=MODEL) == 1.0


def test_flex_is_held_no_longer_when_its_time_runs_out(engine: EngineProcess) -> None:
    patience = 2.0
    with LocalGateway(
        [ready_replica(engine.port)], settings(flex_queue_timeout_seconds=patience)
    ) as gateway:
        say(gateway, CLOSED)
        began = time.monotonic()
        assert post(gateway, "flex").status_code == 200
        waited = time.monotonic() - began
        assert waited >= (1.0 - FLEX_MARGIN_RATIO) * patience - 0.05


def test_a_shed_lane_is_refused_before_the_first_byte_and_costs_nothing(
    engine: EngineProcess,
) -> None:
    with LocalGateway([ready_replica(engine.port)], settings()) as gateway:
        say(gateway, Admission(False, (ServiceTier.FLEX, ServiceTier.DEFAULT)))
        for tier, is_stream in (("flex", False), ("default", True)):
            answer = post(gateway, tier, stream=is_stream)
            assert answer.status_code == 503
            error = answer.json()["error"]
            assert (error["code"], error["param"]) == ("queue_full", "service_tier")
            assert tier in error["message"]
            assert int(answer.headers["retry-after"]) >= 1
            counted = {"model": str(MODEL), "tier": tier}
            assert metric(gateway, "trierarch_gateway_shed_requests_total", **counted) == 1.0
        assert post(gateway, "priority").status_code == 200
        wait_until(lambda: len(gateway.usage.records) == 3)
        shed = [r for r in gateway.usage.records if r.tier is not ServiceTier.PRIORITY]
        assert {(r.outcome, r.charge) for r in shed} == {(Outcome.SHED, ZERO_USD)}
        # All demand counts, refused requests included: they are what more capacity is for.
        arrivals = signals(gateway)["models"][MODEL]["tier_arrivals_total"]  # type: ignore[index]
        assert arrivals == {"priority": 1, "default": 1, "flex": 1}


def test_what_a_controller_says_of_lanes_reaches_the_gateway_and_runs_out_without_it(
    engine: EngineProcess,
) -> None:
    """The list comes over HTTP, as a controller or an operator answers; then that one is gone."""
    replica = ready_replica(engine.port)
    said = {
        "replicas": [
            {"replica_id": "r", "model": MODEL, "variant": "cpu", "state": "ready"}
            | {"host": replica.host, "port": replica.port}
        ],
        "admissions": {MODEL: {"flex_open": False, "shed_tiers": ["flex"], "valid_seconds": 1.0}},
    }

    class Controller(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = orjson.dumps(said)
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Tests need no access log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Controller)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}/replicas"
    with LocalGateway(settings=settings(replicas_url=url)) as gateway:
        wait_until(lambda: post(gateway, "flex").status_code == 503)
        assert post(gateway, "default").status_code == 200
        server.shutdown()
        server.server_close()
        thread.join()
        wait_until(lambda: post(gateway, "flex").status_code == 200)


@contextlib.contextmanager
def controller(fleet: Fleet) -> Iterator[str]:
    """Yield the address of the list that embedded mode's controller publishes."""
    app = build_app(fleet, ControllerMetrics(), SystemClock(), expect_token("secret"))
    server = build_http_server(app)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        asyncio.run(server.serve(sockets=[listener]))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/replicas"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def fleet_of(engine: EngineProcess) -> Fleet:
    """Return what the controller knows when one replica runs and has announced itself."""
    model = ModelDeployment.model_validate(
        {"engine": {"model_path": "/models/m", "served_name": str(MODEL)}}
    )
    clock = SystemClock()
    fleet = Fleet((model,), clock)
    replica = {"replica_id": "r", "state": "RUNNING", "start_time_s": clock.unix_seconds()}
    serving = {"target_num_replicas": 1, "replicas": [replica]}
    application = {"status": "RUNNING", "message": "", "deployments": {"replica": serving}}
    fleet.update({model.application: parse_application(model.application, application)})
    said = {"replica_id": "r", "model": MODEL, "variant": "cpu", "state": "ready", "pid": 1}
    said |= {"host": "127.0.0.1", "port": engine.port, "reason": "Serving", "message": ""}
    said |= {"started_unix_seconds": 0.0, "ready_unix_seconds": 1.0, "max_model_tokens": 4096}
    fleet.add(parse_announcement({**said, "in_flight": 0}, clock.monotonic_seconds()))
    return fleet


def decide_for(fleet: Fleet, waiting: float) -> ScalingDecision:
    """Decide on one ready replica, so many default requests waiting for it."""
    [model] = fleet.models
    now = time.time()
    signal = Measured(waiting, now)
    observation = Observation(
        now_unix_seconds=now,
        deployment=model.deployment,
        model=MODEL,
        variants=(VariantObservation(name=VariantName(model.engine.variant), ready=1),),
        gateway=GatewaySignals(waiting_requests=TierSignals(default=signal)),
    )
    spec = model.build_spec(3.0)
    decision, _ = decide(observation, spec, PipelineState(), DecisionId("d"))
    return decision


def test_from_a_decision_through_the_controllers_list_to_the_gateway(engine: EngineProcess) -> None:
    fleet = fleet_of(engine)
    with (
        controller(fleet) as url,
        LocalGateway(settings=settings(replicas_url=url)) as gateway,
        ThreadPoolExecutor() as pool,
    ):
        assert post(gateway, "flex").status_code == 200
        fleet.admissions.note(decide_for(fleet, waiting=1.0))
        gauge = "trierarch_gateway_flex_lane_open"
        wait_until(lambda: metric(gateway, gauge, model=MODEL) == 0.0)
        flex = pool.submit(post, gateway, "flex")
        wait_until(lambda: signals(gateway)["models"][MODEL]["waiting"]["flex"] == 1)  # type: ignore[index]
        assert post(gateway, "default").status_code == 200
        assert not flex.done()
        fleet.admissions.note(decide_for(fleet, waiting=0.0))
        assert flex.result(20.0).status_code == 200
