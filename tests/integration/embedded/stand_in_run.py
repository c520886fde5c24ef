"""The real run with stand-ins for its processes; run by path with one JSON argument."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from trierarch.cli.main import report_errors
from trierarch.core.clock import SystemClock
from trierarch.embedded.detaching import detach
from trierarch.embedded.folder import RunFolder
from trierarch.embedded.options import ChildSpec, InternalPorts, RunOptions, build_children
from trierarch.embedded.progress import Reporter
from trierarch.embedded.run import RunContext, run
from trierarch.settings.embedded import EmbeddedSettings

STANDIN = Path(__file__).with_name("standin.py")


def main(arguments: dict[str, object]) -> int:
    modes: dict[str, str] = arguments.pop("modes", {})  # type: ignore[assignment]  # JSON
    usual = "stubborn" if arguments.pop("is_stubborn", False) else "serve"
    is_detached = arguments.pop("detach", False)
    data_dir = Path(str(arguments.pop("data_dir")))
    options = RunOptions(data_dir=data_dir, **arguments)  # type: ignore[arg-type]  # JSON

    def build(
        options: RunOptions, folder: RunFolder, ports: InternalPorts, **rest: object
    ) -> Sequence[ChildSpec]:
        served = {
            "ray": ports.ray_dashboard,
            "controller": ports.controller,
            "gateway": options.admin_port,
        }
        real = build_children(options, folder, ports, **rest)  # type: ignore[arg-type]  # passed on
        stand_ins = [
            ChildSpec(
                spec.name,
                command(served[spec.name], modes.get(spec.name, usual)),
                spec.environment,
                is_asked_first=spec.is_asked_first,
                restart_with=spec.restart_with,
            )
            for spec in real
        ]
        api = ChildSpec("api", command(options.port, usual), real[0].environment)
        return [*stand_ins, api]

    clock = SystemClock()
    settings = EmbeddedSettings(restart_delay_seconds=0.05, poll_interval_seconds=0.05)

    def start(announce: object = lambda: None) -> int:
        context = RunContext(
            options,
            clock,
            settings,
            Reporter(clock),
            announce,  # type: ignore[arg-type]  # a function
            build,
        )
        return report_errors(lambda: run(context))

    if is_detached:
        return detach(start, lambda: RunFolder(data_dir).logs_dir / "up.log")
    return start()


def command(port: int, mode: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", str(STANDIN), str(port), mode)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
