"""A role that may not connect, where a pooler holds its sessions: who is out, what stays, who comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import psycopg
import pytest

from devtools.company import eventually
from devtools.node import packages
from devtools.servers import PgBouncer, PostgresServer
from devtools.servers.pgbouncer import PACKAGES
from lethe.ports.stores import RoleRefused
from tests.adapters.stores.sql.conftest import SCHEMA, store_of

APP, OTHER, ME = "app", "other", "lethe"
PASSWORDS = dict.fromkeys((OTHER, APP, ME), "secret")
SOON = {"server_login_retry": "1", "query_wait_timeout": "3"}
"""PgBouncer's own are 15 and 120 s."""


@pytest.fixture(scope="module")
def server(built_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server with an application's role, another one's, and Lethe's."""
    try:
        packages.install(PACKAGES)
    except SystemExit as missing:
        pytest.skip(str(missing))
    with PostgresServer(tmp_path_factory.mktemp("pooled"), fsync=False) as running:
        running.create_database("site")
        running.psql(SCHEMA, database="site")
        for role in PASSWORDS:
            running.psql(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
            running.psql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}", database="site")
        running.psql(f"ALTER ROLE {ME} CREATEROLE")
        running.psql(f"GRANT {APP} TO {ME} WITH ADMIN TRUE, INHERIT TRUE, SET FALSE")
        yield running


@pytest.fixture(params=["transaction", "session"])
def pooler(request: pytest.FixtureRequest, server: PostgresServer, tmp_path: Path) -> Iterator[PgBouncer]:
    """A pooler that logs in as who comes to it."""
    mode: Literal["transaction", "session"] = request.param
    with PgBouncer(
        tmp_path / "pgbouncer", server, mode=mode, passwords=PASSWORDS, sessions=3, settings=SOON
    ) as running:
        yield running


def connect(pooler: PgBouncer, role: str) -> psycopg.Connection:
    return psycopg.connect(pooler.url("site", role), autocommit=True, prepare_threshold=None)


def ask(client: psycopg.Connection) -> int:
    return len(client.execute("SELECT email FROM users").fetchall())


def sessions_of(server: PostgresServer, role: str) -> int:
    """Return how many a role has in the database, be they a pooler's."""
    asked = f"SELECT count(*) FROM pg_stat_activity WHERE datname = 'site' AND usename = '{role}'"
    return int(server.psql(asked))


def is_served(pooler: PgBouncer) -> bool:
    """Tell whether a new client of the application's gets an answer."""
    try:
        with closing(connect(pooler, APP)) as client:
            ask(client)
    except psycopg.OperationalError:
        return False
    return True


def test_a_pooler_answers_nobody_of_a_closed_role_and_serves_the_others(
    server: PostgresServer, pooler: PgBouncer
) -> None:
    """Lethe comes through it, too. Who has a connection to the pooler keeps it, and is told nothing."""
    idle, busy, fresh, other = (connect(pooler, role) for role in (APP, APP, APP, OTHER))
    busy.autocommit = False
    for client in (idle, busy, other):
        ask(client)
    assert sessions_of(server, APP) >= 1
    store = store_of(pooler.url("site", ME))
    assert store.set_roles([APP], closed=True) >= 1
    assert sessions_of(server, APP) == 0
    for client in (idle, busy, fresh):
        with pytest.raises(psycopg.OperationalError):
            ask(client)
    assert not is_served(pooler)
    assert ask(other) == 0
    assert store.set_roles([APP], closed=True) == 0
    store.set_roles([APP], closed=False)
    eventually(lambda: is_served(pooler), "the pooler to try again", 30)
    store.close()
    # Whoever waits for Lethe to let go of a database, to drop it, waits for the pooler as well.
    assert sessions_of(server, ME) == 1


def test_behind_a_pooler_only_the_role_that_it_logs_in_as_counts(
    server: PostgresServer, tmp_path: Path
) -> None:
    """This one logs in as the superuser, whatever name its clients bring."""
    direct = server.url("site", user=ME, password="secret")
    with PgBouncer(tmp_path / "pgbouncer", server, mode="transaction") as pooler:
        client = connect(pooler, APP)
        with closing(store_of(direct)) as store:
            assert store.set_roles([APP], closed=True) == 0
            assert ask(client) == 0
            store.set_roles([APP], closed=False)
        with closing(store_of(pooler.url("site"))) as store, pytest.raises(RoleRefused, match="superuser"):
            store.set_roles(["postgres"], closed=False)
