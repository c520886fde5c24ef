"""Real databases: SQLite in a file, and PostgreSQL where its server is installed."""

import shutil
from decimal import Decimal

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


@pytest.fixture(scope="session")
def create_postgresql_database(postgresql_server):
    """Return a function that creates a database and returns its URL."""
    return postgresql_server.create_database


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
