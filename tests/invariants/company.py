"""A company in one process: real PostgreSQL, a real ledger file, and the workflows that guard them.

`visit` does what a pass does (`controllers/datastore.py`), without API server and without waiting.
Every row of `users` carries an immutable `person` that no mapping touches: by it a test knows, whatever
keys and addresses have become, whose row it is.
"""

from __future__ import annotations

import copy
import itertools
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from devtools.servers.postgres import PostgresServer
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import SqlLedger, open_ledger
from lethe.adapters.stores.sql.store import SqlStore
from lethe.domain.facts import IdentitiesDecided
from lethe.domain.identifiers import email_identifier
from lethe.domain.mapping import (
    ClearRule,
    ClearTo,
    Dependent,
    PiiKind,
    StoreOwner,
    StoreRole,
    SubjectMapping,
)
from lethe.domain.periods import Period
from lethe.domain.requests import RequestRecord
from lethe.domain.restores import Release, RestoreEpisode
from lethe.domain.trust import Ending
from lethe.ports.stores import Journaled
from lethe.workflows import store_pass
from lethe.workflows.erasure import accept, erase
from lethe.workflows.erasure.accept import ErasureOrder, Intake
from lethe.workflows.erasure.find import PassResult
from lethe.workflows.pass_context import PassContext
from lethe.workflows.restore.episode import explain
from lethe.workflows.restore.replay import ReplayState, ReplayStep
from lethe.workflows.store_session import Rejoining, StoreDescription, StoreSession, fingerprints_of

SCHEMA = """
CREATE TABLE users (
  id serial PRIMARY KEY,
  first_name text,
  last_name text,
  email varchar(254) NOT NULL UNIQUE,
  password_hash text NOT NULL DEFAULT '!',
  locale text NOT NULL DEFAULT 'en-US',
  time_zone text NOT NULL DEFAULT 'UTC',
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  person uuid NOT NULL
);
CREATE TABLE sessions (
  id serial PRIMARY KEY, user_id integer NOT NULL REFERENCES users (id), token text);
CREATE TABLE comments (
  id serial PRIMARY KEY, author_id integer NOT NULL REFERENCES users (id), signature text);
"""

MAPPING = SubjectMapping(
    table="users",
    key="id",
    identifiers={"email": "email"},
    created_at="created_at",
    ignore=("users.person",),
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
WITHOUT_CREATED_AT = replace(MAPPING, created_at=None)

NAMESPACE, STORE = "shop", "shop/site"
JOURNAL = ("lethe_journal_head", "lethe_journal_entries")
TABLES = ("users", "sessions", "comments")

CLEARED = (
    "u.first_name IS NULL AND u.last_name IS NULL AND u.email LIKE 'erased-%%@erased.invalid' "
    "AND u.password_hash = '!' AND u.locale = 'en-US' AND u.time_zone = 'UTC' "
    "AND NOT EXISTS (SELECT FROM sessions s WHERE s.user_id = u.id) "
    "AND NOT EXISTS (SELECT FROM comments c WHERE c.author_id = u.id AND c.signature IS NOT NULL)"
)

_numbers = itertools.count(1)


class PowerCut(BaseException):
    """The machine is off: no `except Exception` hears of it, and nothing in memory outlives it."""


@dataclass
class Fuse:
    """Cuts the power at the `at`-th moment from now: each side effect has one before and one after it."""

    at: int | None = None
    passed: int = 0
    names: list[str] = field(default_factory=list)

    def moment(self, name: str) -> None:
        """Pass a moment, or be cut off in it."""
        self.passed += 1
        self.names.append(name)
        if self.at is not None and self.passed >= self.at:
            self.at = None
            raise PowerCut(name)


class Wired:
    """Something whose side effects pass a fuse."""

    def __init__(self, inner: Any, fuse: Fuse, effects: Sequence[str]) -> None:
        self._inner, self._fuse, self._effects = inner, fuse, effects

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._effects:
            return found

        def call(*args: Any, **options: Any) -> Any:
            self._fuse.moment(f"before {name}")
            answer = found(*args, **options)
            self._fuse.moment(f"after {name}")
            return answer

        return call


@dataclass
class Snapshot:
    """Everything that a database held: rows of each table, and where its sequences stood."""

    rows: Mapping[str, bytes]
    sequences: Mapping[str, tuple[int, bool]]


@dataclass
class StorePass:
    """What a visit came to. `found` counts what probe and sweep had to do or could not decide."""

    opened: bool = False
    step: ReplayStep | None = None
    served: PassResult | None = None
    found: int = 0
    safe: bool = False
    endings: dict[str, Ending] = field(default_factory=dict)


class Database:
    """What an application keeps in PostgreSQL; `sql` is its own connection. Others put it back."""

    def __init__(self, server: PostgresServer, *, template: str = "template1", schema: str = SCHEMA) -> None:
        self.server, self.schema = server, schema
        self.database = f"company_{next(_numbers)}"
        self._sql: psycopg.Connection[tuple[Any, ...]] | None = None
        server.create_database(self.database, template=template)
        if template == "template1":
            self.sql(schema)

    def drop(self) -> None:
        """Hang up, and drop the database."""
        self._hang_up()
        self.server.drop_database(self.database)

    def _hang_up(self) -> None:
        if self._sql is not None:
            self._sql.close()
            self._sql = None

    @property
    def connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return the application's connection, in autocommit mode."""
        if self._sql is None or self._sql.closed:
            self._sql = psycopg.connect(self.server.url(self.database), autocommit=True)
        return self._sql

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run statements as the application, and return the rows of the last one."""
        cursor = self.connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []

    def sign_up(self, email: str, *, key: int | None = None) -> str:
        """Let somebody sign up, with a session and a comment; return the `person`."""
        person, name = str(uuid4()), email.partition("@")[0]
        keys = self.sql(
            "INSERT INTO users (id, first_name, last_name, email, password_hash, locale, time_zone, person) "
            "VALUES (coalesce(%s, nextval('users_id_seq')), %s, %s, %s, 'hash', 'de-CH', 'Europe/Zurich', %s)"
            " RETURNING id",
            *(key, f"First-{name}", f"Last-{name}", email, person),
        )
        self.log_in(keys[0][0])
        self.sql("INSERT INTO comments (author_id, signature) VALUES (%s, %s)", keys[0][0], f"Last-{name}")
        return person

    def log_in(self, key: int) -> None:
        """Insert a session, which locks the row that it refers to."""
        self.sql("INSERT INTO sessions (user_id, token) VALUES (%s, 'token')", key)

    def write_back(self, person: str, row: Mapping[str, Any]) -> None:
        """Save a profile as a stale session of the application does."""
        self.sql(
            "UPDATE users SET first_name = %s, last_name = %s, email = %s, password_hash = %s, locale = %s, "
            "time_zone = %s WHERE person = %s",
            *(row["first_name"], row["last_name"], row["email"], row["password_hash"], row["locale"]),
            *(row["time_zone"], person),
        )

    def key_of(self, person: str) -> int:
        """Return a person's key. Raises `LookupError` where her row is not there."""
        for (key,) in self.sql("SELECT id FROM users WHERE person = %s", person):
            return int(key)
        raise LookupError(person)

    def is_cleared(self, person: str) -> bool:
        """Tell whether a person's row stands, and nothing of her is left."""
        rows = self.sql(f"SELECT {CLEARED} FROM users u WHERE u.person = %s", person)
        return bool(rows and rows[0][0])

    def row_of(self, person: str) -> dict[str, Any] | None:
        """Return everything about a person's row, dependents included; `None`: no such row."""
        rows = self.sql(
            "SELECT to_jsonb(u) || jsonb_build_object("
            "'sessions', (SELECT count(*) FROM sessions s WHERE s.user_id = u.id), "
            "'signatures', (SELECT array_agg(signature ORDER BY c.id) FROM comments c"
            " WHERE c.author_id = u.id))"
            " FROM users u WHERE u.person = %s",
            person,
        )
        return dict(rows[0][0]) if rows else None

    def full_scan(self) -> dict[str, bool]:
        """Read all tables directly: whether each person who is there is cleared."""
        return {str(p): bool(c) for p, c in self.sql(f"SELECT u.person, {CLEARED} FROM users u")}

    def everything(self) -> dict[str, bytes]:
        """Return all rows of all tables, the journal's included, byte for byte."""
        return dict(self.snapshot().rows)

    # --- backups ---------------------------------------------------------------------------------------

    def _tables(self) -> list[str]:
        return [
            str(row[0])
            for row in self.sql(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
                " ORDER BY (relname = 'users') DESC, relname"
            )
        ]

    def snapshot(self) -> Snapshot:
        """Take everything, in one snapshot of the database."""
        with self.connection.transaction():
            self.sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            rows = {}
            for table in self._tables():
                with self.connection.cursor().copy(
                    f"COPY (SELECT * FROM {table} ORDER BY 1, 2) TO STDOUT"
                ) as copied:
                    rows[table] = b"".join(bytes(part) for part in copied)
            names = [r[0] for r in self.sql("SELECT relname FROM pg_class WHERE relkind = 'S'")]
            sequences = {
                str(name): self.sql(f"SELECT last_value, is_called FROM {name}")[0] for name in names
            }
        return Snapshot(copy.deepcopy(rows), {n: (int(v), bool(c)) for n, (v, c) in sequences.items()})

    def restore(self, snapshot: Snapshot, way: str) -> None:
        """Put a snapshot back. The ways:

        `volume`: as a snapshot of the volume is, every identity stays. `truncated`: `--data-only` into
        truncated tables. `new-database`: dropped and made anew. `tables`: only the site's own tables,
        the journal stays as it is.
        """
        if way == "new-database":
            ddl = self._journal_ddl()
            self._hang_up()
            self.server.drop_database(self.database)
            self.server.create_database(self.database)
            self.sql(self.schema + (ddl if set(JOURNAL) & set(snapshot.rows) else ""))
            self._load(snapshot, "")
        elif way == "tables":
            site = {table: rows for table, rows in snapshot.rows.items() if table not in JOURNAL}
            self._load(Snapshot(site, snapshot.sequences), "TRUNCATE {} CASCADE")
        else:
            self._load(snapshot, "TRUNCATE {} CASCADE" if way == "truncated" else "DELETE FROM {}")

    def _journal_ddl(self) -> str:
        """Return the statements that make the journal's tables, as whoever guards the store makes them."""
        raise NotImplementedError

    def _load(self, snapshot: Snapshot, emptying: str) -> None:
        with self.connection.transaction():
            present = self._tables()
            if emptying:
                gone = [t for t in present if t in snapshot.rows or (t in JOURNAL and "DELETE" in emptying)]
                for table in reversed(gone):
                    self.sql(emptying.format(table))
            for table, rows in snapshot.rows.items():
                with self.connection.cursor().copy(f"COPY {table} FROM STDIN") as copied:
                    copied.write(rows)
            for name, (value, called) in snapshot.sequences.items():
                self.sql("SELECT setval(%s::regclass, %s, %s)", name, value, called)


class Company(Database):
    """One store, its ledger and its keys."""

    def __init__(
        self,
        server: PostgresServer,
        directory: Path,
        *,
        mapping: SubjectMapping = MAPPING,
        template: str = "template1",
        schema: str = SCHEMA,
        user: str | None = None,
    ) -> None:
        super().__init__(server, template=template, schema=schema)
        self.directory, self.mapping, self.user = directory, mapping, user
        self.now = datetime(2026, 3, 1, tzinfo=UTC)
        self.keyring = FileKeyring(_made(directory / "keys"))
        self.ledger_file = directory / "ledger-1.db"
        self.fuse = Fuse()
        self.orders: dict[str, ErasureOrder] = {}
        self.rejoined: dict[str, Rejoining] = {}
        self.switch_on()

    # --- the operator's process ------------------------------------------------------------------------

    def switch_on(self) -> None:
        """Begin a new process over the ledger's file and the database."""
        self.real_ledger: SqlLedger = open_ledger(f"sqlite:///{self.ledger_file}", self.keyring)
        self.token = self.real_ledger.take_over()
        self.ledger: Any = Wired(self.real_ledger, self.fuse, ["append"])
        self.store = self._guarded()
        self.other_stores: list[StoreSession] = []

    @property
    def context(self) -> PassContext:
        """Return the surroundings of a pass; its clock shows what `now` says at the moment."""
        return PassContext(self.ledger, self.keyring, self.token, lambda: self.now)

    @property
    def unfused(self) -> PassContext:
        """Return the same, past the fuse: for what is not part of the pass that is cut off."""
        return replace(self.context, ledger=self.real_ledger)

    def _guarded(self) -> StoreSession:
        port = SqlStore(
            self.url,
            self.mapping,
            ledger_id=self.real_ledger.ledger_id,
            store=STORE,
            keyring=self.keyring,
            primary=True,
        )
        description = StoreDescription(
            NAMESPACE, "site", StoreRole.PRIMARY, StoreOwner.SELF, rejoined=(*self.rejoined.values(),)
        )
        wired: Any = Wired(port, self.fuse, ["prove", "erase", "tick", "advance_sequences"])
        return StoreSession(description, wired, fingerprints_of(self.keyring, STORE))

    def join(self, name: str, role: StoreRole, url: str, mapping: SubjectMapping) -> StoreSession:
        """Add a further store of the same company."""
        port: Any = SqlStore(
            url,
            mapping,
            ledger_id=self.real_ledger.ledger_id,
            store=f"{NAMESPACE}/{name}",
            keyring=self.keyring,
        )
        needs = "primaryKey" in mapping.identifiers
        description = StoreDescription(NAMESPACE, name, role, StoreOwner.SELF, needs_primary_key=needs)
        joined = StoreSession(description, port, fingerprints_of(self.keyring, f"{NAMESPACE}/{name}"))
        self.other_stores.append(joined)
        return joined

    @property
    def url(self) -> str:
        """Return the address under which the operator knows the store."""
        if self.user is None:
            return self.server.url(self.database)
        return self.server.url(self.database, user=self.user, password=self.server.password)

    def _journal_ddl(self) -> str:
        wired: Any = self.store.port
        with wired._sessions.transaction() as cursor:
            return str(wired._journal(cursor.connection).ddl_text(cursor))

    def power_cut(self) -> None:
        """Lose everything in memory; the ledger goes on from its file as it lay on disk at this moment."""
        old, self.ledger_file = self.ledger_file, self.directory / f"ledger-{next(_numbers)}.db"
        for suffix in ("", "-wal"):
            if Path(f"{old}{suffix}").exists():
                shutil.copy(f"{old}{suffix}", f"{self.ledger_file}{suffix}")
        self.real_ledger._engine.dispose()
        self.store.port.close()
        self.fuse.at = None
        self.switch_on()

    def close(self) -> None:
        """End, and drop the database."""
        self.store.port.close()
        for store in self.other_stores:
            store.port.close()
        self.real_ledger.close()
        self.drop()

    # --- requests --------------------------------------------------------------------------------------

    def request(
        self, name: str, *, key: int | str | None = None, email: str | None = None, **more: Any
    ) -> Intake:
        """Ask for an erasure by key or e-mail."""
        self.orders[name] = ErasureOrder(
            namespace=NAMESPACE,
            name=name,
            uid=f"uid-{name}",
            spec_text=f"{name} {key}",
            created_at=self.now,
            subject_id=None if key is None else str(key),
            identifier=None if email is None else email_identifier(email),
            **more,
        )
        return self.apply(name)

    def apply(self, name: str, *confirmed: str) -> Intake:
        """Apply a request's manifest (again), with answers of a person."""
        order = self.orders[name]
        self.orders[name] = order = replace(order, confirmed=(*order.confirmed, *confirmed))
        stores = {NAMESPACE: [STORE, *(store.name for store in self.other_stores)]}
        taken = accept.accept([order], self.context, deadline=Period(1, 0), stores=stores)
        return taken[NAMESPACE, name]

    def say_rejoined(self, key: int) -> None:
        """Say in `spec.rejoined` that whoever was erased under a key consents anew, from now on."""
        self.now += timedelta(seconds=1)
        self.rejoined[str(key)] = Rejoining("users", str(key), self.now, "CRM-7")
        self.store.description = replace(self.store.description, rejoined=(*self.rejoined.values(),))

    def record(self, name: str) -> RequestRecord:
        """Return what the ledger knows of a request."""
        return self.real_ledger.requests_named([(NAMESPACE, name)])[NAMESPACE, name]

    def erased(self, name: str) -> bool:
        """Tell whether a request has ended as `Erased`."""
        return str(self.record(name).outcome) == "Erased"

    @property
    def journal(self) -> Journaled:
        """Return the store's journal."""
        journal = self.store.journal
        assert journal is not None
        return journal

    # --- visits ----------------------------------------------------------------------------------------

    def episode(self) -> RestoreEpisode | None:
        """Return the restore that is open."""
        return next(iter(self.real_ledger.episodes(store=STORE, open_only=True)), None)

    def last_episode(self) -> RestoreEpisode:
        """Return the newest restore."""
        return self.real_ledger.episodes(store=STORE)[-1]

    def prove(self, store: StoreSession | None = None) -> None:
        """Prove the mapping, as a visit does before all else."""
        store_pass.prove(store or self.store, self.context)

    def visit(
        self,
        *,
        look: bool = True,
        sweep: bool = True,
        manual: bool = False,
        release: str | None = None,
        uid: str = "its-uid",
    ) -> StorePass:
        """Visit the store once: prove, look or replay, probe and sweep, serve, complete."""
        self.now += timedelta(seconds=1)
        store, visit = self.store, StorePass()
        errand = store_pass.PassPlan(look=look, sweep=sweep, manual_release=manual)
        if release is not None:
            explain(self.last_episode(), self.context, event="by-hand", reason="Drill")
            errand = replace(errand, releases={"by-hand": Release(release, uid)})
        done = store_pass.reconcile_store(
            store,
            self.real_ledger.open_requests(),
            self.context,
            errand,
            primary=STORE,
        )
        visit.step, visit.served, visit.opened = done.step, done.served, done.opened
        visit.found = done.re_erased + done.unclear + done.head_moved
        visit.endings = self.complete()
        visit.safe = look and self.episode() is None and store.trouble is None and not visit.found
        return visit

    def serve(self, store: StoreSession) -> PassResult:
        """Take the open requests as far as they go in a store."""
        return erase.serve(store, self.real_ledger.open_requests(), self.context, primary=STORE)

    def complete(self) -> dict[str, Ending]:
        """End what has nothing left to do."""
        present = [self.store.description, *(store.description for store in self.other_stores)]
        return erase.complete(self.real_ledger.open_requests(), self.context, {NAMESPACE: present})

    def visit_until_safe(self, *, most: int = 12) -> StorePass:
        """Visit until the gate is open and nothing was found; fail if that never comes."""
        for _ in range(most):
            visit = self.visit()
            if visit.safe:
                return visit
        raise AssertionError(f"not safe after {most} visits: {self.episode()}, {self.store.trouble}")

    def visit_until(self, state: ReplayState, *, most: int = 8) -> StorePass:
        """Visit until a replay has come to a state."""
        for _ in range(most):
            visit = self.visit()
            if visit.step is not None and visit.step.state is state:
                return visit
        raise AssertionError(f"no {state} after {most} visits: {self.episode()}, {self.store.trouble}")

    def decide(self, key: int | str, decision: str, *, table: str = "users") -> None:
        """Say whose a row is, in `spec.identities` of the RestoreEvent."""
        episode = self.episode()
        assert episode is not None
        self.ledger.append([IdentitiesDecided(STORE, episode.episode, ((table, str(key), decision),))])

    def cut_at(self, moment: int, do: Callable[[], object]) -> bool:
        """Do something and lose power at a moment of it; return whether it came to that."""
        self.fuse.at, self.fuse.passed, self.fuse.names = moment, 0, []
        try:
            do()
        except PowerCut:
            self.power_cut()
            return True
        finally:
            self.fuse.at = None
        return False


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def canary_in(path: Path, *words: str) -> Iterator[str]:
    """Yield the files below a path that hold a word, in any of the encodings that a server writes."""
    patterns = [re.compile(re.escape(w.encode()), re.IGNORECASE) for w in words]
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            content = file.read_bytes()
            for word, pattern in zip(words, patterns, strict=True):
                if pattern.search(content):
                    yield f"{word} in {file.name}"
