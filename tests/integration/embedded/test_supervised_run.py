"""The real supervisor with stand-ins for Ray, controller and gateway: nothing is ever left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from trierarch.embedded.folder import RunFolder
from trierarch.embedded.leftovers import end_processes, find_processes
from trierarch.testing.running_stack import find_free_port
from trierarch.testing.waiting import wait_until

DRIVER = Path(__file__).with_name("stand_in_run.py")


class Run:
    started: ClassVar[list[Run]] = []

    def __init__(self, data_dir: Path, **fields: object) -> None:
        self.data_dir = data_dir
        self.output_path = data_dir.parent / f"output-{len(list(data_dir.parent.iterdir()))}.txt"
        arguments = {
            "data_dir": str(data_dir),
            "model": "tiny-qwen3-moe",
            "engine": "simulated",
            "port": find_free_port(),
            "admin_port": find_free_port(),
            **fields,
        }
        with self.output_path.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(DRIVER), json.dumps(arguments)],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.started.append(self)

    @property
    def output(self) -> str:
        return self.output_path.read_text()

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.output or self.process.poll() is not None)
        assert text in self.output, self.output

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def children(self) -> set[int]:
        return find_processes(str(self.data_dir))


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "data"
    folder.mkdir()
    yield folder
    # Whatever a failed test left; a passed one has asserted that there is nothing.
    while Run.started:
        Run.started.pop().end(signal.SIGKILL)
    end_processes(lambda: find_processes(str(folder)), grace_seconds=0)


def is_quiet(data_dir: Path) -> bool:
    return not find_processes(str(data_dir))


def test_a_ready_run_answers_and_ctrl_c_leaves_nothing(data_dir: Path) -> None:
    run = Run(data_dir, is_stubborn=True)
    run.wait_for("Try it:")
    assert "Paris." in run.output
    assert "7 input and 3 output tokens, cost 0.000012 USD" in run.output
    assert (data_dir / "client.env").stat().st_mode & 0o777 == 0o600
    assert len(run.children()) == 8  # four stand-ins, each with a stubborn child
    assert run.end(signal.SIGINT) == 0
    assert is_quiet(data_dir)
    assert not (data_dir / "run" / "state.json").exists()


def test_a_killed_supervisor_leaves_nothing(data_dir: Path) -> None:
    run = Run(data_dir, is_stubborn=True)
    run.wait_for("Try it:")
    assert run.end(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: is_quiet(data_dir), timeout_seconds=30)
    wait_until(lambda: not RunFolder(data_dir).ray_temp_dir.exists())


def test_a_run_ends_what_a_killed_one_and_its_guard_left_and_keeps_the_key(data_dir: Path) -> None:
    first = Run(data_dir, is_stubborn=True)
    first.wait_for("Try it:")
    key = (data_dir / "client.env").read_text().splitlines()[1]
    guards = [
        int(pid)
        for pid in Path(f"/proc/{first.process.pid}/task/{first.process.pid}/children")
        .read_text()
        .split()
        if b"leftovers.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(guards) == 1
    os.kill(guards[0], signal.SIGKILL)
    first.end(signal.SIGKILL)
    assert not is_quiet(data_dir)  # the stubborn children
    second = Run(data_dir)
    second.wait_for("Try it:")
    assert "processes that an earlier run left" in second.output
    assert (data_dir / "client.env").read_text().splitlines()[1] == key
    assert second.end() == 0
    assert is_quiet(data_dir)


def test_an_interrupt_before_it_is_ready_leaves_nothing(data_dir: Path) -> None:
    run = Run(data_dir, modes={"controller": "unready"})
    run.wait_for("0 of 1 ready")
    assert run.end(signal.SIGINT) == 130
    assert is_quiet(data_dir)


def test_a_crashed_child_is_started_again(data_dir: Path) -> None:
    run = Run(data_dir)
    run.wait_for("Try it:")
    log = data_dir / "logs" / "gateway.log"
    os.kill(int(log.read_text().split()[1]), signal.SIGKILL)
    run.wait_for("gateway was ended by SIGKILL; starting it again")
    wait_until(lambda: log.read_text().count("stand-in") == 2)
    assert run.end() == 0
    assert is_quiet(data_dir)


def test_the_loss_of_ray_restarts_the_controller(data_dir: Path) -> None:
    run = Run(data_dir)
    run.wait_for("Try it:")
    logs = data_dir / "logs"
    os.kill(int((logs / "ray.log").read_text().split()[1]), signal.SIGKILL)
    wait_until(lambda: (logs / "controller.log").read_text().count("stand-in") == 2)
    assert run.end() == 0


def test_a_child_that_crashes_again_and_again_ends_the_run_with_its_log(data_dir: Path) -> None:
    run = Run(data_dir, modes={"controller": "crash"})
    assert run.process.wait(60) == 1
    assert "controller ended with exit code 3, 5 times in a minute" in run.output
    assert "crash" in run.output.splitlines()[-1]
    assert "Traceback" not in run.output
    assert is_quiet(data_dir)


def test_a_busy_port_is_one_line(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        run = Run(data_dir, port=port)
        assert run.process.wait(60) == 2
    assert run.output == (
        f"trierarch: port {port} is in use by another program; choose another with --port PORT\n"
    )
    assert is_quiet(data_dir)


def test_an_unknown_model_is_one_line(data_dir: Path) -> None:
    run = Run(data_dir, model="no-such-model")
    assert run.process.wait(60) == 2
    assert run.output.splitlines()[-1].startswith("trierarch: no model 'no-such-model'")


def test_a_second_run_on_the_folder_is_refused_and_names_the_first(data_dir: Path) -> None:
    first = Run(data_dir)
    first.wait_for("Try it:")
    second = Run(data_dir)
    assert second.process.wait(60) == 2
    assert f"a run (process {first.process.pid}) uses {data_dir} already" in second.output
    assert first.process.poll() is None
    assert len(first.children()) == 8
    assert first.end() == 0


def down(data_dir: Path) -> str:
    command = [sys.executable, "-m", "trierarch.cli.main", "down", "--data-dir", str(data_dir)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_detached_run_outlives_its_caller_until_down(data_dir: Path) -> None:
    caller = Run(data_dir, detach=True)
    assert caller.process.wait(60) == 0
    assert "Try it:" in caller.output
    assert len(caller.children()) == 8
    assert "Ended; nothing is left running." in down(data_dir)
    assert is_quiet(data_dir)
    assert down(data_dir) == f"Nothing runs in {data_dir}.\n"


def test_a_detached_run_that_fails_hands_on_its_exit_code(data_dir: Path) -> None:
    caller = Run(data_dir, detach=True, modes={"controller": "crash"})
    assert caller.process.wait(60) == 1
    assert "5 times in a minute" in caller.output
    assert is_quiet(data_dir)
