"""A store that is away, read-only, a standby or cut off: said clearly, nothing half-done, nobody shown."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from devtools.servers import PostgresServer
from devtools.servers.postgres import NOBODY
from lethe.adapters.stores.sql.store import SqlStore
from lethe.domain.identifiers import Identifier, IdentifierKind, PersonalText, email_identifier
from lethe.domain.tombstones import match_unchanged_rows
from lethe.ports.stores import InRecovery, MappingInvalid, StoreError, StoreUnreachable, Wanted
from tests.adapters.stores.sql.conftest import SCHEMA, HmacKeyring, Site, store_of
from tests.contracts.store_contract import somebody


def all_that_is_shown(error: BaseException) -> str:
    """Return all that a log, a debugger or a tracker of errors could print of an exception."""
    seen: list[str] = []
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is not None:
            seen += [str(one), repr(one), repr(vars(one)), *traceback.format_exception(one)]
            todo += [one.__cause__, one.__context__]
    return "\n".join(seen)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("password", "wrong-secret", "refuses the password"),
        ("host", "host.invalid", "name is not known"),
        ("port", "65533", "no server listens"),
        ("database", "elsewhere", "database of the URL does not exist"),
        ("query", "?sslmode=require", "the server offers no TLS"),
    ],
)
def test_a_server_that_can_not_be_used_says_why(site: Site, old: str, new: str, problem: str) -> None:
    head, _, name = site.url.rpartition("/")
    credentials, _, place = head.rpartition("@")
    host, _, port = place.rpartition(":")
    user, _, password = credentials.rpartition(":")
    url = {
        "password": f"{user}:{new}@{place}/{name}",
        "host": f"{credentials}@{new}:{port}/{name}",
        "port": f"{credentials}@{host}:{new}/{name}",
        "database": f"{head}/{new}",
        "query": f"{site.url}{new}",
    }[old]
    store = store_of(url)
    for ask in (store.prove, store.observe):
        with pytest.raises(StoreUnreachable, match=problem) as refused:
            ask()
        shown = all_that_is_shown(refused.value)
        assert "spec.sql.urlSecretRef" in refused.value.remedy
        assert password not in shown
        assert new not in shown or old == "query"
    store.close()


def test_a_read_only_database_is_unreachable(site: Site) -> None:
    person = somebody()
    site.enter(person)
    tombstones = site.tombstones_of(person)
    move = site.move()
    name = site.url.rsplit("/", 1)[1]
    site.sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    store = store_of(site.url)
    store.prove([site.port.prove().proved])
    with pytest.raises(StoreUnreachable, match="read-only"):
        store.erase(tombstones, match_unchanged_rows(site.fingerprints), move=move)
    store.close()


class TestCutOff:
    def test_a_connection_that_is_cut_leaves_nothing_half_erased(self, site: Site) -> None:
        persons = [somebody() for _ in range(20)]
        for person in persons:
            site.enter(person)
        tombstones = site.tombstones_of(*persons)
        # The last statement of an erasure waits here, after dependents and persons have been changed.
        site.sql.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN PERFORM pg_sleep(30); RETURN NULL; END';"
            "CREATE TRIGGER slow AFTER UPDATE ON users FOR EACH STATEMENT EXECUTE FUNCTION slow()"
        )
        before, head, move = site.everything(), site.head(), site.move()
        cutter = threading.Thread(target=self.cut, args=(site,))
        cutter.start()
        with pytest.raises(StoreUnreachable) as cut:
            site.store.erase(tombstones, match_unchanged_rows(site.fingerprints), move=move)
        cutter.join()
        assert not any(text in all_that_is_shown(cut.value) for person in persons for text in person.texts)
        site.sql.execute("DROP TRIGGER slow ON users")
        assert site.everything() == before
        assert site.head() == head
        assert (
            len(site.store.erase(tombstones, match_unchanged_rows(site.fingerprints), move=move).entries)
            == 20
        )

    @staticmethod
    def cut(site: Site) -> None:
        with psycopg.connect(site.url, autocommit=True) as killer:
            for _ in range(400):
                row = killer.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE application_name = 'lethe' AND wait_event = 'PgSleep'"
                ).fetchone()
                if row and row[0]:
                    return
                time.sleep(0.05)

    def test_idle_connections_that_were_cut_cost_no_answer(self, site: Site) -> None:
        person = somebody()
        site.enter(person)
        for ask in (site.port.observe, lambda: site.find_by_email(person.email), site.port.prove):
            site.sql.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = 'lethe' AND datname = current_database()"
            )
            assert ask()


class TestNothingPersonalIsShown:
    """Whatever goes wrong, no text of a person is in what is raised."""

    PROVOCATIONS = (
        "DROP TABLE sessions CASCADE",
        "ALTER TABLE users RENAME email TO mail",
        "ALTER TABLE users ALTER email TYPE varchar(40), ADD CONSTRAINT e CHECK (email LIKE '%anary%')",
        "ALTER TABLE users ALTER first_name SET NOT NULL",
        (
            "CREATE FUNCTION r() RETURNS trigger LANGUAGE plpgsql"
            " AS $$ BEGIN RAISE EXCEPTION 'row %', OLD; END $$;"
            "CREATE TRIGGER r BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION r()"
        ),
        (
            "CREATE FUNCTION r() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'row %', OLD USING ERRCODE = 'XX000', DETAIL = OLD.email; END $$;"
            "CREATE TRIGGER r BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION r()"
        ),
        "ALTER TABLE users ALTER email TYPE bytea USING email::bytea",
        "ALTER TABLE users ALTER id TYPE text",
    )

    @pytest.mark.parametrize("provocation", PROVOCATIONS)
    def test_by(self, site: Site, provocation: str) -> None:
        person = somebody()
        site.enter(person)
        tombstones = site.tombstones_of(person)
        site.sql.execute("ALTER TABLE comments DROP CONSTRAINT comments_author_id_fkey")
        site.sql.execute("ALTER TABLE sessions DROP CONSTRAINT sessions_user_id_fkey")
        site.sql.execute(provocation)
        shown: list[str] = []
        for ask in (
            lambda: site.erase(tombstones),
            lambda: site.find_by_email(person.email),
            lambda: site.reach(email_identifier(person.email)),
            lambda: site.check(tombstones),
            lambda: site.store.plan(tombstones),
            site.port.prove,
            site.port.tidy,
        ):
            try:
                shown.append(repr(ask()))
            except StoreError as error:
                shown.append(all_that_is_shown(error))
        text = "\n".join(shown).lower()
        assert not any(one.lower() in text for one in person.texts)

    def test_by_an_identifier_that_the_database_can_not_hold(self, site: Site) -> None:
        site.enter(somebody())
        for odd in ("canary\0x@example.org", "canary\udcff@example.org", "canary" * 2000):
            identifier = Identifier(IdentifierKind.EMAIL, PersonalText(odd))
            assert not site.store.find([Wanted("r", (identifier,))]).records

    def test_the_servers_log_of_statements_shows_nobody(self, tmp_path: Path) -> None:
        settings = {
            "log_statement": "all",
            "log_min_duration_statement": "0",
            "log_parameter_max_length": "-1",
        }
        with PostgresServer(tmp_path / "pg", fsync=False, settings=settings) as pg:
            url = pg.create_database("site")
            with psycopg.connect(url, autocommit=True) as sql:
                sql.execute(SCHEMA)
                store = store_of(url)
                store.prove()
                site = Site(store, HmacKeyring(), sql=sql, url=url)
                person = somebody()
                sql.execute("SET log_statement = 'none'; SET log_min_duration_statement = -1")
                site.enter(person)
                assert site.reach(email_identifier(person.email))
                tombstones = site.tombstones_of(person)
                site.erase(tombstones)
                site.check(tombstones)
                store.close()
            log = pg.log_path.read_text(encoding="utf-8", errors="replace")
            assert "lethe_wanted" in log
            assert not any(text.lower() in log.lower() for text in person.texts)


class TestStandby:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[PostgresServer]:
        with PostgresServer(tmp_path / "pg", fsync=False) as server:
            yield server

    def test_a_standby_proves_nothing(self, server: PostgresServer) -> None:
        url = server.create_database("site")
        with psycopg.connect(url, autocommit=True) as sql:
            sql.execute(SCHEMA)
        store: SqlStore = store_of(url)
        store.prove()
        server.stop()
        signal = server.data_directory / "standby.signal"
        signal.touch()
        if os.geteuid() == 0:
            os.chown(signal, NOBODY, NOBODY)
        server.start()
        asks: list[Any] = [store.observe, lambda: store.observe(settle=True), store.prove]
        for ask in asks:
            with pytest.raises(InRecovery, match="is a standby"):
                ask()
        store.close()

    def test_another_server_with_the_same_content_is_another_identity(
        self, server: PostgresServer, tmp_path: Path
    ) -> None:
        url = server.create_database("site")
        with psycopg.connect(url, autocommit=True) as sql:
            sql.execute(SCHEMA)
        store = store_of(url)
        store.prove()
        before = store.observe().identity
        backup = server.basebackup(tmp_path / "copy")
        server.restore_basebackup(backup)
        after = store.observe().identity
        store.close()
        assert before.server["system"] == after.server["system"]
        assert before.server["timeline"] != after.server["timeline"]


def test_a_role_without_privileges_is_told_what_to_grant(site: Site) -> None:
    role = f"poor_{site.url.rsplit('/', 1)[1]}"
    site.sql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'")
    place = site.url.split("@", 1)[1]
    store = store_of(f"postgresql://{role}:pw@{place}")
    with pytest.raises(MappingInvalid, match=r"GRANT|privilege"):
        store.prove()
    with pytest.raises(MappingInvalid):
        store.find([Wanted("r", (email_identifier("a@b.example"),))])
    store.close()
    site.sql.execute(f"DROP ROLE {role}")
