"""A PostgreSQL server for the ledger's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devtools.servers import PostgresServer


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("ledger-postgres"), fsync=False) as server:
        yield server
