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


@pytest.fixture(scope="module")
def settled(
    postgres: PostgresServer, scratch_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Drills]:
    """A company for tests that change nothing in it: of its `snapshot`, which all share, one was erased."""
    home = tmp_path_factory.mktemp("settled")
    company = Company(postgres, home / "company")
    drills = Drills(company, scratch_server, home)
    person = company.sign_up("ada@canary.example")
    company.visit_until_safe()
    drills.snapshot = drills.dump()
    company.request("ada", key=company.key_of(person))
    company.visit_until_safe()
    yield drills
    company.close()


@pytest.fixture
def rehearsed(settled: Drills) -> Iterator[Drills]:
    """The same, with nothing left of the test before."""
    settled.begin_anew()
    yield settled
    for database in settled.left():
        settled.server.drop_database(database)


@pytest.fixture
def drills(postgres: PostgresServer, scratch_server: PostgresServer, tmp_path: Path) -> Iterator[Drills]:
    """A company of the test's own, with nobody in it yet."""
    company = Company(postgres, tmp_path / "company")
    drills = Drills(company, scratch_server, tmp_path)
    yield drills
    company.close()
    for database in drills.left():
        scratch_server.drop_database(database)
