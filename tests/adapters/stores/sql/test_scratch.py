"""Scratch databases on real PostgreSQL: nothing outlives the drop, whatever was going on."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import psycopg
import pytest

from devtools.servers import PostgresServer
from lethe.adapters.stores.sql.scratch import SqlScratchServer
from lethe.ports.stores import StoreUnreachable

OWN = "lethe_drill_0123456789"


@pytest.mark.parametrize(
    "name", ["postgres", "site", "lethe_drill_", "lethe_drill_x; DROP", "LETHE_DRILL_AB"]
)
def test_no_database_but_one_of_lethe_s_own_is_made_or_dropped(postgres: PostgresServer, name: str) -> None:
    scratch = SqlScratchServer(postgres.url())
    for touch in (
        lambda: scratch.create(name, "mark"),
        lambda: scratch.drop(name),
        lambda: scratch.url_of(name),
    ):
        with pytest.raises(ValueError, match="no scratch database"):
            touch()


def test_a_database_that_is_still_being_made_is_not_left_behind(postgres: PostgresServer) -> None:
    """As where the process was killed meanwhile: the server goes on for whoever is gone."""
    template = "large_template"
    postgres.create_database(template)
    postgres.psql(
        "CREATE TABLE t AS SELECT repeat('x', 900) FROM generate_series(1, 200000)", database=template
    )
    before = postgres.psql("SHOW wal_level")
    assert before

    def make() -> None:
        with suppress(psycopg.Error), psycopg.connect(postgres.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{OWN}" TEMPLATE {template}')

    maker = threading.Thread(target=make)
    maker.start()
    while "1" not in postgres.psql(
        f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE%{OWN}%'"
        " AND pid <> pg_backend_pid() AND state = 'active'"
    ):
        if not maker.is_alive():
            break
        time.sleep(0.01)
    scratch = SqlScratchServer(postgres.url())
    scratch.drop(OWN)
    maker.join()
    time.sleep(0.1)
    assert postgres.psql(f"SELECT count(*) FROM pg_database WHERE datname = '{OWN}'") == "0"
    scratch.close()
    postgres.drop_database(template)


def test_a_role_that_may_make_no_database_is_told_what_it_lacks(postgres: PostgresServer) -> None:
    postgres.psql("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN PASSWORD 'secret'")
    scratch = SqlScratchServer(postgres.url(user="plain", password="secret"))
    with pytest.raises(StoreUnreachable, match="CREATEDB"):
        scratch.create(OWN, "mark")
    assert len(scratch.place().servers) >= 2
    scratch.close()
