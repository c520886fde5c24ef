"""``python -m trierarch.gateway`` with a real ledger: starts, serves, accounts, ends."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import openai
import pytest

from trierarch.adapters.ledger import Ledger
from trierarch.core.clock import SystemClock
from trierarch.core.identifiers import TenantId
from trierarch.testing.gateway_process import build_environment, run_gateway
from trierarch.testing.simulated_engines import EngineProcess
from trierarch.testing.waiting import wait_until

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(f"sqlite:///{tmp_path}/ledger.db", SystemClock())
    yield opened
    opened.close()


def static(engine: EngineProcess) -> str:
    return json.dumps([{"model": "simulated", "port": engine.port}])


def test_from_a_request_to_the_ledger_and_a_clean_end(
    tmp_path: Path, engine: EngineProcess, ledger: Ledger
) -> None:
    key, _ = ledger.create_key(TenantId("acme"))
    env = build_environment(tmp_path, STATIC_REPLICAS=static(engine))
    with run_gateway(env) as gateway:
        wait_until(gateway.is_ready)
        with openai.OpenAI(base_url=gateway.url, api_key=key, max_retries=0) as client:
            stream = client.chat.completions.create(
                model="simulated",
                messages=MESSAGES,
                max_tokens=5,
                stream=True,
                stream_options={"include_usage": True},
            )
            final = list(stream)[-1]
            usage = client.get("/usage", cast_to=object)
        assert final.usage is not None
        cost = (final.usage.model_extra or {})["cost"]
        assert usage["requests"] == 1
        assert usage["spend"] == cost
        code, lines = gateway.end()
    assert code == 0
    totals = ledger.tenant_usage(TenantId("acme"))
    assert (totals.requests, str(totals.spend)) == (1, cost["amount"])
    assert totals.tokens.output_tokens == 5
    [access] = [line for line in lines if line.get("path") == "/v1/chat/completions"]
    assert (access["tenant"], access["outcome"], access["output_tokens"]) == (
        "acme", "completed", 5,
    )  # fmt: skip
    assert access["charge"] == cost["amount"]
    assert len(access["trace_id"]) == 32
    assert key not in json.dumps(lines)


def test_a_key_made_while_it_runs_works_soon_and_a_revoked_one_not_for_long(
    tmp_path: Path, engine: EngineProcess, ledger: Ledger
) -> None:
    env = build_environment(tmp_path, STATIC_REPLICAS=static(engine))
    with run_gateway(env) as gateway:
        wait_until(gateway.is_ready)
        text, key = ledger.create_key(TenantId("acme"))

        def status() -> int:
            return httpx.get(gateway.url + "/models", headers={"x-api-key": text}).status_code

        wait_until(lambda: status() == 200)
        ledger.revoke_key(key.key_id)
        wait_until(lambda: status() == 401)
        assert gateway.end(signal.SIGINT)[0] == 0


def test_the_replica_list_of_a_controller(
    tmp_path: Path, engine: EngineProcess, ledger: Ledger
) -> None:
    replica = {
        "replica_id": "r1",
        "model": "simulated",
        "variant": "cpu",
        "state": "ready",
        "host": "127.0.0.1",
        "port": engine.port,
        "started_unix_seconds": 1.0,
        "ready_unix_seconds": 2.0,
        "reason": "",
        "max_model_tokens": 99,
    }
    published: list[dict[str, object]] = [{**replica, "state": "starting", "port": 0}]

    class Controller(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = json.dumps({"replicas": published, "models": ["asleep"]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    controller = ThreadingHTTPServer(("127.0.0.1", 0), Controller)
    controller.daemon_threads = True
    threading.Thread(target=controller.serve_forever, daemon=True).start()
    key, _ = ledger.create_key(TenantId("acme"))
    url = f"http://127.0.0.1:{controller.server_address[1]}/api/v1/replicas"
    try:
        with run_gateway(build_environment(tmp_path, REPLICAS_URL=url)) as gateway:
            headers = {"x-api-key": key}

            def listed() -> list[str]:
                if gateway.process.poll() is not None:
                    raise AssertionError(gateway.process.communicate())
                with contextlib.suppress(httpx.ConnectError):
                    models = httpx.get(gateway.url + "/models", headers=headers).json()["data"]
                    return [model["id"] for model in models]
                return []

            wait_until(lambda: listed() == ["asleep", "simulated"])
            assert not gateway.is_ready()
            published[:] = [replica]
            wait_until(gateway.is_ready)
            body = {"model": "simulated", "messages": MESSAGES, "max_tokens": 1}
            answer = httpx.post(gateway.url + "/chat/completions", headers=headers, json=body)
            assert answer.headers["x-trierarch-model-variant"] == "cpu"
            published[:] = []
            wait_until(
                lambda: httpx.get(gateway.admin + "/api/v1/replicas").json()["replicas"] == []
            )
            assert gateway.end()[0] == 0
    finally:
        controller.shutdown()
        controller.server_close()


@pytest.mark.parametrize("which", ["PORT", "ADMIN_PORT"])
def test_a_busy_port_is_one_clear_line(tmp_path: Path, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        replicas = '[{"model": "m", "port": 1}]'
        env = build_environment(tmp_path, STATIC_REPLICAS=replicas, **{which: port})
        with run_gateway(env) as gateway:
            output, errors = gateway.process.communicate(timeout=30)
    assert gateway.process.returncode == 2
    assert output == ""
    assert errors.splitlines() == [
        f"trierarch gateway: cannot listen on 127.0.0.1:{port}"
        f" (TRIERARCH_GATEWAY_{which}): Address already in use"
    ]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"LEDGER_URL": "", "REPLICAS_URL": "http://h"}, "TRIERARCH_GATEWAY_LEDGER_URL"),
        ({"LEDGER_URL": "nonsense", "REPLICAS_URL": "http://h"}, "nonsense"),
        ({"SPOOL_DIR": "/proc/nothing", "REPLICAS_URL": "http://127.0.0.1:1"}, "/proc/nothing"),
        ({"PORT": "many"}, "TRIERARCH_GATEWAY_PORT"),
        ({"PROT": "1"}, "TRIERARCH_GATEWAY_PROT"),
        ({}, "TRIERARCH_GATEWAY_REPLICAS_URL"),
        ({"REPLICAS_URL": "https://x"}, "http://"),
    ],
)
def test_wrong_settings_are_one_clear_line(
    tmp_path: Path, fields: dict[str, object], words: str
) -> None:
    with run_gateway(build_environment(tmp_path, **fields)) as gateway:
        _, errors = gateway.process.communicate(timeout=30)
    assert gateway.process.returncode in {1, 2}
    [line] = errors.splitlines()
    assert line.startswith("trierarch gateway: ")
    assert words in line


def test_usage_survives_a_kill(tmp_path: Path, engine: EngineProcess, ledger: Ledger) -> None:
    key, _ = ledger.create_key(TenantId("acme"))
    env = build_environment(tmp_path, STATIC_REPLICAS=static(engine))
    body = {"model": "simulated", "messages": MESSAGES, "max_tokens": 3}
    with run_gateway(env) as gateway:
        wait_until(gateway.is_ready)
        for _ in range(3):
            answer = httpx.post(
                gateway.url + "/chat/completions", headers={"x-api-key": key}, json=body
            )
            assert answer.status_code == 200
        # The spool gathers for some milliseconds before it syncs.
        wait_until(
            lambda: (
                sum(f.stat().st_size for f in (tmp_path / "spool").rglob("*") if f.is_file()) > 0
                or ledger.tenant_usage(TenantId("acme")).requests == 3
            )
        )
        threading.Event().wait(0.2)
        gateway.process.kill()
        gateway.process.wait(10)
    with run_gateway(env) as again:
        wait_until(again.is_ready)
        wait_until(lambda: ledger.tenant_usage(TenantId("acme")).requests == 3)
        assert again.end()[0] == 0
    assert ledger.tenant_usage(TenantId("acme")).tokens.output_tokens == 9
