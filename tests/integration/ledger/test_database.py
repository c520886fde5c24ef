"""Opening a ledger: migrations, settings, several processes at once, and trouble."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from trierarch.adapters.ledger import Ledger
from trierarch.adapters.ledger.database import Database
from trierarch.adapters.ledger.tables import Base
from trierarch.core.clock import ManualClock
from trierarch.core.errors import InvalidInput, Unavailable


def path_of(url):
    return url.removeprefix("sqlite:///")


def test_migrations_make_exactly_the_tables_the_code_uses(url):
    database = Database(url)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    database.close()


def test_sqlite_is_in_wal_mode_and_syncs_every_commit(sqlite_url):
    database = Database(sqlite_url)
    with database.read() as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    database.close()
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 5000,
    }


def test_ledger_file_is_private(sqlite_url):
    Database(sqlite_url).close()
    assert os.stat(path_of(sqlite_url)).st_mode & 0o077 == 0


OPEN_WHEN_TOLD = """
import sys
from trierarch.adapters.ledger import Ledger
from trierarch.core.clock import SystemClock

print("ready", flush=True)
sys.stdin.readline()
ledger = Ledger.open(sys.argv[1], SystemClock())
print(len(ledger.keys()))
ledger.close()
"""


def test_many_processes_may_open_a_new_ledger_at_once(url):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_WHEN_TOLD, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert outputs == ["0\n"] * 4


KILLED_IN_MIGRATION = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from trierarch.adapters.ledger.database import Database

@event.listens_for(Engine, "before_cursor_execute")
def kill(connection, cursor, statement, *rest):
    if "CREATE TABLE usage" in statement:
        os.kill(os.getpid(), signal.SIGKILL)

Database(sys.argv[1])
"""


def test_process_killed_in_the_middle_of_a_migration_leaves_nothing_half_done(url):
    killed = subprocess.run([sys.executable, "-c", KILLED_IN_MIGRATION, url], check=False)
    assert killed.returncode == -signal.SIGKILL
    ledger = Ledger.open(url, ManualClock())
    assert ledger.keys() == []
    ledger.close()


def test_reader_sees_one_instant_while_others_write(url, clock, usage):
    database = Database(url)
    ledger = Ledger.open(url, clock)
    with database.read() as connection:
        before = connection.execute(text("SELECT count(*) FROM usage")).scalar_one()
        ledger.record_usage([usage()])
        after = connection.execute(text("SELECT count(*) FROM usage")).scalar_one()
    assert (before, after) == (0, 0)
    database.close()
    ledger.close()


def test_writers_take_turns(url, clock, usage):
    ledger = Ledger.open(url, clock)
    errors = []

    def write(thread):
        try:
            for number in range(20):
                ledger.record_usage([usage(f"{thread}-{number}")])
        except Exception as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    total = ledger.tenant_usage("a")
    assert (total.requests, str(total.spend)) == (120, "0.120")
    ledger.close()


def test_locked_ledger_says_so_and_nothing_is_written(sqlite_url, clock, usage):
    ledger = Ledger.open(sqlite_url, clock, busy_seconds=0.1)
    other = sqlite3.connect(path_of(sqlite_url), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with pytest.raises(Unavailable, match="is locked by another process"):
        ledger.record_usage([usage()])
    assert time.monotonic() - started < 5
    assert ledger.tenant_usage("a").requests == 0, "readers do not wait"
    other.execute("ROLLBACK")
    other.close()
    assert ledger.record_usage([usage()]) == 1
    ledger.close()


def test_full_disk_says_so_and_nothing_is_written(sqlite_url, clock, usage):
    ledger = Ledger.open(sqlite_url, clock)
    # SQLite reports a database at its page limit exactly as it reports a full disk.
    with ledger._database._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Unavailable, match=r"disk of the ledger .* is full; free some space"):
        ledger.record_usage([usage(f"q{number}") for number in range(2000)])
    assert ledger.tenant_usage("a").requests == 0
    ledger.close()


def test_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be created: a file is in the way"):
        Database(f"sqlite:///{tmp_path / 'file' / 'ledger.db'}")


def test_file_that_is_no_ledger_says_so(tmp_path):
    path = tmp_path / "ledger.db"
    path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(Unavailable, match="damaged or no ledger"):
        Database(f"sqlite:///{path}")


def test_ledger_of_a_newer_version_says_so(url):
    database = Database(url)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(Unavailable, match="written by another version of Trierarch"):
        Database(url)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "is not a database URL"),
        ("mysql://localhost/x", "SQLite or PostgreSQL"),
        ("sqlite://", "needs a file"),
    ],
)
def test_url_that_cannot_be_used_is_refused(url, says):
    with pytest.raises(InvalidInput, match=says):
        Database(url)


def test_server_that_does_not_answer_says_so_without_the_password(postgresql_url):
    gone = postgresql_url.replace("ledger@", "ledger:secret@").replace("pg-", "gone-")
    with pytest.raises(Unavailable, match="does not answer") as error:
        Database(gone)
    assert "secret" not in str(error.value)
