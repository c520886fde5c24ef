"""The API tier by hand: by its own command, and where ``make kind`` finds nothing for nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from kubernetes import client
from tests.cluster.__main__ import main
from tests.cluster.api_server import ApiServer

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[tuple[IO[str], int]]:
    """Run a command of the harness; yield its output and its process id, then end it."""
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'deploy' / 'local'}", **environment}
    with subprocess.Popen(
        [sys.executable, "-m", *command], cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout, process.pid
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0
        finally:
            process.kill()


def exported(output: IO[str]) -> Path:
    """Return the kubeconfig that the command tells the user to export."""
    for line in output:
        if line.startswith("export KUBECONFIG="):
            return Path(line.strip().removeprefix("export KUBECONFIG="))
    raise AssertionError("nothing was exported")


def nodes_of(kubeconfig: Path, scratch: Path) -> list[client.V1Node]:
    with ApiServer(kubeconfig, scratch).connect() as connection:
        return list(client.CoreV1Api(connection).list_node().items)


@pytest.mark.cluster
def test_a_cluster_by_hand_has_the_nodes_asked_for_and_leaves_no_file(tmp_path: Path) -> None:
    wanted = tmp_path / "kubeconfig"
    command = ["tests.cluster", "up-api", "--nodes", "2", "--accelerator", "B200"]
    command += ["--capacity-type", "Spot", "--kubeconfig", str(wanted)]
    with running(command, {}) as (output, _):
        assert exported(output) == wanted
        assert wanted.stat().st_mode & 0o077 == 0
        labels = [node.metadata.labels for node in nodes_of(wanted, tmp_path)]
        assert [each["nvidia.com/gpu.product"] for each in labels] == ["NVIDIA-B200"] * 2
        assert {each["karpenter.sh/capacity-type"] for each in labels} == {"spot"}
    assert not wanted.exists()


@pytest.mark.cluster
def test_make_kind_gives_the_api_tier_where_nodes_are_not_to_be_had(tmp_path: Path) -> None:
    """Without any program on PATH there is no container engine, whoever runs this."""
    with running(["tests.cluster.node", "up"], {"PATH": str(tmp_path)}) as (output, _):
        assert output.readline().startswith("API tier only")
        kubeconfig = exported(output)
        assert len(nodes_of(kubeconfig, tmp_path)) == 2
    assert not kubeconfig.exists()


def test_an_unknown_capacity_type_is_refused_before_anything_starts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["up-api", "--capacity-type", "Cheap"])
    assert "invalid choice: 'Cheap'" in capsys.readouterr().err
