"""What integration tests of several packages share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from trierarch.testing.postgresql_server import PostgresqlServer, reason_to_skip


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """Yield a server of this session's own; tests that ask for it skip where none is installed."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    server = PostgresqlServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()
