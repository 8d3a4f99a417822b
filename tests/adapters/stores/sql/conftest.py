"""A site's database, as the application knows it, with Lethe's store over it."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
import pytest

from lethe.adapters.stores.sql.store import SqlStore
from lethe.domain.mapping import ClearRule, ClearTo, Dependent, PiiKind, SubjectMapping
from lethe.ports.stores import Proof
from tests.contracts.journaled_contract import JournaledWorld
from tests.contracts.store_contract import Person

SCHEMA = """
CREATE TABLE users (
  id bigserial PRIMARY KEY,
  first_name text,
  last_name text,
  email varchar(255) NOT NULL UNIQUE,
  password_hash text NOT NULL DEFAULT '',
  locale text NOT NULL DEFAULT 'en',
  time_zone text DEFAULT 'UTC',
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  quarantined text
);
CREATE INDEX ON users (lower(email));
CREATE TABLE sessions (id bigserial PRIMARY KEY, user_id bigint NOT NULL REFERENCES users (id), token text);
CREATE INDEX ON sessions (user_id);
CREATE TABLE comments (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  author_id bigint REFERENCES users (id), signature text, body text);
"""

MAPPING = SubjectMapping(
    table="users",
    key="id",
    identifiers={"email": "email"},
    created_at="created_at",
    clear=(
        ClearRule("first_name", PiiKind.FIRST_NAME, ClearTo.SET_NULL),
        ClearRule("last_name", PiiKind.LAST_NAME, ClearTo.SET_NULL),
        ClearRule("email", PiiKind.EMAIL, ClearTo.TEMPLATE, "erased-{token}@erased.invalid"),
        ClearRule("password_hash", PiiKind.PASSWORD, ClearTo.VALUE, "!"),
        ClearRule("locale", PiiKind.LOCALE, ClearTo.DEFAULT),
        ClearRule("time_zone", PiiKind.TIME_ZONE, ClearTo.DEFAULT),
    ),
    dependents=(
        Dependent("sessions", "user_id", delete=True),
        Dependent(
            "comments",
            "author_id",
            delete=False,
            clear=(ClearRule("signature", PiiKind.LAST_NAME, ClearTo.SET_NULL),),
        ),
    ),
)


class HmacKeyring:
    """Keyed digests, and nothing else that a store could ask for."""

    check_value = "test"

    def __init__(self, key: bytes = b"key of the tests") -> None:
        self._key = key

    def fingerprint(self, purpose: str, *parts: str) -> bytes:
        message = b"".join(
            len(text.encode()).to_bytes(4, "big") + text.encode() for text in (purpose, *parts)
        )
        return hmac.digest(self._key, message, "sha256")

    def seal(self, plaintext: bytes, context: str) -> bytes:
        raise NotImplementedError

    def unseal(self, sealed: bytes, context: str) -> bytes:
        raise NotImplementedError

    def sign(self, message: bytes) -> bytes:
        raise NotImplementedError


@dataclass
class Site(JournaledWorld):
    """The site: `sql` is the application's own connection."""

    sql: psycopg.Connection[tuple[Any, ...]] = field(kw_only=True)
    url: str = field(kw_only=True)

    @property
    def port(self) -> SqlStore:
        assert isinstance(self.store, SqlStore)
        return self.store

    def enter(self, person: Person) -> None:
        self.sql.execute(
            "WITH u AS (INSERT INTO users (first_name, last_name, email, password_hash, locale, time_zone)"
            " VALUES (%s, %s, %s, 'hash', 'de', 'Europe/Berlin') RETURNING id),"
            " s AS (INSERT INTO sessions (user_id, token) SELECT id, 'secret' FROM u, generate_series(1, 2))"
            " INSERT INTO comments (author_id, signature, body) SELECT id, %s, 'text' FROM u",
            (person.first_name, person.last_name, person.email, person.last_name),
        )

    def everything(self) -> str:
        return "\n".join(
            str(row)
            for table in ("users", "sessions", "comments")
            for row in self.sql.execute(f"SELECT t::text FROM {table} t ORDER BY id").fetchall()
        )

    def write_back(self, key: str, person: Person) -> None:
        self.sql.execute(
            "UPDATE users SET first_name = %s, last_name = %s, email = %s WHERE id = %s",
            (person.first_name, person.last_name, person.email, key),
        )

    def key_of(self, person: Person) -> str:
        row = self.sql.execute("SELECT id FROM users WHERE email = %s", (person.email,)).fetchone()
        assert row is not None
        return str(row[0])

    def with_mapping(self, **changes: Any) -> SqlStore:
        """Return a store of another mapping over the same database; close it."""
        return store_of(self.url, replace(MAPPING, **changes))

    def prove(self, **changes: Any) -> Proof:
        store = self.with_mapping(**changes)
        try:
            return store.prove()
        finally:
            store.close()


def store_of(url: str, mapping: SubjectMapping = MAPPING, **settings: Any) -> SqlStore:
    options: dict[str, Any] = {"ledger_id": "ledger-1", "store": "site", "primary": True} | settings
    return SqlStore(url, mapping, keyring=HmacKeyring(), **options)


@pytest.fixture
def site(database: str) -> Iterator[Site]:
    """An empty site whose mapping is proved."""
    with psycopg.connect(database, autocommit=True) as sql:
        sql.execute(SCHEMA)
        store = store_of(database)
        store.prove()
        yield Site(store, HmacKeyring(), sql=sql, url=database)
        store.close()
