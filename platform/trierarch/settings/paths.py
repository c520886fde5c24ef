"""Where state lives on this machine when nobody says otherwise."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from trierarch.core.errors import InvalidInput

DATA_DIR_VARIABLE = "TRIERARCH_DATA_DIR"
"""Names the data folder; an option on the command line comes before it."""

LEDGER_URL_VARIABLE = "TRIERARCH_LEDGER_URL"
"""Names a ledger that is not in the data folder, such as a PostgreSQL database."""


def user_data_dir(environment: Mapping[str, str], platform: str) -> Path:
    """Return the platform's folder for a user's data of this program.

    Raises:
        InvalidInput: If the user has no home folder.
    """
    home = environment.get("HOME", "")
    if platform == "darwin" and home:
        return Path(home) / "Library" / "Application Support" / "trierarch"
    base = environment.get("XDG_DATA_HOME", "")
    # The specification ignores relative paths.
    if base.startswith("/"):
        return Path(base) / "trierarch"
    if not home:
        raise InvalidInput("there is no home folder; name a data folder with --data-dir DIR")
    return Path(home) / ".local" / "share" / "trierarch"


def default_data_dir() -> Path:
    """Return the data folder: ``TRIERARCH_DATA_DIR``, or the platform's place for it."""
    named = os.environ.get(DATA_DIR_VARIABLE, "")
    return Path(named) if named else user_data_dir(os.environ, sys.platform)


def ledger_path(data_dir: Path) -> Path:
    """Return the file of the ledger in a data folder."""
    return data_dir / "ledger.db"


def ledger_url(data_dir: Path) -> str:
    """Return the address of the ledger in a data folder."""
    return f"sqlite:///{ledger_path(data_dir).absolute()}"


def spool_dir(data_dir: Path, process_name: str) -> Path:
    """Return the folder of one process's usage spool; no two processes share one."""
    return data_dir / "spool" / process_name
