"""How a command finds the ledger; the same options for every command that needs it."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from trierarch.core.clock import SystemClock
from trierarch.core.errors import InvalidInput
from trierarch.settings.paths import (
    DATA_DIR_VARIABLE,
    LEDGER_URL_VARIABLE,
    default_data_dir,
    ledger_path,
    ledger_url,
)

if TYPE_CHECKING:
    from trierarch.adapters.ledger import Ledger

F = TypeVar("F", bound=Callable[..., Any])

SPAN_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
"""Letters after a number that make it a span of time."""


def ledger_options(command: F) -> F:
    """Add ``--data-dir`` and ``--ledger`` to a command."""
    command = click.option(
        "--ledger",
        "ledger_address",
        metavar="URL",
        envvar=LEDGER_URL_VARIABLE,
        default=None,
        help="Ledger database, for example postgresql+psycopg://host/name."
        "  [default: ledger.db in the data folder]",
    )(command)
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        envvar=DATA_DIR_VARIABLE,
        default=None,
        help=f"Folder with Trierarch's state; {DATA_DIR_VARIABLE} names it as well."
        "  [default: the user's data folder]",
    )(command)


@contextlib.contextmanager
def open_ledger(
    data_dir: Path | None, ledger_address: str | None, *, create: bool
) -> Iterator[Ledger]:
    """Open the ledger that the options name, and close it at the end.

    Args:
        data_dir: Value of ``--data-dir``.
        ledger_address: Value of ``--ledger``.
        create: Whether to make a ledger where there is none.

    Raises:
        InvalidInput: If there is none and none shall be made.
        Unavailable: If it does not answer.
    """
    # Only commands that use the database pay for importing it.
    from trierarch.adapters.ledger import Ledger

    if ledger_address is None:
        folder = data_dir or default_data_dir()
        if not create and not ledger_path(folder).exists():
            raise InvalidInput(
                f"there is no ledger in {folder}; start `trierarch up` first,"
                " or name its folder with --data-dir DIR"
            )
        ledger_address = ledger_url(folder)
    ledger = Ledger.open(ledger_address, SystemClock())
    try:
        yield ledger
    finally:
        ledger.close()


def actor() -> str:
    """Return who gives the command, for the audit."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return "cli"


def parse_instant(text: str, now_unix_seconds: float) -> float:
    """Return the instant that a person wrote.

    Args:
        text: ``2026-11-24``, ``2026-11-24T10:00:00Z`` (UTC if no zone is given), or a span
            such as ``90m``, ``24h``, ``7d`` before now.
        now_unix_seconds: What spans are counted from.

    Raises:
        InvalidInput: If it is none of these.
    """
    number, unit = text[:-1], text[-1:]
    try:
        if unit in SPAN_UNITS and number.isdecimal():
            span = timedelta(**{SPAN_UNITS[unit]: int(number)})
            return now_unix_seconds - span.total_seconds()
        instant = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"'{text}' is no time; write 2026-11-24, 2026-11-24T10:00:00Z, or 24h, 7d, 30m"
        ) from None
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()


def format_instant(unix_seconds: float) -> str:
    """Return an instant as people read it."""
    return f"{datetime.fromtimestamp(unix_seconds, UTC):%Y-%m-%d %H:%M:%SZ}"
