"""What may keep what an erasure clears is told, by the name that acknowledges it; nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from devtools.servers.postgres import PostgresServer
from tests.adapters.stores.sql.conftest import SCHEMA, Site, store_of


@pytest.fixture
def logical(tmp_path: Path) -> Iterator[PostgresServer]:
    """A server that writes what logical decoding needs."""
    settings = {"wal_level": "logical", "max_replication_slots": "4"}
    with PostgresServer(tmp_path / "pg", fsync=False, settings=settings) as server:
        yield server


def names(site: Site, *ignore: str) -> list[str]:
    return [one.name for one in site.prove(ignore=ignore).possible_copies]


AUDITING = """
CREATE SCHEMA audit;
CREATE TABLE audit.trail (at timestamptz DEFAULT now(), what jsonb);
CREATE FUNCTION audit.keep() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN INSERT INTO audit.trail (what) VALUES (to_jsonb(OLD)); RETURN NULL; END $$;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN PERFORM pg_notify('users', OLD.email); RETURN NEW; END $$;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN -- here nobody does INSERT INTO anything
    NEW.time_zone := 'INSERT'; RETURN NEW; END $$;
CREATE TRIGGER keep AFTER UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION audit.keep();
CREATE TRIGGER keep_new AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION audit.keep();
CREATE TRIGGER off AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION audit.keep();
ALTER TABLE users DISABLE TRIGGER off;
CREATE TRIGGER touch BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER same BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE TRIGGER told BEFORE UPDATE ON comments FOR EACH ROW EXECUTE FUNCTION tell();
CREATE TRIGGER gone AFTER DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION audit.keep();
"""


def test_triggers_that_may_put_an_old_row_elsewhere_are_told_and_others_are_not(site: Site) -> None:
    site.sql.execute(AUDITING)
    assert sorted(names(site)) == ["trigger:comments.told", "trigger:sessions.gone", "trigger:users.keep"]
    assert names(site, "trigger:users.keep", "trigger:comments.told") == ["trigger:sessions.gone"]


def test_tables_of_what_was_are_told_by_name_and_columns(site: Site) -> None:
    site.sql.execute(
        "CREATE TABLE users_history (id bigint, email text);"
        "CREATE TABLE old_user (id bigint, last_name text);"
        "CREATE TABLE users_2024 (id bigint, email text); CREATE TABLE user_logs (line text);"
        "CREATE TABLE people (id bigint, first_name text, last_name text, email text, password_hash text,"
        " locale text); CREATE TABLE plans (id bigint, first_name text, locale text);"
        "CREATE SCHEMA archive; CREATE TABLE archive.users (id bigint, email text, locale text);"
        "CREATE TABLE users_backup (id bigint, email text)"
    )
    told = names(site, "table:users_backup")
    assert sorted(told) == [
        "table:archive.users",
        "table:old_user",
        "table:people",
        "table:users_2024",
        "table:users_history",
    ]
    assert names(
        site,
        "users_2024.email",
        "table:people",
        "table:archive.users",
        "table:old_user",
        "table:users_backup",
    ) == ["table:users_history"]


def test_what_changes_are_decoded_for_is_told(logical: PostgresServer) -> None:
    with psycopg.connect(logical.url("postgres"), autocommit=True) as database:
        database.execute(SCHEMA)
        database.execute(
            "CREATE TABLE things (id int PRIMARY KEY); CREATE PUBLICATION things FOR TABLE things;"
            "CREATE PUBLICATION everything FOR ALL TABLES;"
            "CREATE PUBLICATION arrivals FOR TABLE users, comments WITH (publish = 'insert');"
            "ALTER TABLE users REPLICA IDENTITY FULL; ALTER TABLE things REPLICA IDENTITY FULL"
        )
        database.execute("SELECT pg_create_logical_replication_slot('warehouse', 'pgoutput')")
        database.execute("SELECT pg_create_physical_replication_slot('standby')")
    store = store_of(logical.url("postgres"))
    try:
        told = {one.name: one.why for one in store.prove().possible_copies}
    finally:
        store.close()
    assert told == {
        "publication:arrivals": "never tells subscribers of comments, users of an UPDATE or DELETE",
        "publication:everything": "has subscribers of comments, sessions, users",
        "slot:warehouse": "pgoutput keeps the write-ahead log until somebody reads it",
        "replica-identity:users": "FULL: old rows are written into the write-ahead log",
    }


def test_below_logical_a_full_replica_identity_keeps_nothing(site: Site) -> None:
    site.sql.execute("ALTER TABLE users REPLICA IDENTITY FULL")
    assert names(site) == []


PARTITIONED = (
    "DROP TABLE comments; CREATE TABLE comments (id int GENERATED ALWAYS AS IDENTITY, author_id bigint,"
    " signature text, body text, PRIMARY KEY (id, author_id)) PARTITION BY RANGE (author_id);"
    "CREATE TABLE comments_1 PARTITION OF comments FOR VALUES FROM (0) TO (1000);"
)
KEEPERS = """
CREATE TABLE kept (id bigint, was text, n int);
CREATE FUNCTION keep(was text) RETURNS text LANGUAGE sql AS
  'INSERT INTO kept (was) VALUES (was) RETURNING was';
CREATE FUNCTION pass_on(was text) RETURNS text LANGUAGE sql AS 'SELECT keep(was)';
CREATE FUNCTION slug(of text) RETURNS text LANGUAGE sql AS 'SELECT lower(of)';
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE it text; BEGIN {body}; RETURN NEW; END $$;
CREATE TRIGGER t AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION f();
"""
BODIES = {
    "updates what is there with a cleared column": (
        "UPDATE kept SET was = OLD.email WHERE id = OLD.id",
        True,
    ),
    "updates what is there with the whole row": ("UPDATE kept SET was = to_jsonb(OLD)::text", True),
    "calls a procedure": ("CALL keep_it(OLD.email)", True),
    "calls what keeps, in the end": ("it := pass_on(OLD.email)", True),
    "counts": ("UPDATE kept SET n = n + 1 WHERE id = OLD.id AND OLD IS DISTINCT FROM NEW", False),
    "calls what keeps nothing": ("it := slug(OLD.email) || now()", False),
}


@pytest.mark.parametrize(("body", "keeps"), BODIES.values(), ids=BODIES)
def test_what_a_trigger_s_function_does_with_the_old_row_decides(
    site: Site, body: str, *, keeps: bool
) -> None:
    site.sql.execute(KEEPERS.replace("{body}", body))
    assert names(site) == ["trigger:users.t"] * keeps


def test_a_rule_that_does_something_besides_is_told(site: Site) -> None:
    site.sql.execute(
        "CREATE TABLE kept (was text); CREATE RULE silent AS ON UPDATE TO users DO ALSO NOTHING;"
        "CREATE RULE keep AS ON UPDATE TO users DO ALSO INSERT INTO kept VALUES (OLD.email)"
    )
    assert names(site) == ["rule:users.keep"]
    assert names(site, "rule:users.keep") == []


def test_what_a_partition_has_of_its_own_is_told_by_its_table(logical: PostgresServer) -> None:
    with psycopg.connect(logical.url("postgres"), autocommit=True) as database:
        database.execute(SCHEMA)
        database.execute(PARTITIONED)
        database.execute(
            KEEPERS.replace("{body}", "INSERT INTO kept (was) VALUES (OLD.signature)")
            .replace("ON users", "ON comments_1")
            .replace("TRIGGER t", "TRIGGER own")
        )
        database.execute(
            "CREATE TRIGGER common AFTER UPDATE ON comments FOR EACH ROW EXECUTE FUNCTION f();"
            "ALTER TABLE comments_1 REPLICA IDENTITY FULL"
        )
    store = store_of(logical.url("postgres"))
    try:
        told = [one.name for one in store.prove().possible_copies]
    finally:
        store.close()
    assert told == ["trigger:comments.common", "trigger:comments.own", "replica-identity:comments"]


def test_published_partitions_count_as_their_table(site: Site) -> None:
    site.sql.execute(PARTITIONED + "CREATE PUBLICATION parts FOR TABLE comments_1")
    (told,) = site.prove().possible_copies
    assert (told.name, told.why) == ("publication:parts", "has subscribers of comments")
