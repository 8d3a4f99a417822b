"""A company with drills; its store and the scratch server are two servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.servers import PostgresServer
from tests.invariants.company import Company
from tests.workflows.drill.drilling import Drills


@pytest.fixture(scope="session")
def scratch_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server of which no DataStore knows."""
    with PostgresServer(tmp_path_factory.mktemp("scratch"), fsync=False) as running:
        yield running


@pytest.fixture
def drills(postgres: PostgresServer, scratch_server: PostgresServer, tmp_path: Path) -> Iterator[Drills]:
    """A company with three users, a dump of which is taken; then one of them is erased."""
    company = Company(postgres, tmp_path / "company")
    drills = Drills(company, scratch_server, tmp_path)
    yield drills
    company.close()
    for database in drills.left():
        scratch_server.drop_database(database)
