"""One run from its options to its end: check, prepare, start, first answer, watch."""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trierarch.core.clock import Clock
from trierarch.core.errors import Unavailable
from trierarch.embedded import checks
from trierarch.embedded.client_env import parse_client_env, write_client_env
from trierarch.embedded.folder import RunFolder, write_json, write_private
from trierarch.embedded.local_http import accepts_connections, ask, get_json
from trierarch.embedded.options import (
    ChildSpec,
    InternalPorts,
    RunOptions,
    build_children,
    build_deployment,
)
from trierarch.embedded.progress import Reporter
from trierarch.embedded.session import supervise
from trierarch.embedded.supervisor import Supervisor
from trierarch.settings.embedded import EmbeddedSettings, inherited_environment
from trierarch.settings.paths import ledger_url

QUESTION = "What is the capital of France?"
"""The request a run sends itself."""

ChildrenBuilder = Callable[..., Sequence[ChildSpec]]
"""Returns the processes of a run; called as ``build_children`` is."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunContext:
    """What a run works with.

    Attributes:
        options: What the user asked for.
        clock: Time.
        settings: Delays and limits.
        reporter: Tells people.
        announce_ready: Called once when the first answer is there.
        build_children: Returns the processes to run.
    """

    options: RunOptions
    clock: Clock
    settings: EmbeddedSettings
    reporter: Reporter
    announce_ready: Callable[[], None] = lambda: None
    build_children: ChildrenBuilder = build_children


def run(context: RunContext) -> int:
    """Run the platform until a signal; return the exit code.

    Raises:
        InvalidInput: If it cannot be started as asked.
        Unavailable: If a part of it does not work.
    """
    context.options.check()
    folder = RunFolder(context.options.data_dir.expanduser().absolute())

    def body(supervisor: Supervisor) -> None:
        ports = _start(context, folder, supervisor)
        _wait_until_ready(context, supervisor, ports)
        _greet(context, folder, ports)
        supervisor.is_ready = True
        context.announce_ready()
        while True:
            supervisor.watch()

    return supervise(folder, context.clock, context.settings, context.reporter.say, body)


def _start(context: RunContext, folder: RunFolder, supervisor: Supervisor) -> InternalPorts:
    options = context.options
    cores = len(os.sched_getaffinity(0))
    checks.check_port(options.port, "--port")
    checks.check_port(options.admin_port, "--admin-port")
    _check_room(options, folder)
    free = checks.find_free_ports(
        len(dataclasses.fields(InternalPorts)), frozenset({options.port, options.admin_port})
    )
    ports = InternalPorts(*free)
    folder.make_ray_temp_dir()
    write_json(folder.state_path, _build_state(options, ports, supervisor.run_id))
    write_private(folder.token_path, secrets.token_urlsafe(32) + "\n")
    # Importing costs time that only a run shall pay.
    from trierarch.serving.models import resolve_model

    with context.reporter.step(f"Model {options.model}") as step:
        model = resolve_model(options.model, folder.data_dir, step.show)
    is_fast = _computes_bfloat16()
    write_json(
        folder.deployment_path,
        build_deployment(options, model, cores, computes_bfloat16=is_fast),
    )
    _prepare_ledger(context, folder, supervisor.run_id)
    children = context.build_children(
        options,
        folder,
        ports,
        run_id=supervisor.run_id,
        cores=cores,
        model_name=model.name,
        inherited=inherited_environment(),
    )
    with context.reporter.step("Ray"):
        supervisor.start(children[:1])
        supervisor.wait_until(
            lambda: _is_ok(get_json(ports.ray_dashboard, "/api/serve/applications/")),
            "Ray",
            context.settings.start_timeout_seconds,
        )
    supervisor.start(children[1:])
    return ports


def _build_state(options: RunOptions, ports: InternalPorts, run_id: str) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "runId": run_id,
        "model": options.model,
        "port": options.port,
        "adminPort": options.admin_port,
        "controllerPort": ports.controller,
        "rayDashboardPort": ports.ray_dashboard,
    }


def _computes_bfloat16() -> bool:
    return checks.computes_bfloat16(Path("/proc/cpuinfo").read_text(encoding="utf-8"))


def _check_room(options: RunOptions, folder: RunFolder) -> None:
    model_bytes = _measure_model_bytes(options) * (1 if _computes_bfloat16() else 2)
    replicas = max(1, options.max_replicas)
    need_bytes = checks.need_memory_bytes(
        model_bytes, replicas, is_simulated=options.engine == "simulated"
    )
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    checks.check_memory(need_bytes, checks.parse_available_memory_bytes(meminfo), replicas)
    checks.check_disk({folder.ray_temp_dir.parent: checks.RAY_DISK_BYTES})


def _measure_model_bytes(options: RunOptions) -> int:
    """Return the size of a model's weights, also of one not made yet."""
    from trierarch.serving.models.cache import measure_need_bytes
    from trierarch.serving.models.recipes import RECIPES

    recipe = RECIPES.get(options.model)
    if recipe is not None:
        return measure_need_bytes(recipe)
    folder = Path(options.model).expanduser()
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _prepare_ledger(context: RunContext, folder: RunFolder, run_id: str) -> None:
    from trierarch.adapters.ledger import Ledger

    ledger = Ledger.open(ledger_url(folder.data_dir), context.clock)
    try:
        write_client_env(folder.client_env_path, ledger, context.options.port, run_id)
    finally:
        ledger.close()


def _is_ok(answer: tuple[int, Any] | None) -> bool:
    return answer is not None and answer[0] == 200


def _wait_until_ready(context: RunContext, supervisor: Supervisor, ports: InternalPorts) -> None:
    settings = context.settings
    with context.reporter.step("Engine") as step:

        def has_ready_replicas() -> bool:
            answer = get_json(ports.controller, "/status")
            if answer is None or answer[0] != 200:
                return False
            status = answer[1]
            if status.get("failed"):
                raise Unavailable(str(status["failed"]))
            step.show(describe_status(status))
            models = status.get("models") or []
            return bool(models) and all(
                model["ready"] >= min(1, model["desired"]) for model in models
            )

        supervisor.wait_until(has_ready_replicas, "the engine", settings.start_timeout_seconds)
    with context.reporter.step("Gateway"):
        # Ready says that it can serve; the data port is another one and may open a moment later.
        supervisor.wait_until(
            lambda: (
                _is_ok(get_json(context.options.admin_port, "/readyz"))
                and accepts_connections(context.options.port)
            ),
            "the gateway",
            settings.start_timeout_seconds,
        )


def describe_status(status: dict[str, Any]) -> str:
    """Return the controller's status in one line."""
    parts = [f"Engine: {status.get('phase') or 'starting'}"]
    parts += [
        f"{model['name']} {model['ready']} of {model['desired']} ready"
        + (f" ({model['message']})" if model.get("message") else "")
        for model in status.get("models") or []
    ]
    return "; ".join(parts)


def _greet(context: RunContext, folder: RunFolder, ports: InternalPorts) -> None:
    """Send the first request and tell how to go on."""
    options, reporter = context.options, context.reporter
    document = get_json(ports.controller, "/status")
    models = document[1].get("models") if document is not None else None
    name = str(models[0]["name"]) if models else options.model
    key = parse_client_env(folder.client_env_path.read_text(encoding="utf-8"))["OPENAI_API_KEY"]
    reporter.say(f"\nAsking {name}: {QUESTION}")
    answer = ask(options.port, key, name, QUESTION, reporter.write)
    reporter.say(
        f"\n{answer.input_tokens} input and {answer.output_tokens} output tokens,"
        f" cost {answer.cost}\n"
    )
    for line in describe_endpoints(options, folder, name):
        reporter.say(line)


def describe_endpoints(options: RunOptions, folder: RunFolder, model_name: str) -> list[str]:
    """Return the lines that tell how to use a run."""
    url = f"http://{checks.LOCALHOST}:{options.port}/v1"
    body = f'{{"model": "{model_name}", "messages": [{{"role": "user", "content": "{QUESTION}"}}]}}'
    return [
        f"API        {url}",
        f"Admin      http://{checks.LOCALHOST}:{options.admin_port}/metrics",
        f"Data       {folder.data_dir}",
        f"Logs       {folder.logs_dir}",
        # Ray keeps its workers' output in its session, which goes with the run.
        f"Replicas   {folder.ray_temp_dir / 'session_latest' / 'logs'}",
        "",
        "Try it:",
        f"  set -a; . '{folder.client_env_path}'; set +a",
        f'  curl {url}/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY"'
        f" -H 'Content-Type: application/json' -d '{body}'",
        "",
    ]
