"""A role that may not connect, on a replica that the application reads from: it hears of everything late."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from devtools.servers.children import wait_until
from devtools.servers.postgres import PostgresServer
from tests.adapters.stores.sql.conftest import SCHEMA, store_of

APP, ME, ADA = "app", "lethe", "ada@canary.example"
GATE_DOCS = Path(__file__).resolve().parents[4] / "docs" / "gate.md"


class Pair:
    """A server with Ada's dump, in which she was erased since, and a replica that follows it."""

    def __init__(self, folder: Path, primary: PostgresServer) -> None:
        self.primary = primary
        primary.create_database("site")
        primary.psql(SCHEMA, database="site")
        for role in (APP, ME):
            primary.psql(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
        primary.psql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {APP}", database="site")
        primary.psql(f"ALTER ROLE {ME} CREATEROLE")
        primary.psql(f"GRANT {APP} TO {ME} WITH ADMIN TRUE, INHERIT TRUE, SET FALSE")
        self._write(f"INSERT INTO users (email) VALUES ('{ADA}')")
        self._dump = primary.dump("site", folder / "site.dump")
        self.erase()
        self.replica = PostgresServer(folder / "replica", fsync=False)
        self.replica.password = primary.password
        self.replica.directory.mkdir()
        primary.basebackup(folder / "copy").rename(self.replica.data_directory)
        source = f"host=127.0.0.1 port={primary.port} user=postgres password={primary.password}"
        self.replica.set_in_files({"port": str(self.replica.port), "primary_conninfo": source})
        (self.replica.data_directory / "standby.signal").touch()
        self.replica.give_to_server(self.replica.data_directory)

    def _write(self, script: str) -> None:
        self.primary.psql(script, database="site")

    def erase(self) -> None:
        self._write("DELETE FROM users")

    def restore(self) -> None:
        self.primary.restore("site", self._dump, "--clean", "--if-exists")

    def set_roles(self, *, closed: bool) -> None:
        with closing(store_of(self.primary.url("site", user=ME, password="secret"))) as store:
            store.set_roles([APP], closed=closed)

    def moment(self) -> str:
        """Return where the log is now."""
        return self.primary.psql("SELECT pg_switch_wal(); SELECT pg_current_wal_lsn()").splitlines()[-1]

    def connect(self) -> psycopg.Connection:
        """Connect to the replica as the application does."""
        return psycopg.connect(self.replica.url("site", user=APP, password="secret"), autocommit=True)

    def is_in(self) -> bool:
        """Tell whether the application can connect to the replica."""
        try:
            self.connect().close()
        except psycopg.OperationalError as refused:
            if "is not permitted to log in" not in str(refused):
                raise
            return False
        return True

    def wait(self, moment: str) -> None:
        """Wait until the replica has heard of all that was before a moment."""
        asked = f"SELECT pg_last_wal_replay_lsn() >= '{moment}'"
        wait_until(lambda: self.replica.psql(asked) == "t", what="the replica to follow")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """A primary and its replica."""
    with PostgresServer(tmp_path / "primary", fsync=False) as primary:
        pair = Pair(tmp_path, primary)
        with pair.replica:
            yield pair


def told(connection: psycopg.Connection) -> bool:
    """Tell whether somebody is told of Ada; a restore puts other tables in place of those that were asked."""
    return bool(connection.execute("SELECT 1 FROM public.users WHERE email = %s", (ADA,)).fetchone())


def test_however_late_a_replica_is_a_role_comes_in_there_only_where_nobody_is_left(pair: Pair) -> None:
    """Told ahead. The log has an order: the role goes before she comes back, and comes after she is gone."""
    steps: list[tuple[str, Callable[[], None]]] = [
        ("before", lambda: None),
        ("closed", lambda: pair.set_roles(closed=True)),
        ("restored", pair.restore),
        ("erased again", pair.erase),
        ("opened", lambda: pair.set_roles(closed=False)),
    ]
    pair.replica.stop()
    moments = []
    for name, step in steps:
        step()
        moments.append((name, pair.moment()))
    seen = {}
    for name, moment in moments:
        pair.replica.set_in_files({"recovery_target_lsn": moment, "recovery_target_action": "pause"})
        pair.replica.start()
        pair.wait(moment)
        there = pair.replica.psql(f"SELECT count(*) FROM users WHERE email = '{ADA}'", database="site")
        seen[name] = (pair.is_in(), there == "1")
        pair.replica.stop()
    assert seen == {
        "before": (True, False),
        "closed": (False, False),
        "restored": (False, True),
        "erased again": (False, False),
        "opened": (True, False),
    }


def test_a_session_on_a_replica_goes_on_until_somebody_ends_it_there(pair: Pair) -> None:
    """Nothing in the log ends it, and on a server that can't be written to nobody can be kept out."""
    session = pair.connect()
    assert not told(session)
    pair.set_roles(closed=True)
    pair.wait(pair.moment())
    assert not pair.is_in()
    pair.restore()
    pair.wait(pair.moment())
    assert told(session)
    (statement,) = (line for line in GATE_DOCS.read_text().splitlines() if "psql -h REPLICA" in line)
    pair.replica.psql(statement.partition('"')[2].rpartition('"')[0].replace("shop", APP))
    with pytest.raises(psycopg.OperationalError):
        told(session)
    assert not pair.is_in()
