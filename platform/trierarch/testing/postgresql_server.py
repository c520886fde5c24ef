"""A real PostgreSQL server in a folder of its own, which tests may kill and start again.

It listens on a socket in that folder and on no port. Its data does not outlive it.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

USER = "ledger"
"""Superuser of the server; the socket asks for no password."""

OPTIONS = ("-c", "listen_addresses=", "-c", "max_connections=50")

START_SECONDS = 30.0


class PostgresqlServer:
    """Runs from ``start`` until ``stop``.

    Args:
        is_durable: Whether a commit is on the disk before it is answered, as in earnest.

    Attributes:
        folder: Holds the data and the socket.
    """

    def __init__(self, *, is_durable: bool = False) -> None:
        programs = find_programs()
        if programs is None:
            raise RuntimeError("no PostgreSQL server is installed here")
        self._programs = programs
        self._options = (*OPTIONS, "-c", f"fsync={'on' if is_durable else 'off'}")
        # The server refuses to run as root; Debian's package comes with a user for it.
        user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        self._user = None if user is None else user.pw_uid
        self._group = None if user is None else user.pw_gid
        # Not pytest's folder: a socket's path has at most 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        if user is not None:
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        data = self.folder / "data"
        subprocess.run(  # noqa: S603  # a fixed command
            [programs / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8"],
            check=True,
            capture_output=True,
            cwd=self.folder,
            user=self._user,
            group=self._group,
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: If it does not.
        """
        self._process = subprocess.Popen(  # noqa: S603  # a fixed command
            [
                self._programs / "postgres",
                *("-D", self.folder / "data", "-k", self.folder, *self._options),
            ],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._user,
            group=self._group,
        )
        deadline_seconds = time.perf_counter() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.perf_counter() > deadline_seconds:
                raise RuntimeError(f"the PostgreSQL server in {self.folder} did not start")
            time.sleep(0.1)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(host=str(self.folder), user=USER, dbname="postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """End all of its processes at once, as a node that fails does."""
        if self._process is None:
            return
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            server = psutil.Process(self._process.pid)
            for process in (server, *server.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """End it, whatever is connected, and delete its data."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(START_SECONDS)
            finally:
                self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def create_database(self, template: str = "template1") -> str:
        """Create a database and return its URL.

        Args:
            template: Name of the one to copy.
        """
        import psycopg

        name = f"ledger_{uuid.uuid4().hex}"
        with psycopg.connect(
            host=str(self.folder), user=USER, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
        return f"postgresql+psycopg://{USER}@/{name}?host={self.folder}"


def find_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, from PATH or Debian's place for them."""
    on_path = shutil.which("initdb")
    folders = [str(Path(on_path).parent)] if on_path else []
    folders += sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
    return next((Path(each) for each in folders if (Path(each) / "postgres").exists()), None)


def reason_to_skip() -> str:
    """Return why no server can run here, or an empty string."""
    if find_programs() is None:
        return "no PostgreSQL server is installed here (initdb, postgres); on Debian: postgresql"
    if importlib.util.find_spec("psycopg") is None:
        return "the PostgreSQL driver psycopg is not installed here"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "PostgreSQL does not run as root and there is no user 'postgres'"
    return ""
