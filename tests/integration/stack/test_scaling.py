"""Load makes a second replica and its end removes it; a killed one comes back; no stream is cut."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from trierarch.autoscaling.replay import replay
from trierarch.testing.running_stack import RunningStack
from trierarch.testing.waiting import wait_until

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[3]
SCENARIO = Path(__file__).with_name("autoscale.yaml")
TOKENS = 32


def is_balanced(stack: RunningStack) -> bool:
    return "unallocated drift 0" in stack.command("report", "--by", "tenant")


def test_load_scales_up_and_down_and_loses_no_stream(stack: RunningStack, tmp_path: Path) -> None:
    wait_until(lambda: len(stack.ready()) == 1, timeout_seconds=120)
    load = subprocess.run(
        [
            Path(sys.executable).parent / "locust",
            *("-f", str(ROOT / "loadtests" / "locustfile.py"), "--headless", "--only-summary"),
            *("--scenario", str(SCENARIO), "--results", str(tmp_path)),
        ],
        env={
            **os.environ,
            **stack.client_environment,
            "TRIERARCH_DATA_DIR": str(stack.data_dir),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert load.returncode == 0, load.stdout + load.stderr
    wait_until(lambda: len(stack.replicas()) == 1, timeout_seconds=200)
    records: list[dict[str, Any]] = json.loads(stack.command("explain", "--last", "2", "--json"))
    up, down = records
    assert (up["previous"], up["replicas"]) == ({"cpu": 1}, {"cpu": 2})
    assert up["reason"] in ("QueueDepth", "Backlog", "Saturation")
    assert (down["previous"], down["replicas"]) == ({"cpu": 2}, {"cpu": 1})
    assert down["reason"] in ("Idle", "LowLoad")
    for record in records:
        again = replay(record)
        assert dict(again.replicas) == record["replicas"]
        assert again.reason == record["reason"]
    told = stack.command("explain", "--last", "2")
    assert "scale from 1 to 2 replicas" in told
    assert "USD/h" in told
    wait_until(lambda: is_balanced(stack), timeout_seconds=60)


def stream(stack: RunningStack, number: int, has_begun: threading.Event) -> tuple[str, int]:
    """Return the text of a stream, which must end well, and how many tokens it had."""
    text, tokens = "", 0
    with stack.client() as client:
        for chunk in client.chat.completions.create(
            model="pocket",
            messages=[{"role": "user", "content": f"Tell me about the sea, part {number}"}],
            stream=True,
            stream_options={"include_usage": True},
            max_tokens=TOKENS,
            temperature=0.0,
            extra_body={"ignore_eos": True},
        ):
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            tokens = chunk.usage.completion_tokens if chunk.usage else tokens
            if text:
                has_begun.set()
    return text, tokens


def test_a_killed_replica_comes_back_and_its_streams_go_on(stack: RunningStack) -> None:
    wait_until(lambda: len(stack.ready()) == 1, timeout_seconds=200)
    [victim] = stack.ready()
    [pid] = [
        int(pid)
        for pid in os.listdir("/proc")
        if pid.isdigit() and is_serving(int(pid), int(victim["port"]))
    ]
    has_begun = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        # More than one replica runs at once, so that some have not begun when it dies.
        streams = [pool.submit(stream, stack, number, has_begun) for number in range(24)]
        wait_until(lambda: any(r["in_flight"] >= 8 for r in stack.replicas()), timeout_seconds=60)
        assert has_begun.wait(60)
        os.kill(pid, signal.SIGKILL)
        answers = [waiting.result() for waiting in streams]
    assert [tokens for _, tokens in answers] == [TOKENS] * len(answers)
    assert all(text for text, _ in answers)
    assert continuations(stack) >= 1
    wait_until(
        lambda: any(r["replica_id"] != victim["replica_id"] for r in stack.ready()),
        timeout_seconds=200,
    )
    assert stream(stack, 99, has_begun)[1] == TOKENS
    wait_until(lambda: is_balanced(stack), timeout_seconds=60)


def continuations(stack: RunningStack) -> float:
    """Return how many cut streams were given to another replica."""
    page = httpx.get(f"http://127.0.0.1:{stack.admin_port}/metrics", timeout=30.0).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "trierarch_gateway_continuations_total"
    )


def is_serving(pid: int, port: int) -> bool:
    """Return whether a process listens on a TCP port of the loopback interface."""
    needle = f"0100007F:{port:04X} 00000000:0000 0A"
    try:
        lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()
        inodes = {line.split()[9] for line in lines if needle in line}
        links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    except OSError:
        return False
    return any(f"socket:[{inode}]" in links for inode in inodes)
