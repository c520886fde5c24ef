"""An expert-parallel group over two Ray nodes: the tokens of one rank, and whole or nothing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from trierarch.adapters.ray_serve import RayServe
from trierarch.serving.models import LocalModel, resolve_model
from trierarch.serving.specification import EngineSpec
from trierarch.testing.ray_nodes import NODE_ADDRESSES, run_ray_nodes
from trierarch.testing.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.allow_hosts(["127.0.0.1", *NODE_ADDRESSES])]

PROMPTS = [f"{number} oars and {number * 7} rowers" for number in range(6)]


class Announced:
    """Takes announcements as the controller does."""

    def __init__(self, folder: Path) -> None:
        self.replicas: dict[str, dict[str, Any]] = {}
        announced = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name http.server calls
                body = self.rfile.read(int(self.headers["content-length"]))
                document = json.loads(body)
                announced.replicas[document["replica_id"]] = document
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.token_path = folder / "token"
        self.token_path.write_text("test")
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def ready(self, variant: str) -> list[dict[str, Any]]:
        found = self.replicas.values()
        return [r for r in found if r["variant"] == variant and r["state"] == "ready"]


def application(announced: Announced, model: LocalModel, **fields: Any) -> dict[str, Any]:
    spec = EngineSpec.model_validate(
        {
            "model_path": str(model.path),
            "served_name": model.name,
            "dtype": model.dtype,
            "max_model_tokens": 512,
            **fields,
        }
    )
    url = f"http://127.0.0.1:{announced.server.server_address[1]}/announcements"
    return {
        "name": spec.variant,
        "route_prefix": None,
        "import_path": "trierarch.serving.application:build_application",
        "external_scaler_enabled": True,
        "args": {
            "engine": spec.model_dump(mode="json"),
            "announce": {"url": url, "token_file": str(announced.token_path)},
        },
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ep")


@pytest.fixture(scope="module")
def announced(folder: Path) -> Iterator[Announced]:
    announced = Announced(folder)
    yield announced
    announced.server.shutdown()
    announced.server.server_close()


@pytest.fixture(scope="module")
def ray_url(folder: Path) -> Iterator[str]:
    with run_ray_nodes(folder / "nodes", os.environ, cpus_per_node=4) as url:
        yield url


def deploy(ray_url: str, announced: Announced, applications: list[dict[str, Any]]) -> None:
    """Let these applications be all that run, and wait until each serves."""

    async def apply() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            await RayServe(client, ray_url).deploy(applications)

    asyncio.run(apply())
    variants = [str(app["name"]) for app in applications]
    try:
        wait_until(
            lambda: all(announced.ready(variant) for variant in variants), timeout_seconds=400
        )
    except AssertionError as error:
        states = [(r["variant"], r["state"], r["message"]) for r in announced.replicas.values()]
        raise AssertionError(f"of {variants} only these announced themselves: {states}") from error


def make_model(name: str, folder: Path) -> LocalModel:
    return resolve_model(name, folder / "data", lambda _text, _share: None)


def complete(replica: dict[str, Any], prompt: str) -> list[int]:
    answer = httpx.post(
        f"http://{replica['host']}:{replica['port']}/v1/completions",
        json={
            "model": replica["model"],
            "prompt": prompt,
            "max_tokens": 24,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
        },
        timeout=120.0,
    )
    assert answer.status_code == 200, answer.text
    return list(answer.json()["choices"][0]["token_ids"])


def find_ranks(folder: Path) -> dict[int, str]:
    """Return the engine processes of the group's ranks and their names."""
    return find_processes_named("VLLM::Worker_DP", folder)


def find_processes_named(part: str, folder: Path) -> dict[int, str]:
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            name = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if part in name and str(folder).encode() in environment:
            found[int(pid)] = name
    return found


def answer_together(replica: dict[str, Any]) -> list[list[int]]:
    with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
        return list(pool.map(lambda prompt: complete(replica, prompt), PROMPTS))


@pytest.fixture(scope="class")
def data_parallel(ray_url: str, announced: Announced, folder: Path) -> None:
    model = make_model("tiny-qwen3-moe", folder)
    group = {"parallelism": {"data": 2, "expert": True}, "spread_ranks": "strict-spread"}
    applications = [
        application(announced, model, variant="one"),
        application(announced, model, variant="group", **group),
    ]
    deploy(ray_url, announced, applications)


@pytest.fixture(scope="class")
def tensor_parallel(ray_url: str, announced: Announced, folder: Path) -> None:
    model = make_model("tiny-deepseek-v3", folder)
    parallelism = {"parallelism": {"tensor": 2, "expert": True}}
    applications = [
        application(announced, model, variant="deepseek-one"),
        application(announced, model, variant="deepseek-tensor", **parallelism),
    ]
    deploy(ray_url, announced, applications)


@pytest.mark.usefixtures("data_parallel")
class TestDataParallel:
    """One rank and a group of two on two nodes, both of the model with grouped queries."""

    def test_two_ranks_on_two_nodes_speak_the_tokens_of_one(
        self, ray_url: str, announced: Announced, folder: Path
    ) -> None:
        [one], [group] = announced.ready("one"), announced.ready("group")
        expected = [complete(one, prompt) for prompt in PROMPTS]
        assert len({tuple(tokens) for tokens in expected}) == len(PROMPTS)
        assert [complete(group, prompt) for prompt in PROMPTS] == expected
        assert answer_together(group) == expected
        names = " ".join(find_ranks(folder).values())
        assert "DP0_EP0" in names
        assert "DP1_EP1" in names
        nodes = httpx.get(f"{ray_url}/api/v0/actors?detail=1", timeout=30.0).json()
        actors = nodes["data"]["result"]["result"]
        placed = {
            a["class_name"].split(":")[0]: a["node_id"]
            for a in actors
            if a["state"] == "ALIVE"
            and ("RankProcess" in a["class_name"] or "group" in str(a["name"]))
        }
        assert len(set(placed.values())) == len(NODE_ADDRESSES), placed

    def test_a_lost_rank_takes_its_group_along_and_a_whole_one_comes_back(
        self, ray_url: str, announced: Announced, folder: Path
    ) -> None:
        [before] = announced.ready("group")
        [one] = announced.ready("one")
        [victim] = [pid for pid, name in find_ranks(folder).items() if "DP1" in name]
        os.kill(victim, signal.SIGKILL)

        def replaced() -> list[dict[str, Any]]:
            others = announced.ready("group")
            return [r for r in others if r["replica_id"] != before["replica_id"]]

        wait_until(lambda: bool(replaced()), timeout_seconds=400)
        [after] = replaced()
        assert complete(after, PROMPTS[0]) == complete(one, PROMPTS[0])
        assert len(find_ranks(folder)) == 2


@pytest.mark.usefixtures("tensor_parallel")
class TestTensorParallel:
    """One rank and two that split each matrix, both of the model with latent attention."""

    def test_tensor_ranks_with_spread_experts_speak_the_tokens_of_one(
        self, ray_url: str, announced: Announced, folder: Path
    ) -> None:
        [one], [tensor] = announced.ready("deepseek-one"), announced.ready("deepseek-tensor")
        expected = [complete(one, prompt) for prompt in PROMPTS]
        assert len({tuple(tokens) for tokens in expected}) == len(PROMPTS)
        assert [complete(tensor, prompt) for prompt in PROMPTS] == expected
        assert answer_together(tensor) == expected
        names = " ".join(find_processes_named("VLLM::Worker_TP", folder).values())
        assert "TP0_EP0" in names
        assert "TP1_EP1" in names
