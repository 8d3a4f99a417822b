"""Companies for the tests of the protocol."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtools.servers import PostgresServer
from lethe.domain.mapping import SubjectMapping
from tests.invariants.company import MAPPING, WITHOUT_CREATED_AT, Company
from tests.invariants.court import BY_KEY, Crm

MakeCompany = Callable[..., Company]
MakeCrm = Callable[..., Crm]


@pytest.fixture
def ledger_directory(tmp_path: Path) -> Iterator[Path]:
    """A folder for ledgers, in memory where the machine has such: a ledger syncs with every append."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


@pytest.fixture
def make_company(postgres: PostgresServer, ledger_directory: Path) -> Iterator[MakeCompany]:
    """Make companies, each with a ledger and a database of its own."""
    made: list[Company] = []

    def make(mapping: SubjectMapping = MAPPING, **more: object) -> Company:
        company = Company(postgres, ledger_directory / f"company-{len(made)}", mapping=mapping, **more)  # type: ignore[arg-type]
        made.append(company)
        return company

    yield make
    for company in made:
        company.close()


@pytest.fixture
def company(make_company: MakeCompany) -> Company:
    """A company that maps `createdAt`."""
    return make_company()


@pytest.fixture
def company_without_created_at(make_company: MakeCompany) -> Company:
    """A company whose mapping knows no moment of creation."""
    return make_company(WITHOUT_CREATED_AT)


@pytest.fixture
def make_crm(company: Company, postgres: PostgresServer) -> Iterator[MakeCrm]:
    """Make further stores of the company, each with a database of its own."""
    made: list[str] = []

    def make(name: str = "crm", mapping: SubjectMapping = BY_KEY) -> Crm:
        database = f"{company.database}_{name}"
        made.append(database)
        return Crm(company, name, mapping, postgres.create_database(database))

    yield make
    for store in company.other_stores:
        store.port.close()
    for database in made:
        postgres.drop_database(database)
