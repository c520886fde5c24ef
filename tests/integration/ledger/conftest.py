"""Real databases: SQLite in a file, and PostgreSQL where its server is installed."""

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
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import make_url

from trierarch.adapters.ledger import CapacityUnit, Ledger
from trierarch.adapters.ledger.database import Database
from trierarch.core.clock import ManualClock
from trierarch.core.identifiers import (
    KeyId,
    ModelName,
    ReplicaId,
    RequestId,
    TenantId,
    VariantName,
)
from trierarch.core.quantities import Money, TokenCounts
from trierarch.core.usage import Outcome, ServiceTier, UsageRecord

NOW = 1_800_000_000.0
"""Some instant in 2027, at the start of a five-minute window."""


SERVER_OPTIONS = ("-c", "listen_addresses=", "-c", "fsync=off")
"""No port, only a socket; and its data does not outlive the tests."""


def postgresql_programs():
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).parent
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
    return Path(folders[0]) if folders else None


@pytest.fixture(scope="session")
def postgresql_server():
    programs = postgresql_programs()
    if programs is None or not (programs / "postgres").exists():
        pytest.skip("no PostgreSQL server is installed here (initdb, postgres)")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("the PostgreSQL driver psycopg is not installed here")
    # The server refuses to run as root; Debian's package comes with a user for it.
    user = None
    if os.geteuid() == 0:
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root and there is no user 'postgres'")
    # Not pytest's folder: a socket's path has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    as_user = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid}
    subprocess.run(
        [programs / "initdb", "-D", folder / "data", "-U", "ledger", "-A", "trust", "-E", "UTF8"],
        check=True,
        capture_output=True,
        cwd=folder,
        **as_user,
    )
    server = subprocess.Popen(
        [programs / "postgres", "-D", folder / "data", "-k", folder, *SERVER_OPTIONS],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **as_user,
    )
    try:
        wait_for_postgresql(folder, server)
        yield folder
    finally:
        # A fast shutdown: connections that are left do not hold it up.
        server.send_signal(signal.SIGINT)
        try:
            server.wait(30)
        finally:
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_postgresql(folder, server):
    import psycopg

    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(host=str(folder), user="ledger", dbname="postgres").close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


@pytest.fixture(scope="session")
def create_postgresql_database(postgresql_server):
    """Return a function that creates a database and returns its URL."""
    import psycopg

    def create(template="template1"):
        name = f"ledger_{uuid.uuid4().hex}"
        with psycopg.connect(
            host=str(postgresql_server), user="ledger", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return f"postgresql+psycopg://ledger@/{name}?host={postgresql_server}"

    return create


@pytest.fixture
def postgresql_url(create_postgresql_database):
    return create_postgresql_database()


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request):
    """Return the URL of a ledger that does not exist yet."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory):
    path = tmp_path_factory.mktemp("migrated") / "ledger.db"
    Database(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def migrated_postgresql(create_postgresql_database):
    url = create_postgresql_database()
    Database(url).close()
    return make_url(url).database


@pytest.fixture
def migrated_sqlite_url(migrated_sqlite, tmp_path):
    shutil.copy(migrated_sqlite, tmp_path / "ledger.db")
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def migrated_postgresql_url(migrated_postgresql, create_postgresql_database):
    return create_postgresql_database(migrated_postgresql)


@pytest.fixture
def clock():
    return ManualClock(NOW)


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request, clock):
    """Return an empty ledger; a copy, because every migration takes half a second."""
    ledger = Ledger.open(request.getfixturevalue(f"migrated_{request.param}_url"), clock)
    yield ledger
    ledger.close()


@pytest.fixture
def usage():
    """Return a builder of usage records."""

    def build(
        request_id="q1",
        *,
        tenant="a",
        model="m",
        variant="v",
        tokens=None,
        charge="0.001",
        outcome=Outcome.COMPLETED,
        replica="r1",
        start=NOW,
        seconds=1.0,
    ):
        return UsageRecord(
            request_id=RequestId(request_id),
            tenant=TenantId(tenant),
            key_id=KeyId("trk_x"),
            model=ModelName(model),
            variant=VariantName(variant),
            tier=ServiceTier.DEFAULT,
            tokens=tokens or TokenCounts(100, 10, 20, 5),
            outcome=outcome,
            charge=Money(Decimal(charge)),
            replica_id=ReplicaId(replica),
            started_unix_seconds=start,
            finished_unix_seconds=start + seconds,
            trace_id="0" * 32,
        )

    return build


@pytest.fixture
def unit():
    """Return a builder of capacity units; 3.60 dollars per hour by default."""

    def build(replica="r1", *, model="m", variant="v", usd="3.6", accelerator="H200", count=1):
        return CapacityUnit(
            ReplicaId(replica),
            ModelName(model),
            VariantName(variant),
            accelerator,
            count,
            usd_per_accelerator_hour=None if usd is None else Decimal(usd),
        )

    return build
