import hashlib
import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from devtools.servers.tryton import TrytonServer
from lethe.adapters.stores.tryton import TrytonStore
from lethe.domain.identifiers import email_identifier, normalised_email
from lethe.domain.tombstones import Fingerprints, Tombstone
from lethe.ports.stores import FoundRecord, Wanted
from tests.adapters.stores.tryton.liar import Liar

CANARY = "canary@site.example"
FINGERPRINTS = Fingerprints(
    lambda text: hashlib.sha256(text.encode()).digest(),
    lambda text: hashlib.sha256(normalised_email(text).encode()).digest(),
)


class NoKeys:
    """A keyring that nothing may ask: what Tryton is given holds no token."""

    def fingerprint(self, purpose: str, *parts: str) -> bytes:
        raise AssertionError(purpose)

    def seal(self, plaintext: bytes, context: str) -> bytes:
        raise AssertionError(context)

    def unseal(self, sealed: bytes, context: str) -> bytes:
        raise AssertionError(context)

    def sign(self, message: bytes) -> bytes:
        raise AssertionError

    @property
    def check_value(self) -> str:
        raise AssertionError


@dataclass
class Person:
    """A made-up person: `mark` is in every text about them, and nobody else's."""

    mark: str
    email: str
    party: int = 0
    more: dict[str, int] = field(default_factory=dict)


_numbers = itertools.count(1001)


class Crm:
    """The real Tryton's database `crm`, its persons, and its rows as SQLite shows them."""

    def __init__(self, server: TrytonServer) -> None:
        self.server = server

    def rpc(self, method: str, *params: Any) -> Any:
        return self.server.rpc("crm", method, *params)

    def person(self, *emails: str, **values: Any) -> Person:
        mark = f"Zoe{next(_numbers)}"
        person = Person(mark, emails[0] if emails else f"{mark}@people.example")
        mechanisms = [
            {"type": "email", "value": one, "name": f"at home {mark}", "language": 1}
            for one in (emails or (person.email,))
        ]
        party = {
            "name": f"{mark} Okafor",
            "lang": 1,
            "contact_mechanisms": [["create", mechanisms]],
            "addresses": [
                ["create", [{"street_unstructured": f"{mark} Street 1", "attn": mark, "city": mark}]]
            ],
            "identifiers": [["create", [{"code": mark}]]],
            **values,
        }
        (person.party,) = self.rpc("model.party.party.create", [party])
        return person

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.file, timeout=60)) as connection, connection:
            return connection.execute(statement, parameters).fetchall()

    @property
    def file(self) -> Path:
        return self.server.database_file("crm")

    def lines_with(self, *texts: str) -> list[str]:
        """Every row of every table that holds one of the texts, whatever its case."""
        with closing(sqlite3.connect(self.file, timeout=60)) as connection:
            dump = list(connection.iterdump())
        return [line for line in dump if any(text.lower() in line.lower() for text in texts)]

    def people(self) -> list[str]:
        """Every row of the persons' tables."""
        tables = ("party_party", "party_contact_mechanism", "party_address", "party_identifier")
        return [repr(row) for table in tables for row in self.sql(f"SELECT * FROM {table} ORDER BY id")]


@pytest.fixture(scope="package")
def crm(built_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRYTOND_LOGGING_LEVEL", "20")  # INFO: each call with its arguments, abbreviated
        with TrytonServer(tmp_path_factory.mktemp("tryton"), databases=("crm", "hrm")) as server:
            crm = Crm(server)
            crm.person(CANARY)
            yield crm


Opened = Callable[..., TrytonStore]


@pytest.fixture
def opened(crm: Crm) -> Iterator[Opened]:
    stores: list[TrytonStore] = []

    def open_store(url: str | None = None, database: str = "crm", **options: Any) -> TrytonStore:
        options = {"username": crm.server.user, "password": crm.server.password, "canary": CANARY, **options}
        store = TrytonStore(url or crm.server.url, database, store="crm", keyring=NoKeys(), **options)
        stores.append(store)
        return store

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Opened) -> TrytonStore:
    return opened()


@pytest.fixture
def liar(crm: Crm) -> Iterator[Liar]:
    with Liar(crm.server.url) as liar:
        yield liar


def wanted(*emails: str, request: str = "r1") -> Wanted:
    return Wanted(request, tuple(email_identifier(one) for one in emails))


def found(store: TrytonStore, email: str) -> FoundRecord:
    (record,) = store.find([wanted(email)]).records["r1"]
    return record


def tombstone(record: FoundRecord, number: int = 1) -> Tombstone:
    return Tombstone(
        number,
        "r1",
        record.table,
        record.key,
        "tryton-1",
        FINGERPRINTS.created_at(record.created_at) if record.created_at else None,
        FINGERPRINTS.email(record.email) if record.email else None,
    )
