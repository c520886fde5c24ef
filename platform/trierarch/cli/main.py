"""``trierarch``: the commands, each imported when it is used."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from trierarch.core.errors import InvalidInput, TrierarchError

COMMANDS = {
    "up": ("up:up", "Serve a model on this machine until Ctrl-C."),
    "down": ("down:down", "End a run that `trierarch up` started."),
    "gateway": ("gateway:gateway", "Run the gateway alone."),
    "operator": ("trierarch_operators.command:operator", "Run the operator in a cluster."),
    "approve": ("trierarch_operators.approval:approve", "Allow a deployment to cost more."),
    "plan": ("plan:plan", "Show how a model fits on accelerators, and at what cost."),
    "simulate": ("simulate:simulate", "Replay a trace of requests under one policy."),
    "compare": ("compare:compare", "Compare policies on the same trace."),
    "explain": ("explain:explain", "Tell why the autoscaler decided what it decided."),
    "report": ("report:report", "Show spend, tokens and unit cost."),
    "keys": ("keys:keys", "Create, list and revoke API keys."),
    "prices": ("prices:prices", "Show, import and check prices."),
    "version": ("version:version", "Show versions."),
}
"""Module and function, and the line in the list of commands. A module without a dot is below
``trierarch.cli``; the others are of packages above it, which are found by name only."""


class LazyGroup(click.Group):
    """Imports a command when it is called: ``--help`` must not wait for all of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands that this installation holds, in their order."""
        return [name for name in COMMANDS if _is_installed(name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        function = COMMANDS[cmd_name][0].partition(":")[2]
        command: click.Command = getattr(importlib.import_module(_module(cmd_name)), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


def _module(name: str) -> str:
    module = COMMANDS[name][0].partition(":")[0]
    return module if "." in module else f"trierarch.cli.{module}"


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(_module(name)) is not None
    except ModuleNotFoundError:
        # The package above it is not there.
        return False


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Serve mixture-of-experts models, and scale them on queue depth and cost per token."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors that the user can act on are one line."""
    sys.exit(execute(commands, arguments))


def execute(command: click.Command, arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""

    def run() -> int:
        result: Any = command.main(arguments, prog_name="trierarch", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0

    return report_errors(run)


def report_errors(run: Callable[[], int]) -> int:
    """Return a run's exit code; an error that the user can act on is printed as one line."""
    try:
        return run()
    except BrokenPipeError:
        # The reader has seen enough; what is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except TrierarchError as error:
        click.echo(f"trierarch: {error}", err=True)
        return 2 if isinstance(error, InvalidInput) else 1


if __name__ == "__main__":
    main()
