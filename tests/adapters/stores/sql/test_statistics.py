"""No statistic of the server keeps a sample of what was erased, or it is said which does, and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from devtools.servers import PostgresServer
from tests.adapters.stores.sql.conftest import SCHEMA, HmacKeyring, Site, store_of
from tests.contracts.store_contract import Person, somebody

EVERY_SAMPLE = """
SELECT string_agg(s, ' ') FROM (
  SELECT t::text FROM pg_stats t UNION ALL SELECT t::text FROM pg_stats_ext t
  UNION ALL SELECT t::text FROM pg_stats_ext_exprs t) AS every (s)
"""
"""By bytes nothing would be proven: large values of `pg_statistic` are compressed."""

SAMPLED = {
    "an index on an expression": "CREATE INDEX by_mail ON users (lower(email))",
    "extended statistics": "CREATE STATISTICS pairs (mcv) ON email, first_name FROM users",
    "statistics of an expression": "CREATE STATISTICS expressed ON upper(email), upper(last_name) FROM users",
    "an index whose rows are gone": "CREATE INDEX w ON users (lower(last_name)) WHERE last_name IS NOT NULL",
}
NOT_SAMPLED_ANY_MORE = {
    "a column without a target": "ALTER TABLE users ALTER email SET STATISTICS 0",
    "an index without a target": "ALTER INDEX users_lower_idx ALTER COLUMN 1 SET STATISTICS 0",
}


def crowd(site: Site) -> list[Person]:
    """Fill a site so that each person is among the most common values of each statistic."""
    persons = [somebody() for _ in range(20)]
    for person in persons:
        site.enter(person)
    return persons


def samples(site: Site) -> str:
    row = site.sql.execute(EVERY_SAMPLE).fetchone()
    assert row is not None
    return str(row[0]).lower()


def traces(site: Site, persons: list[Person]) -> set[str]:
    shown = samples(site)
    return {text for person in persons for text in person.texts if text.lower() in shown}


@pytest.mark.parametrize("ddl", SAMPLED.values(), ids=SAMPLED.keys())
def test_no_statistic_holds_who_was_erased(site: Site, ddl: str) -> None:
    site.sql.execute(ddl)
    persons = crowd(site)
    site.sql.execute("ANALYZE users")
    site.erase(site.tombstones_of(*persons))
    assert traces(site, persons)
    assert site.port.tidy() == ()
    assert not traces(site, persons)


@pytest.mark.parametrize("ddl", NOT_SAMPLED_ANY_MORE.values(), ids=NOT_SAMPLED_ANY_MORE.keys())
def test_what_is_not_sampled_any_more_is_cleared(site: Site, ddl: str) -> None:
    persons = crowd(site)
    site.sql.execute("ANALYZE users")
    site.sql.execute(ddl)
    site.erase(site.tombstones_of(*persons))
    assert site.port.tidy() == ()
    assert not traces(site, persons)


def test_a_table_that_was_emptied_keeps_no_samples(site: Site) -> None:
    persons = crowd(site)
    site.sql.execute("UPDATE sessions SET token = 'canary-token'; ANALYZE sessions")
    site.erase(site.tombstones_of(*persons))
    assert "canary-token" in samples(site)
    assert site.port.tidy() == ()
    assert "canary-token" not in samples(site)


def test_partitions_and_their_parents_are_renewed(site: Site) -> None:
    site.sql.execute(
        "DROP TABLE comments; CREATE TABLE every_comment (id bigint, author_id bigint,"
        " signature text, body text) PARTITION BY RANGE (id);"
        "CREATE SEQUENCE comments_seq;"
        "CREATE TABLE comments PARTITION OF every_comment (id DEFAULT nextval('comments_seq'))"
        " FOR VALUES FROM (1) TO (100000) PARTITION BY RANGE (id);"
        "CREATE TABLE comments_old PARTITION OF comments FOR VALUES FROM (1) TO (100000)"
    )
    persons = crowd(site)
    site.sql.execute("ANALYZE")
    shown = samples(site)
    site.port.prove()
    site.erase(site.tombstones_of(*persons))
    assert shown.count(persons[0].last_name.lower()) >= 3
    assert site.port.tidy() == ()
    assert not traces(site, persons)


class TestRights:
    """The server only warns who may not ANALYZE, and does nothing."""

    @pytest.fixture
    def role(self, site: Site) -> Iterator[str]:
        name = f"reader_{site.url.rsplit('/', 1)[1]}"
        site.sql.execute(
            f"CREATE ROLE {name} LOGIN PASSWORD 'pw';"
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}"
        )
        yield name
        site.sql.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")

    def test_who_may_not_is_told_which_right_it_takes(self, site: Site, role: str) -> None:
        store = store_of(f"postgresql://{role}:pw@{site.url.split('@', 1)[1]}")
        expected = tuple(
            f"the user may not ANALYZE public.{table}: GRANT MAINTAIN on it (PostgreSQL 17 and later), or let"
            " its owner connect"
            for table in ("comments", "sessions", "users")
        )
        assert store.prove().samples_stay == expected
        assert store.tidy() == expected
        store.close()

    def test_the_right_that_is_named_suffices(self, site: Site, role: str) -> None:
        site.sql.execute(f"GRANT MAINTAIN ON users, sessions, comments TO {role}")
        persons = crowd(site)
        site.sql.execute("ANALYZE users; ALTER INDEX users_lower_idx ALTER COLUMN 1 SET STATISTICS 0")
        store = store_of(f"postgresql://{role}:pw@{site.url.split('@', 1)[1]}")
        assert store.prove().samples_stay == ()
        site.erase(site.tombstones_of(*persons))
        assert store.tidy() == ()
        assert not traces(site, persons)
        store.close()


def test_a_table_that_is_being_vacuumed_is_told_and_the_others_are_renewed(site: Site) -> None:
    persons = crowd(site)
    site.sql.execute("ANALYZE")
    site.erase(site.tombstones_of(*persons))
    with psycopg.connect(site.url) as other:
        other.execute("LOCK TABLE comments IN SHARE UPDATE EXCLUSIVE MODE")
        assert site.port.tidy() == ("public.comments could not be locked or read; it is tried again",)
    assert site.port.tidy() == ()
    assert not traces(site, persons)


def test_before_18_what_analyze_leaves_is_told(tmp_path: Path) -> None:
    with PostgresServer(tmp_path / "pg", version=16, fsync=False) as server:
        url = server.create_database("site")
        with psycopg.connect(url, autocommit=True) as sql:
            sql.execute(SCHEMA)
            store = store_of(url)
            store.prove()
            site = Site(store, HmacKeyring(), sql=sql, url=url)
            persons = crowd(site)
            sql.execute("ANALYZE; ALTER TABLE users ALTER email SET STATISTICS 0")
            site.erase(site.tombstones_of(*persons))
            left = site.port.tidy()
            assert len(left) == 4, left
            assert any("public.users.email," in one for one in left)
            assert sum("public.sessions." in one for one in left) == 3
            assert all(
                "whose table is empty or whose statistics target is 0: set a target" in one for one in left
            )
            sql.execute(
                "ALTER TABLE users ALTER email SET STATISTICS -1; INSERT INTO sessions (user_id) VALUES (1)"
            )
            assert site.port.tidy() == ()
            assert not traces(site, persons)
            store.close()
