"""``trierarch up``: the whole platform on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from trierarch.core.errors import InvalidInput
from trierarch.settings.paths import DATA_DIR_VARIABLE, default_data_dir

_PORT = click.IntRange(1, 65535)


@click.command()
@click.option(
    "--model",
    default="pocket",
    show_default=True,
    metavar="NAME|DIR",
    help="pocket, tiny-deepseek-v3 or tiny-qwen3-moe, or a Hugging Face folder.",
)
@click.option("--port", type=_PORT, default=8080, show_default=True, help="Port of the API.")
@click.option(
    "--admin-port",
    type=_PORT,
    default=9090,
    show_default=True,
    help="Port for health and metrics; not for tenants.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar=DATA_DIR_VARIABLE,
    default=None,
    help=f"Folder for state, models, keys and logs; {DATA_DIR_VARIABLE} names it as well."
    "  [default: the user's data folder]",
)
@click.option(
    "--engine",
    type=click.Choice(("vllm", "simulated")),
    default="vllm",
    show_default=True,
    help="simulated answers at once with words that mean nothing, without weights.",
)
@click.option(
    "--min-replicas",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="The autoscaler never goes below.",
)
@click.option(
    "--max-replicas",
    type=click.IntRange(min=1),
    default=None,
    help="The autoscaler never goes above.  [default: 2, or --min-replicas if that is more]",
)
@click.option("--detach", is_flag=True, help="Return when it is ready; `trierarch down` ends it.")
def up(
    model: str,
    port: int,
    admin_port: int,
    data_dir: Path | None,
    engine: Literal["vllm", "simulated"],
    min_replicas: int,
    max_replicas: int | None,
    detach: bool,
) -> None:
    """Serve a mixture-of-experts model on this machine until Ctrl-C.

    Starts Ray, one engine replica, the gateway, the autoscaler with its cost controller and the
    ledger, sends itself one request and prints how to go on. Everything listens on 127.0.0.1.
    """
    from pydantic import ValidationError

    from trierarch.core.clock import SystemClock
    from trierarch.embedded.detaching import detach as run_detached
    from trierarch.embedded.folder import RunFolder
    from trierarch.embedded.options import RunOptions
    from trierarch.embedded.progress import Reporter
    from trierarch.embedded.run import RunContext, run
    from trierarch.settings.embedded import EmbeddedSettings

    options = RunOptions(
        model=model,
        port=port,
        admin_port=admin_port,
        data_dir=(data_dir or default_data_dir()).expanduser().absolute(),
        engine=engine,
        min_replicas=min_replicas,
        max_replicas=max(2, min_replicas) if max_replicas is None else max_replicas,
    )
    try:
        settings = EmbeddedSettings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise InvalidInput(f"TRIERARCH_EMBEDDED_{name}: {first['msg']}") from error
    clock = SystemClock()
    if not detach:
        code = run(RunContext(options, clock, settings, Reporter(clock)))
        raise click.exceptions.Exit(code)
    from trierarch.cli.main import report_errors

    raise click.exceptions.Exit(
        run_detached(
            lambda announce: report_errors(
                lambda: run(RunContext(options, clock, settings, Reporter(clock), announce))
            ),
            lambda: RunFolder(options.data_dir).logs_dir / "up.log",
        )
    )
