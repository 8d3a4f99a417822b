"""VACUUM: it lets go for a replay, and what it does not clean is said truly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from devtools.servers import PostgresServer
from devtools.servers.children import wait_until
from lethe.domain.tombstones import match_restored_rows
from lethe.ports.stores import StoreUnreachable
from tests.adapters.stores.sql.conftest import SCHEMA, HmacKeyring, Site, store_of
from tests.contracts.store_contract import somebody

SLOW_AUTOVACUUM = {
    "autovacuum_naptime": "5s",
    "autovacuum_vacuum_threshold": "0",
    "autovacuum_vacuum_scale_factor": "0",
    "autovacuum_vacuum_cost_delay": "100ms",
    "autovacuum_vacuum_cost_limit": "1",
}


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path / "pg", fsync=False, settings=getattr(request, "param", {})) as running:
        yield running


@pytest.fixture
def crowded(server: PostgresServer) -> Iterator[Site]:
    """A site of three thousand, on a server of its own."""
    url = server.create_database("site")
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute(SCHEMA)
        sql.execute(
            "INSERT INTO users (email, first_name)"
            " SELECT 'n' || n || '@x.example', repeat('x', 500) FROM generate_series(1, 3000) n"
        )
        store = store_of(url)
        store.prove()
        yield Site(store, HmacKeyring(), sql=sql, url=url)
        store.close()


@pytest.mark.slow
@pytest.mark.parametrize("server", [SLOW_AUTOVACUUM], indirect=True)
def test_autovacuum_lets_go_of_a_table_that_a_replay_has_to_lock(crowded: Site) -> None:
    person = somebody()
    crowded.enter(person)
    tombstones = crowded.tombstones_of(person)
    crowded.sql.execute("UPDATE users SET locale = 'it' WHERE id % 2 = 0")
    matcher = match_restored_rows(crowded.fingerprints)
    asks: list[Callable[[], object]] = [
        lambda: crowded.store.erase(
            tombstones, matcher, move=crowded.move(), first_number=1_000, exclusive=True
        ),
        lambda: crowded.store.check([tombstones], matcher, exclusive=True),
        lambda: crowded.port.advance_sequences({"sequence:public.users_id_seq": 10_000}),
    ]
    for ask in asks:
        wait_until(lambda: _vacuums(crowded), what="autovacuum to be at work")
        ask()


@pytest.mark.parametrize("mode", ["SHARE UPDATE EXCLUSIVE", "ROW EXCLUSIVE"])
def test_who_does_not_let_go_of_a_table_is_told_with_the_lock_and_since_when(
    crowded: Site, mode: str
) -> None:
    """As somebody's own VACUUM, an index that is built concurrently, or a writer."""
    matcher = match_restored_rows(crowded.fingerprints)
    person = somebody()
    crowded.enter(person)
    tombstones = crowded.tombstones_of(person)
    with psycopg.connect(crowded.url) as other:
        other.execute(f"LOCK TABLE users IN {mode} MODE")
        lock = f"{mode.title().replace(' ', '')}Lock"
        held = rf"session \d+ holds {lock} on public\.users since 20\S+Z; it is tried"
        with pytest.raises(StoreUnreachable, match=held):
            crowded.store.check([[]], matcher, exclusive=True)
        with pytest.raises(StoreUnreachable, match=held):
            crowded.store.erase(tombstones, matcher, move=crowded.move(), first_number=1, exclusive=True)
    assert not crowded.store.check([[]], matcher, exclusive=True).uncleared


def test_the_unique_index_keeps_an_address_through_vacuum_until_it_is_made_anew(
    crowded: Site, server: PostgresServer
) -> None:
    """As docs/operations.md says: of one erased row in three thousand, VACUUM leaves the indexes alone."""
    person = somebody()
    crowded.enter(person)
    crowded.erase(crowded.tombstones_of(person))

    def holds(relation: str) -> bool:
        crowded.sql.execute("CHECKPOINT")
        row = crowded.sql.execute("SELECT pg_relation_filepath(%s)", (relation,)).fetchone()
        assert row is not None
        content = (server.data_directory / str(row[0])).read_bytes()
        return person.email.encode() in content

    crowded.sql.execute("VACUUM users")
    assert not holds("users"), "the table's own pages are clean"
    assert holds("users_email_key")
    crowded.sql.execute("REINDEX TABLE CONCURRENTLY users")
    assert not holds("users_email_key")
    assert not holds("users_lower_idx")


def _vacuums(site: Site) -> bool:
    row = site.sql.execute(
        "SELECT EXISTS (SELECT FROM pg_stat_progress_vacuum WHERE relid = 'users'::regclass)"
    ).fetchone()
    return bool(row and row[0])
