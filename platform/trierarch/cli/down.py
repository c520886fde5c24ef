"""``trierarch down``: end what ``trierarch up`` started."""

from __future__ import annotations

from pathlib import Path

import click

from trierarch.settings.paths import DATA_DIR_VARIABLE, default_data_dir


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar=DATA_DIR_VARIABLE,
    default=None,
    help="Data folder of the run.  [default: the user's data folder]",
)
def down(data_dir: Path | None) -> None:
    """End a run in the background or in another terminal.

    Also ends what is left of a run that was killed. If nothing runs, says so.
    """
    from trierarch.embedded.ending import end_run
    from trierarch.embedded.folder import RunFolder

    folder = RunFolder((data_dir or default_data_dir()).expanduser().absolute())
    if end_run(folder, click.echo):
        click.echo("Ended; nothing is left running.")
    else:
        click.echo(f"Nothing runs in {folder.data_dir}.")
