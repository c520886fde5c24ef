"""What a run shall be, and from that: what the controller runs and which processes start."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from trierarch.core.errors import InvalidInput
from trierarch.embedded.checks import LOCALHOST
from trierarch.embedded.folder import RunFolder
from trierarch.embedded.leftovers import RUN_DATA_DIR_VARIABLE, RUN_ID_VARIABLE
from trierarch.serving.models import LocalModel
from trierarch.serving.specification import EngineSpec
from trierarch.settings.paths import DATA_DIR_VARIABLE, ledger_url, spool_dir

CONTEXT_TOKENS = 2048
"""Longest prompt plus answer: what the KV cache of an embedded replica is made for."""

RAY_OBJECT_STORE_BYTES = 100_000_000
"""Answers do not pass through Ray, so its object store stays nearly empty."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the user asked for."""

    model: str = "pocket"
    port: int = 8080
    admin_port: int = 9090
    data_dir: Path
    engine: Literal["vllm", "simulated"] = "vllm"
    min_replicas: int = 1
    max_replicas: int = 2

    def check(self, system: str = sys.platform) -> None:
        """Check what needs no look at the machine.

        Raises:
            InvalidInput: If the options contradict each other or this is not Linux.
        """
        if system != "linux":
            raise InvalidInput(f"`trierarch up` runs on Linux only, and this is {system}")
        if self.port == self.admin_port:
            raise InvalidInput(f"--port and --admin-port are both {self.port}; choose two ports")
        if self.max_replicas < max(1, self.min_replicas):
            raise InvalidInput(
                f"--max-replicas {self.max_replicas} is below"
                f" --min-replicas {self.min_replicas}; raise it"
                if self.min_replicas > 0
                else "--max-replicas must be 1 or more"
            )


@dataclasses.dataclass(frozen=True, slots=True)
class InternalPorts:
    """Ports nobody has to know, chosen anew for every run."""

    controller: int
    ray: int
    ray_dashboard: int
    ray_client: int
    ray_agent: int
    ray_dashboard_metrics: int
    ray_autoscaler_metrics: int


@dataclasses.dataclass(frozen=True, slots=True)
class ChildSpec:
    """A process to keep running.

    Attributes:
        name: Word in messages and name of its log file.
        command: Program by absolute path, and arguments.
        environment: Whole environment.
        is_asked_first: At the supervisor's sudden death it is asked to end, then killed.
        restart_with: Names of children that are restarted when this one is.
        drain_seconds: How long it may take to end when asked.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    is_asked_first: bool = False
    restart_with: tuple[str, ...] = ()
    drain_seconds: float = 5.0


def build_deployment(
    options: RunOptions, model: LocalModel, cores: int, *, computes_bfloat16: bool = True
) -> dict[str, Any]:
    """Return what the controller shall run.

    Args:
        options: What the user asked for.
        model: On disk.
        cores: Of this machine.
        computes_bfloat16: Whether its processor has instructions for that; one that has not
            serves twice as many tokens in float32, which holds every bfloat16 exactly.
    """
    is_wide = model.dtype == "bfloat16" and not computes_bfloat16
    engine = EngineSpec(
        model_path=str(model.path),
        served_name=model.name,
        dtype="float32" if is_wide else model.dtype,
        max_model_tokens=min(model.context_tokens or CONTEXT_TOKENS, CONTEXT_TOKENS),
        # Threads of two replicas that share a core would wait for each other spinning.
        threads_per_rank=max(1, cores // options.max_replicas),
    )
    return {
        "models": [
            {
                "engine": engine.model_dump(mode="json"),
                "runner": options.engine,
                "scaling": {
                    "minReplicas": options.min_replicas,
                    "maxReplicas": options.max_replicas,
                },
            }
        ]
    }


def build_children(
    options: RunOptions,
    folder: RunFolder,
    ports: InternalPorts,
    *,
    run_id: str,
    cores: int,
    model_name: str,
    inherited: Mapping[str, str],
) -> list[ChildSpec]:
    """Return the processes of a run in the order they start.

    Args:
        options: What the user asked for.
        folder: Where its files are.
        ports: Internal ports.
        run_id: Marks the processes.
        cores: Of this machine.
        model_name: Served name.
        inherited: The supervisor's own environment.
    """
    base = {
        # Importing vLLM without compiled modules takes three times as long, in every process.
        **{name: inherited[name] for name in inherited if name != "PYTHONDONTWRITEBYTECODE"},
        RUN_ID_VARIABLE: run_id,
        RUN_DATA_DIR_VARIABLE: str(folder.data_dir),
        DATA_DIR_VARIABLE: str(folder.data_dir),
        "PYTHONUNBUFFERED": "1",
        "RAY_AUTH_MODE": "disabled",
        # Without it Ray replaces 127.0.0.1 by the machine's address and listens on all of them.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Ray gives its workers the lowest claim on the cores but four; a replica is the service.
        "RAY_worker_niceness": "0",
        # Without it Ray's processes overwrite the environment they are found by.
        "SPT_NOENV": "1",
    }
    controller_url = f"http://{LOCALHOST}:{ports.controller}"
    admin_url = f"http://{LOCALHOST}:{options.admin_port}"
    ledger = ledger_url(folder.data_dir)
    controller = {
        "DATA_DIR": str(folder.data_dir),
        "PORT": str(ports.controller),
        "RAY_DASHBOARD_URL": f"http://{LOCALHOST}:{ports.ray_dashboard}",
        "GATEWAY_ADMIN_URL": admin_url,
        "DEPLOYMENT_FILE": str(folder.deployment_path),
        "TOKEN_FILE": str(folder.token_path),
        "LEDGER_URL": ledger,
    }
    gateway = {
        "HOST": LOCALHOST,
        "PORT": str(options.port),
        "ADMIN_PORT": str(options.admin_port),
        "REPLICAS_URL": f"{controller_url}/replicas",
        "MODELS": f'["{model_name}"]',
        "LEDGER_URL": ledger,
        "SPOOL_DIR": str(spool_dir(folder.data_dir, "gateway")),
    }
    return [
        ChildSpec(
            "ray",
            build_ray_command(folder.ray_temp_dir, ports, max(cores, options.max_replicas)),
            {
                **base,
                "DASHBOARD_METRIC_PORT": str(ports.ray_dashboard_metrics),
                "AUTOSCALER_METRIC_PORT": str(ports.ray_autoscaler_metrics),
            },
            restart_with=("controller",),
            # It has nothing to save, and takes more than ten seconds to end by itself.
            drain_seconds=2.0,
        ),
        ChildSpec(
            "controller",
            (sys.executable, "-m", "trierarch.controller"),
            {**base, **_prefixed("TRIERARCH_CONTROLLER_", controller)},
        ),
        ChildSpec(
            "gateway",
            (sys.executable, "-m", "trierarch.gateway"),
            # What the user set for the gateway stays in force where the run does not decide.
            {
                "TRIERARCH_GATEWAY_DRAIN_TIMEOUT_SECONDS": "4",
                **base,
                **_prefixed("TRIERARCH_GATEWAY_", gateway),
            },
            is_asked_first=True,
        ),
    ]


def _prefixed(prefix: str, values: Mapping[str, str]) -> dict[str, str]:
    return {f"{prefix}{name}": value for name, value in values.items()}


def build_ray_command(temp_dir: Path, ports: InternalPorts, cpus: int) -> tuple[str, ...]:
    """Return the command that runs Ray in the foreground, on this machine only."""
    return (
        sys.executable,
        *("-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--node-ip-address", LOCALHOST, "--port", str(ports.ray)),
        *("--ray-client-server-port", str(ports.ray_client)),
        *("--include-dashboard", "true", "--dashboard-host", LOCALHOST),
        *("--dashboard-port", str(ports.ray_dashboard)),
        *("--dashboard-agent-listen-port", str(ports.ray_agent)),
        *("--num-cpus", str(cpus), "--object-store-memory", str(RAY_OBJECT_STORE_BYTES)),
        *("--disable-usage-stats", "--temp-dir", str(temp_dir)),
    )
