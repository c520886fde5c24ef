"""The programs that the chart carries, run as they are."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.chart.chart import CHART

from trierarch.adapters.ledger import Ledger
from trierarch.core.clock import SystemClock
from trierarch.testing.local_gateway import TEST_KEY, LocalGateway
from trierarch.testing.postgresql_server import find_programs, reason_to_skip
from trierarch.testing.running_stack import find_free_port
from trierarch.testing.waiting import wait_until

PASSWORD = "it's a \\ secret"  # noqa: S105  # of a database that lives for a test


class Database:
    """The bundled database's start script, run as its container runs it.

    Args:
        folder: Takes the place of the pod's volumes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = find_free_port()
        self._user = pwd.getpwnam("postgres").pw_uid if os.geteuid() == 0 else None
        (folder / "password").write_text(f"{PASSWORD}\n")
        for path in (folder, folder / "password"):
            if self._user is not None:
                os.chown(path, self._user, -1)

    @contextlib.contextmanager
    def running(self, until: str = "database system is ready") -> Iterator[subprocess.Popen[str]]:
        """Run it; yield when it says so."""
        programs = find_programs()
        assert programs is not None
        process = subprocess.Popen(
            ["/bin/sh", CHART / "files" / "postgresql" / "start.sh"],
            env={
                "PATH": f"{programs}:/usr/bin:/bin",
                "PGDATA": str(self.folder / "data"),
                "PASSWORD_FILE": str(self.folder / "password"),
                "SOCKET_DIR": str(self.folder),
                "LISTEN_ADDRESSES": "127.0.0.1",
                "PORT": str(self.port),
            },
            cwd=self.folder,
            user=self._user,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if until in line:
                    break
            else:
                raise AssertionError("".join(lines))
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=60)
            finally:
                process.kill()

    def connect(self, user: str = "trierarch", password: str = PASSWORD) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=user, password=password, dbname="trierarch"
        )


@pytest.fixture
def database() -> Iterator[Database]:
    if reason := reason_to_skip():
        pytest.skip(reason)
    # Not pytest's folder, which only this user may enter.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        yield Database(folder)
    finally:
        shutil.rmtree(folder)


def test_the_bundled_database_holds_a_ledger_for_whoever_has_the_password(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    url = f"postgresql+psycopg://trierarch@127.0.0.1:{database.port}/trierarch"
    with database.running():
        ledger = Ledger.open(url, SystemClock())
        ledger.close()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            database.connect(password="wrong")  # noqa: S106
        with pytest.raises(psycopg.OperationalError):
            database.connect(user="postgres")
    with database.running(), database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM keys").fetchone() == (0,)
        owner = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'trierarch'")
        assert owner.fetchone() == (False,)


def test_a_pod_killed_while_it_makes_the_database_starts_again_from_nothing(
    database: Database,
) -> None:
    with database.running(until="creating configuration files") as process:
        # All of its processes, as the end of a container does.
        os.killpg(process.pid, signal.SIGKILL)
    assert not (database.folder / "data").exists()
    with database.running(), database.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.fixture(scope="module")
def gateway() -> Iterator[LocalGateway]:
    with LocalGateway() as running:
        yield running


@pytest.mark.parametrize(
    ("key", "code", "says"),
    [
        ("", 0, "answers 401 invalid_api_key"),
        (TEST_KEY, 0, "lists 0 models"),
        ("wrong", 1, "answers 401 invalid_api_key"),
    ],
    ids=["no-key-is-refused", "key-lists", "wrong-key-fails"],
)
def test_what_helm_test_runs(gateway: LocalGateway, key: str, code: int, says: str) -> None:
    wait_until(lambda: gateway.server is not None)
    done = subprocess.run(
        [sys.executable, CHART / "files" / "list_models.py"],
        env={"OPENAI_BASE_URL": gateway.base_url} | ({"OPENAI_API_KEY": key} if key else {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, says in done.stdout) == (code, True), done.stdout + done.stderr
