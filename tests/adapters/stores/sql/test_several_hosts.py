"""A URL with several hosts, one of which is a standby: the primary is written to, whichever it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from devtools.servers import PostgresServer
from tests.adapters.stores.sql.conftest import SCHEMA, store_of

pytestmark = pytest.mark.slow


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path / "primary", fsync=False) as running:
        running.create_database("site")
        with psycopg.connect(running.url("site")) as connection:
            connection.execute(SCHEMA)
        yield running


@pytest.fixture
def standby(primary: PostgresServer, tmp_path: Path) -> Iterator[PostgresServer]:
    """A copy of the primary that follows nobody, and is read only until it is promoted."""
    server = PostgresServer(tmp_path / "standby", fsync=False)
    backup = primary.basebackup(tmp_path / "backup")
    shutil.copytree(backup, server.data_directory)
    (server.data_directory / "standby.signal").touch()
    with (server.data_directory / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"port = {server.port}\nrestore_command = 'false'\n")
    server.give_to_server(server.directory)
    server.password = primary.password
    with server:
        yield server


@pytest.mark.parametrize("attributes", ["read-write", "primary"])
def test_the_primary_is_written_to_wherever_it_stands_in_the_url(
    primary: PostgresServer, standby: PostgresServer, attributes: str
) -> None:
    credentials, _, _ = primary.url().partition("@")
    hosts = f"127.0.0.1:{standby.port},127.0.0.1:{primary.port}"
    store = store_of(f"{credentials}@{hosts}/site?target_session_attrs={attributes}")
    assert store.prove().journal.value == "Kept"
    made = "SELECT to_regclass('lethe_journal_head') IS NOT NULL"
    assert (primary.psql(made, database="site"), standby.psql(made, database="site")) == ("t", "f")
    primary.stop()
    standby.psql("SELECT pg_promote()")
    assert store.prove().journal.value == "Kept"
    assert standby.psql(made, database="site") == "t"
    store.close()
