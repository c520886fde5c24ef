"""Whole runs: locust as its own process against a real server, from scenario to exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from trierarch.simulation.traces import read_trace

ROOT = Path(__file__).resolve().parents[3]

SCENARIO = {
    "name": "short",
    "description": "A few seconds.",
    "seed": 11,
    "shape": {"kind": "steady", "rate_per_second": 8.0, "duration_seconds": 2.0},
    "arrivals": {"law": "constant"},
    "mix": [
        {
            "kind": "chat",
            "input_tokens": {"law": "constant", "tokens": 20},
            "output_tokens": {"law": "constant", "tokens": 6},
        }
    ],
    # What a busy machine takes is not what these tests are about.
    "slo": {"ttft_seconds": 60.0, "tpot_seconds": 10.0},
    "thresholds": {
        "ttft_p95_seconds": 60.0,
        "tpot_p95_seconds": 10.0,
        "error_ratio": 0,
        "lost_streams": 0,
        "dropped_requests": 0,
        "ledger_token_difference": 0,
    },
    "ledger": {"settle_seconds": 1.0},
    "timeouts": {"connect_seconds": 60, "silence_seconds": 60, "drain_seconds": 60},
}
EMBEDDING = {"kind": "embedding", "input_tokens": {"law": "constant", "tokens": 5}}
PLANNED = 15
"""Eight a second for two seconds, less the one that would start at the very end."""


class LocustRun:
    """A finished locust process."""

    def __init__(self, done: subprocess.CompletedProcess[str], results: Path) -> None:
        self.returncode = done.returncode
        self.output = done.stdout
        self._results = results

    @property
    def summary(self):
        (path,) = self._results.glob("*/summary.json")
        return json.loads(path.read_text())

    @property
    def trace(self):
        """What the simulator reads of the recording."""
        (path,) = self._results.glob("*/requests.csv")
        return read_trace(path)

    def check(self, name):
        (check,) = [c for c in self.summary["verdict"]["checks"] if c["name"] == name]
        return check


SLOW_WORKERS = f"""
import runpy

import gevent
from gevent.monkey import get_original
from locust import events
from locust.runners import WorkerRunner


@events.init.add_listener
def take_long(runner, **_):
    if isinstance(runner, WorkerRunner):
        gevent.sleep(2.0)
        get_original("time", "sleep")(8.0)  # not even a heartbeat


globals().update(runpy.run_path({str(ROOT / "loadtests/locustfile.py")!r}))
"""
"""A locustfile on a busy machine: locust calls its workers ready before they listen to us, and then
they are silent for longer than locust allows."""


def command_line(tmp_path, *arguments):
    return [
        sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py"),
        "--headless", "--only-summary", "--results", str(tmp_path / "results"), *arguments,
    ]  # fmt: skip


def environment(base_url, api_key="sk-test"):
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return inherited | {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": api_key}


@pytest.fixture
def run_locust(tmp_path):
    """Return a function that runs a scenario to its end."""

    def run(server, *arguments, **changes):
        path = tmp_path / "short.yaml"
        path.write_text(yaml.safe_dump(SCENARIO | changes))
        done = subprocess.run(
            command_line(tmp_path, "--scenario", str(path), *arguments),
            env=environment(server.base_url),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        return LocustRun(done, tmp_path / "results")

    return run


def test_a_good_run_passes_and_its_counts_agree_with_the_server(serve, run_locust):
    server = serve()
    run = run_locust(server)
    assert run.returncode == 0, run.output
    assert len(server.served) == PLANNED
    summary = run.summary
    assert summary["totals"]["counts"]["planned"] == PLANNED
    assert summary["totals"]["counts"]["complete"] == PLANNED
    assert summary["ledger"]["difference_tokens"] == 0
    assert summary["ledger"]["client"]["cached_tokens"] == 4 * PLANNED
    assert len(run.trace) == PLANNED
    client = summary["ledger"]["client"]
    assert run.trace.input_tokens.sum() == client["input_tokens"]
    assert run.trace.output_tokens.sum() == client["output_tokens"]
    assert summary["seed"] == 11
    assert summary["run"]["engine"] == "paced-1 (system_fingerprint)"
    assert summary["answers_by_variant"] == {"cpu": PLANNED}
    assert "sk-test" not in json.dumps(summary)
    assert run.output.rstrip().endswith("PASSED: scenario short")


def test_a_slow_server_gets_the_planned_load_all_the_same(serve, run_locust):
    server = serve(first_token_seconds=2.0)
    run = run_locust(server)
    assert run.returncode == 0, run.output
    # A closed loop with one user would have sent one request in two seconds. Here the
    # starts keep the plan: most came before the first answer had its first word.
    first_word_seconds = server.served[0].content_sent_seconds[0]
    assert sum(one.received_seconds < first_word_seconds for one in server.served) > PLANNED // 2
    assert run.summary["measured"]["ttft_seconds"]["p50"] >= 1.9


def test_a_full_cap_drops_counts_and_fails(serve, run_locust):
    server = serve(first_token_seconds=1.5)
    run = run_locust(server, "--max-ongoing", "2")
    assert run.returncode == 1
    counts = run.summary["totals"]["counts"]
    assert counts["dropped"] > 0
    assert counts["dropped"] + len(server.served) == PLANNED
    assert run.check("dropped_requests")["judgement"] == "missed"
    assert len(run.trace) == PLANNED
    assert any("were dropped" in warning for warning in run.summary["warnings"])


def test_lost_streams_and_refusals_are_told_apart_and_fail(serve, run_locust):
    ways = ["stream", "break", "error_event", "429", "500", "400", "drop", "stream"]
    run = run_locust(serve(behaviours=ways))
    assert run.returncode == 1
    counts = run.summary["totals"]["counts"]
    assert counts["lost_stream"] == 2
    for outcome in ("rate_limited", "server_error", "client_error", "failed_before_first_byte"):
        assert counts[outcome] == 1, outcome
    assert counts["complete"] == PLANNED - 6
    assert run.check("lost_streams")["observed"] == 2
    assert run.check("error_ratio")["observed"] == pytest.approx(6 / PLANNED)
    assert {failure["outcome"] for failure in run.summary["failures"]} >= {"lost_stream"}


def test_one_token_missing_in_the_servers_account_fails(serve, run_locust):
    run = run_locust(serve(account_error_tokens=1))
    assert run.returncode == 1
    check = run.check("ledger_token_difference")
    assert (check["judgement"], check["observed"]) == ("missed", PLANNED)


@pytest.mark.parametrize(
    ("required", "returncode", "judgement"),
    [
        pytest.param(False, 0, "not available", id="reported-if-optional"),
        pytest.param(True, 1, "missed", id="missed-if-required"),
    ],
)
def test_an_endpoint_without_account_never_passes_the_ledger_check(
    serve, run_locust, required, returncode, judgement
):
    run = run_locust(serve(has_account=False), ledger={"required": required, "settle_seconds": 1})
    assert run.returncode == returncode
    assert run.check("ledger_token_difference")["judgement"] == judgement


def test_two_workers_send_the_same_plan_once(serve, run_locust):
    server = serve()
    run = run_locust(server, "--processes", "2")
    assert run.returncode == 0, run.output
    assert run.summary["run"]["workers"] == 2
    assert len(server.served) == PLANNED
    assert run.summary["totals"]["counts"]["complete"] == PLANNED
    assert run.summary["ledger"]["difference_tokens"] == 0
    # The plan has one request each 125 ms; two workers that each sent all of it would show pairs.
    assert run.trace.arrival_seconds.tolist() == pytest.approx([at / 8.0 for at in range(PLANNED)])


def test_a_worker_that_starts_before_it_can_listen_misses_nothing(serve, run_locust, tmp_path):
    locustfile = tmp_path / "slow_workers.py"
    locustfile.write_text(SLOW_WORKERS)
    server = serve()
    run = run_locust(server, "--processes", "2", "--locustfile", str(locustfile))
    assert run.returncode == 0, run.output
    assert len(server.served) == PLANNED


def test_embeddings_are_sent_where_the_server_has_them(serve, run_locust):
    mix = [
        *SCENARIO["mix"],
        {"kind": "embedding", "input_tokens": {"law": "constant", "tokens": 5}},
    ]
    run = run_locust(serve(has_embeddings=True), mix=mix)
    assert run.returncode == 0, run.output
    assert run.summary["kinds"]["embedding"]["counts"]["complete"] > 0


def test_embeddings_are_left_out_with_a_note_where_it_has_none(serve, run_locust):
    mix = [
        *SCENARIO["mix"],
        {"kind": "embedding", "input_tokens": {"law": "constant", "tokens": 5}},
    ]
    run = run_locust(serve(), mix=mix)
    assert run.returncode == 0, run.output
    assert "embedding" not in run.summary["kinds"]
    assert "no embeddings" in run.summary["run"]["notes"][0]


def test_an_interrupted_run_does_not_pass(serve, tmp_path):
    server = serve(first_token_seconds=60.0)
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(SCENARIO))
    process = subprocess.Popen(
        command_line(tmp_path, "--scenario", str(path)),
        env=environment(server.base_url),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 90
        while len(server.served) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 1, output
    (path,) = (tmp_path / "results").glob("*/summary.json")
    summary = json.loads(path.read_text())
    assert summary["totals"]["counts"]["cancelled"] >= 3
    assert "plan_carried_out" in {check["name"] for check in summary["verdict"]["checks"]}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param(["--scenario", "nonesuch"], "no scenario 'nonesuch'", id="no-such-scenario"),
        pytest.param(["--rate", "-3"], "not above zero", id="bad-rate"),
        pytest.param(["--host", "http://127.0.0.1:1"], "cannot reach", id="nobody-there"),
        pytest.param(["--api-key", "sk-wrong"], "rejects the API key", id="wrong-key"),
        pytest.param(["--served-model", "gpt-9"], "does not serve 'gpt-9'", id="no-such-model"),
        pytest.param(["--trace", "x.csv"], "needs a trace_replay scenario", id="trace-unused"),
    ],
)
def test_what_cannot_run_says_so_in_one_line(serve, tmp_path, arguments, line):
    server = serve()
    done = subprocess.run(
        command_line(tmp_path, *arguments),
        env=environment(server.base_url),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    errors = [text for text in done.stderr.splitlines() if "error:" in text]
    assert len(errors) == 1
    assert line in errors[0]
    assert "Traceback" not in done.stderr
    assert server.served == []
