"""``python -m trierarch.adapters.ledger``: wait for the database and bring its tables up to date.

Every process does the same when it opens the ledger. Run before one, as an init
container does, it tells apart a database that is missing from a process that fails.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from trierarch.adapters.ledger.database import Database
from trierarch.core.clock import Clock, SystemClock
from trierarch.core.errors import Unavailable
from trierarch.settings.environment import run_program
from trierarch.settings.ledger import LedgerSettings

RETRY_SECONDS = 1.0
"""Between two attempts."""


def open_when_it_answers(
    settings: LedgerSettings,
    clock: Clock,
    sleep: Callable[[float], None],
    say: Callable[[str], None],
) -> Database:
    """Return the migrated database, waiting for it if it does not answer yet.

    Args:
        settings: Where it is and how long to wait.
        clock: For the time waited.
        sleep: Passes time between attempts.
        say: Is told of each new reason to wait.

    Raises:
        InvalidInput: If the address cannot be used.
        Unavailable: With the last reason, if the time is over.
    """
    deadline_seconds = clock.monotonic_seconds() + settings.wait_seconds
    told = ""
    while True:
        try:
            return Database(settings.url)
        except Unavailable as reason:
            if clock.monotonic_seconds() >= deadline_seconds:
                raise
            if str(reason) != told:
                told = str(reason)
                say(f"waiting up to {settings.wait_seconds:g} s: {told}")
        sleep(RETRY_SECONDS)


def main() -> None:
    """Do it."""

    def say(line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    database = open_when_it_answers(
        LedgerSettings.from_environment(), SystemClock(), time.sleep, say
    )
    say(f"the ledger {database.name} is up to date")
    database.close()


if __name__ == "__main__":
    sys.exit(run_program("trierarch ledger", main))
