"""The ledger's database: connections, transactions, migrations, errors in plain words.

One writer at a time, whoever it is: SQLite begins every writing transaction with
``BEGIN IMMEDIATE``, PostgreSQL with an advisory lock. Readers see one consistent
snapshot for the whole of their transaction and never wait for a writer.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from trierarch.core.errors import InvalidInput, Unavailable

BUSY_SECONDS = 5.0
"""How long a statement waits for another writer; a settlement takes milliseconds."""

MIGRATION_BUSY_SECONDS = 60.0
"""How long an opening process waits for another one that migrates."""

WRITER_LOCK = 0x7472_6965
"""Key of PostgreSQL's advisory lock for the one writer ("trie" in ASCII)."""

SILENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""When libpq gives up a PostgreSQL server that fell silent, with its node for example; left to the
kernel it would be a quarter of an hour. Seconds, the last one milliseconds."""

SCRIPT_LOCATION = "trierarch.adapters.ledger:migrations"
"""Where the migrations are: inside this package, so that a wheel has them too."""

_BEGIN = "trierarch_begin"


class Database:
    """A migrated ledger database; safe to use from many threads."""

    def __init__(self, url: str, *, busy_seconds: float = BUSY_SECONDS) -> None:
        """Open the database, creating or migrating its tables if needed.

        Args:
            url: ``sqlite:////path/ledger.db`` or ``postgresql+psycopg://...``.
            busy_seconds: How long a writer waits for its turn.

        Raises:
            InvalidInput: If the URL cannot be used.
            Unavailable: If the database does not answer.
        """
        try:
            self._url = make_url(url)
        except exc.ArgumentError:
            raise InvalidInput(f"'{url}' is not a database URL") from None
        self.name = self._url.render_as_string(hide_password=True)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self._busy_seconds = busy_seconds
        self._engine = self._create_engine(busy_seconds)
        # A second process that opens at the same time must wait for a whole migration.
        patient = self._create_engine(max(busy_seconds, MIGRATION_BUSY_SECONDS))
        try:
            self._migrate(patient)
        finally:
            patient.dispose()

    def _create_engine(self, busy_seconds: float) -> Engine:
        if not self.is_sqlite:
            return self._create_postgresql_engine(busy_seconds)
        path = self._url.database
        if not path or path == ":memory:":
            raise InvalidInput("a ledger needs a file; an in-memory database cannot be shared")
        self.name = path
        _prepare_folder(Path(path))
        engine = create_engine(self._url, connect_args={"timeout": busy_seconds})

        def connected(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
            if not isinstance(connection, sqlite3.Connection):
                raise TypeError(f"expected SQLite's own connection, got {type(connection)}")
            _configure_sqlite(connection, busy_seconds)

        def begun(connection: Connection) -> None:
            mode = connection.get_execution_options().get(_BEGIN, "DEFERRED")
            connection.exec_driver_sql(f"BEGIN {mode}")

        event.listen(engine, "connect", connected)
        event.listen(engine, "begin", begun)
        return engine

    def _create_postgresql_engine(self, busy_seconds: float) -> Engine:
        if self._url.get_backend_name() != "postgresql":
            raise InvalidInput(f"the ledger runs on SQLite or PostgreSQL, not on '{self.name}'")
        milliseconds = int(busy_seconds * 1000)
        try:
            return create_engine(
                self._url,
                pool_pre_ping=True,
                connect_args={
                    "options": f"-c lock_timeout={milliseconds} -c timezone=UTC",
                    **SILENCE,
                },
            )
        except ModuleNotFoundError as error:
            raise InvalidInput(
                f"PostgreSQL needs the driver '{error.name}': pip install 'psycopg[binary]'"
            ) from None

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection on which everything read belongs to one instant.

        Raises:
            Unavailable: If the database does not answer.
        """
        with self._transaction(self._engine, writing=False) as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection that commits at the end, as the only writer.

        Raises:
            Unavailable: If the database does not answer, is locked, read-only or full;
                nothing was written.
            InvalidInput: If it refused what was to be written; nothing was written.
        """
        with self._transaction(self._engine, writing=True) as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self, engine: Engine, *, writing: bool) -> Iterator[Connection]:
        if self.is_sqlite:
            engine = engine.execution_options(**{_BEGIN: "IMMEDIATE" if writing else "DEFERRED"})
        elif not writing:
            engine = engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        try:
            with engine.begin() as connection:
                if writing and not self.is_sqlite:
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")
                yield connection
        except exc.TimeoutError as error:
            raise Unavailable(f"the ledger {self.name} is too busy: no free connection") from error
        except (exc.DataError, exc.IntegrityError) as error:
            raise InvalidInput(f"the ledger refused an entry: {_first_line(error)}") from error
        except exc.DBAPIError as error:
            raise Unavailable(self._explain(error)) from error
        except exc.StatementError as error:
            raise InvalidInput(f"the ledger refused an entry: {_first_line(error)}") from error
        except (OverflowError, UnicodeError) as error:
            # SQLite's driver says so itself, of integers beyond 64 bits and broken text.
            raise InvalidInput(f"the ledger refused an entry: {error}") from error

    def _explain(self, error: exc.DBAPIError) -> str:
        name = getattr(error.orig, "sqlite_errorname", "") or ""
        state = getattr(error.orig, "sqlstate", "") or ""
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or state == "55P03":
            return f"the ledger {self.name} is locked by another process; it will be tried again"
        if name.startswith("SQLITE_READONLY") or state == "25006":
            return f"the ledger {self.name} is read-only; make it writable"
        if name == "SQLITE_FULL" or state == "53100":
            return f"the disk of the ledger {self.name} is full; free some space"
        if name.startswith("SQLITE_CANTOPEN"):
            return f"the ledger {self.name} cannot be opened; check the folder and its permissions"
        if name in {"SQLITE_CORRUPT", "SQLITE_NOTADB"}:
            return f"the file {self.name} is damaged or no ledger; restore it from a backup"
        return f"the ledger {self.name} does not answer: {_first_line(error)}"

    def _migrate(self, engine: Engine) -> None:
        config = Config()
        config.set_main_option("script_location", SCRIPT_LOCATION)
        script = ScriptDirectory.from_config(config)
        with self._transaction(engine, writing=False) as connection:
            if MigrationContext.configure(connection).get_current_revision() == (
                script.get_current_head()
            ):
                return
        with self._transaction(engine, writing=True) as connection:
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise Unavailable(
                    f"the ledger {self.name} was written by another version of Trierarch"
                    f" ({error}); upgrade Trierarch or use another data folder"
                ) from error

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._engine.dispose()


def _first_line(error: exc.StatementError) -> str:
    return str(error.orig or error).strip().splitlines()[0]


def _prepare_folder(path: Path) -> None:
    """Create the folder, and the file readable by its owner only."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except (FileExistsError, NotADirectoryError):
        raise Unavailable(f"the ledger {path} cannot be created: a file is in the way") from None
    except OSError as error:
        raise Unavailable(f"the ledger {path} cannot be created: {error.strerror}") from error


def _configure_sqlite(connection: sqlite3.Connection, busy_seconds: float) -> None:
    # Transactions are begun by the "begin" event, not by the driver's guess.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(busy_seconds * 1000)}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    if connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
        return
    # SQLite does not wait for a lock when it changes the journal mode.
    deadline_seconds = time.perf_counter() + busy_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorname.startswith("SQLITE_BUSY")
            if not busy or time.perf_counter() > deadline_seconds:
                raise
            time.sleep(0.02)
        else:
            return
