"""The application's database stays as it was: its sessions, behind a pooler or not, sequences, grants."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest

from devtools.node import packages
from devtools.servers import PgBouncer, PostgresServer
from devtools.servers.pgbouncer import PACKAGES
from lethe.domain.identifiers import email_identifier
from lethe.domain.tombstones import match_restored_rows
from lethe.ports.stores import StoreUnreachable, Wanted
from tests.adapters.stores.sql.conftest import Site, store_of
from tests.contracts.store_contract import somebody

SESSION = (
    "SELECT name, setting FROM pg_settings WHERE name <> 'application_name'",
    "SELECT session_user, current_user, current_schemas(false)::text",
    "SELECT name, statement FROM pg_prepared_statements",
    "SELECT name, statement FROM pg_cursors",
    "SELECT oid FROM pg_class WHERE relpersistence = 't'",
    "SELECT locktype, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'",
    "SELECT pg_listening_channels()",
)
"""What a session is to its user."""
DATABASE = (
    "SELECT schemaname, sequencename, last_value FROM pg_sequences",
    "SELECT relname, relacl::text, reloptions::text, relowner FROM pg_class WHERE relkind <> 't'",
    "SELECT attrelid, attname, attstattarget, attacl::text FROM pg_attribute WHERE attrelid >= 16384",
    "SELECT tgname, tgenabled FROM pg_trigger",
    "SELECT setrole, setconfig::text FROM pg_db_role_setting",
    "EXPLAIN (COSTS OFF) SELECT * FROM users WHERE email = 'x'",
    "EXPLAIN (COSTS OFF) SELECT * FROM users JOIN sessions ON user_id = users.id WHERE lower(email) = 'x'",
)
"""What the database is to everybody."""


OPERATIONS = Path(__file__).resolve().parents[4] / "docs" / "operations.md"


def seen(application: psycopg.Connection[Any], questions: Sequence[str]) -> dict[str, list[str]]:
    return {one: sorted(map(str, application.execute(one).fetchall())) for one in questions}


def do_everything(site: Site) -> None:
    """Let Lethe do all that it does in a database in which nobody was restored."""
    persons = [somebody() for _ in range(3)]
    for person in persons:
        site.enter(person)
    site.sql.execute(
        "WITH u AS (INSERT INTO users (email) SELECT n || '@x.example' FROM generate_series(1, 3000) n"
        " RETURNING id) INSERT INTO sessions (user_id) SELECT id FROM u; ANALYZE"
    )
    port = site.port
    port.prove()
    application = psycopg.connect(site.url, autocommit=True)
    before = seen(application, DATABASE)
    tombstones = site.tombstones_of(*persons[:2])
    port.tick(site.move())
    port.plan(tombstones)
    port.contacts([Wanted("r", (email_identifier(persons[0].email),))])
    site.erase(tombstones)
    site.check(tombstones)
    port.observe(settle=True)
    site.erase_again(tombstones)
    matcher = match_restored_rows(site.fingerprints)
    port.erase(tombstones, matcher, move=site.move(), first_number=9_000, exclusive=True)
    port.check([tombstones], matcher, exclusive=True)
    port.tidy()
    list(port.journaled_numbers())
    port.advance_sequences({})
    assert seen(application, DATABASE) == before
    application.close()


@pytest.fixture(params=["transaction"])
def pooler(
    request: pytest.FixtureRequest, built_programs: None, postgres: PostgresServer, tmp_path: Path
) -> Iterator[PgBouncer]:
    """A pooler over everybody's server, of which each database has one session."""
    mode: Literal["transaction", "statement"] = request.param
    try:
        packages.install(PACKAGES)
    except SystemExit as missing:
        pytest.skip(str(missing))
    with PgBouncer(tmp_path / "pgbouncer", postgres, mode=mode) as running:
        yield running


def database_of(site: Site) -> str:
    return site.url.rsplit("/", 1)[1]


def test_lethe_leaves_no_trace_in_a_session_that_the_application_shares(
    site: Site, pooler: PgBouncer
) -> None:
    url = pooler.url(database_of(site))
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as application:
        pid, before = application.execute("SELECT pg_backend_pid()").fetchone(), seen(application, SESSION)
        with closing(store_of(url)) as store:
            site.store.close()
            do_everything(Site(store, site.keyring, sql=site.sql, url=site.url))
        assert application.execute("SELECT pg_backend_pid()").fetchone() == pid, "it was the same session"
        assert seen(application, SESSION) == before


def test_lethe_leaves_no_trace_in_a_database_that_it_is_connected_to_itself(site: Site) -> None:
    with psycopg.connect(site.url, autocommit=True) as application:
        before = seen(application, SESSION)
        do_everything(site)
        assert seen(application, SESSION) == before


def test_what_the_application_left_in_a_shared_session_does_not_lead_lethe_astray(
    site: Site, pooler: PgBouncer
) -> None:
    person = somebody()
    site.enter(person)
    role = f"app_{database_of(site)}"
    site.sql.execute(
        f"CREATE ROLE {role}; CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.users (LIKE public.users)"
    )
    url = pooler.url(database_of(site))
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as application:
        application.execute(
            f"SET search_path TO elsewhere; SET TimeZone TO 'Asia/Tokyo'; SET DateStyle TO 'German';"
            f"SET lock_timeout TO 0; SET ROLE {role}"
        )
        with closing(store_of(url)) as store:
            store.prove()
            shared = Site(store, site.keyring, sql=site.sql, url=site.url)
            tombstones = shared.tombstones_of(person)
            shared.erase(tombstones)
            assert shared.check(tombstones).uncleared == ()
        left = application.execute(
            "SELECT current_setting('search_path'), current_setting('role')"
        ).fetchone()
        assert left == ("elsewhere", role)
    assert person.email not in site.everything()
    site.sql.execute(f"DROP ROLE {role}")


def test_the_search_path_of_the_url_is_followed_behind_a_pooler(site: Site, pooler: PgBouncer) -> None:
    """A pooler takes no startup options; so it is no startup option."""
    person = somebody()
    site.enter(person)
    site.sql.execute("CREATE SCHEMA tenant; ALTER TABLE users SET SCHEMA tenant; CREATE TABLE users (x int)")
    url = f"{pooler.url(database_of(site))}?options=-c%20search_path%3Dtenant,public"
    with closing(store_of(url)) as store:
        store.prove()
        assert Site(store, site.keyring, sql=site.sql, url=site.url).find_by_email(person.email)


@pytest.mark.parametrize("pooler", ["statement"], indirect=True)
def test_a_pooler_that_lends_for_one_statement_only_is_told(site: Site, pooler: PgBouncer) -> None:
    with (
        closing(store_of(pooler.url(database_of(site)))) as store,
        pytest.raises(StoreUnreachable, match="pool_mode be transaction or session"),
    ):
        store.prove()


def test_other_persons_rows_can_be_written_while_somebody_is_erased(site: Site) -> None:
    """Without waiting for any lock: only the erased person's own row is locked."""
    persons = [somebody() for _ in range(2)]
    for person in persons:
        site.enter(person)
    (tombstone,) = site.tombstones_of(persons[0])
    other = site.key_of(persons[1])
    written: list[int] = []

    def matcher(pairs: Sequence[Any]) -> Any:
        with psycopg.connect(site.url, autocommit=True) as application:
            application.execute("SET lock_timeout = '100ms'")
            statements = (
                "UPDATE users SET locale = 'it' WHERE id = %s",
                "INSERT INTO sessions (user_id) VALUES (%s)",
                "UPDATE comments SET body = 'x' WHERE author_id = %s",
            )
            written.extend(application.execute(one, (other,)).rowcount for one in statements)
        return match_restored_rows(site.fingerprints)(pairs)

    site.store.erase([tombstone], matcher, move=site.move())
    assert written == [1, 1, 1]


def test_the_command_of_the_docs_removes_all_that_lethe_leaves_in_a_database(site: Site) -> None:
    everything = (
        "SELECT relname, relkind FROM pg_class c WHERE relnamespace >= 16384 OR oid >= 16384",
        "SELECT proname FROM pg_proc WHERE oid >= 16384",
        "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg_%temp_%'",
        "SELECT tgname FROM pg_trigger",
        "SELECT rolname FROM pg_roles",
        "SELECT description FROM pg_description WHERE objoid >= 16384",
        *DATABASE[:5],
    )
    (command,) = re.findall(r"^DROP TABLE lethe_.*;$", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    with psycopg.connect(site.url, autocommit=True) as application:
        application.execute(command)
        persons = [somebody() for _ in range(3)]
        for person in persons:
            site.enter(person)
        before = seen(application, everything)
        site.port.prove()
        site.port.tick(site.move())
        tombstones = site.tombstones_of(*persons[:2])
        site.erase(tombstones)
        site.check(tombstones)
        site.port.tidy()
        application.execute(command)
        assert seen(application, everything) == before
