"""Roles that may not connect for a while: what is taken is given back, and nothing else is touched."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from devtools.servers.debian import postgres_programs
from devtools.servers.postgres import PostgresServer
from lethe.adapters.stores.sql import roles
from lethe.adapters.stores.sql.postgres import Cursor
from lethe.adapters.stores.sql.store import SqlStore
from lethe.ports.stores import RoleRefused, StoreUnreachable
from tests.adapters.stores.sql.conftest import MAPPING, SCHEMA, HmacKeyring

_numbers = count(1)


@pytest.fixture(scope="module", params=[pytest.param(15, marks=pytest.mark.slow), 16, 18])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PostgresServer]:
    """A server of one's own: roles are the server's, not a database's. 15 is Debian's, where it has it."""
    directory = tmp_path_factory.mktemp(f"roles-{request.param}")
    if request.param == 15:
        try:
            server = PostgresServer(directory, programs=postgres_programs(15), fsync=False)
        except SystemExit as missing:
            pytest.skip(str(missing))
    else:
        server = PostgresServer(directory, version=request.param, fsync=False)
    with server:
        yield server


class Town:
    """A database that an application uses as a role of its own, and Lethe as another one."""

    def __init__(self, server: PostgresServer) -> None:
        self.server, number = server, next(_numbers)
        self.database, self.app, self.me = f"town{number}", f"app{number}", f"lethe{number}"
        server.create_database(self.database)
        for role in (self.app, self.me):
            server.psql(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
        server.psql(SCHEMA, database=self.database)
        server.psql(f"ALTER ROLE {self.me} CREATEROLE")
        self.before_16 = int(server.psql("SHOW server_version_num")) < 160000
        options = "" if self.before_16 else "WITH ADMIN TRUE, INHERIT TRUE, SET FALSE"
        server.psql(f"GRANT {self.app} TO {self.me} {options}")

    def store(self, name: str = "shop/site", *, database: str | None = None) -> SqlStore:
        """Return the store as Lethe's user sees it."""
        url = self.server.url(database or self.database, user=self.me, password="secret")
        return SqlStore(url, MAPPING, ledger_id="ledger", store=name, keyring=HmacKeyring(), primary=True)

    def connect(self, role: str | None = None, *, database: str | None = None) -> psycopg.Connection:
        """Connect as the application does."""
        url = self.server.url(database or self.database, user=role or self.app, password="secret")
        return psycopg.connect(url, autocommit=True)

    def is_out(self, role: str | None = None) -> bool:
        """Tell whether the application can't connect, for want of the right to."""
        try:
            self.connect(role).close()
        except psycopg.OperationalError as refused:
            return "is not permitted to log in" in str(refused)
        return False

    def comment(self) -> str:
        """Return what a DBA reads at the role."""
        return self.server.psql(
            f"SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '{self.app}'"
        )


@pytest.fixture
def town(server: PostgresServer) -> Town:
    """A town of one's own."""
    return Town(server)


def test_a_closed_role_is_out_with_its_sessions_and_comes_back_as_it_was(town: Town) -> None:
    town.server.psql(f"COMMENT ON ROLE {town.app} IS 'of the shop\nask Bob'")
    store, session = town.store(), town.connect()
    assert store.set_roles([town.app], closed=False) == 0
    assert not town.is_out()

    assert store.set_roles([town.app], closed=True) == 1
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    assert town.is_out()
    assert "Lethe keeps this role from connecting: shop/site is not safe" in town.comment()
    assert store.set_roles([town.app], closed=True) == 0

    store.set_roles([town.app], closed=False)
    assert not town.is_out()
    assert town.comment() == "of the shop\nask Bob"


def test_what_an_administrator_has_closed_is_never_opened(town: Town) -> None:
    store = town.store()
    town.server.psql(f"ALTER ROLE {town.app} NOLOGIN")
    for closed in (False, True, False):
        store.set_roles([town.app], closed=closed)
        assert town.is_out()
        assert town.comment() == ""
    # Whoever opens by hand what Lethe keeps closed does so until the next look.
    town.server.psql(f"ALTER ROLE {town.app} LOGIN")
    store.set_roles([town.app], closed=True)
    town.server.psql(f"ALTER ROLE {town.app} LOGIN")
    store.set_roles([town.app], closed=True)
    assert town.is_out()
    # And whoever takes Lethe's word out of the comment has made it theirs.
    town.server.psql(f"COMMENT ON ROLE {town.app} IS 'closed for good'")
    store.set_roles([town.app], closed=False)
    assert town.is_out()


def test_a_role_that_two_stores_share_is_let_in_once_both_are_safe(town: Town) -> None:
    site, crm = town.store(), town.store("shop/crm", database="postgres")
    site.set_roles([town.app], closed=True)
    crm.set_roles([town.app], closed=True)
    site.set_roles([town.app], closed=False)
    assert town.is_out()
    crm.set_roles([town.app], closed=False)
    assert not town.is_out()
    assert town.comment() == ""


def test_two_stores_that_close_a_role_at_once_both_keep_it_out(town: Town) -> None:
    for _ in range(10):
        stores = [town.store(f"shop/{n}") for n in range(3)]
        threads = [
            threading.Thread(target=store.set_roles, args=([town.app],), kwargs={"closed": True})
            for store in stores
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert town.comment().count("Lethe keeps") == len(stores)
        for store in stores:
            assert town.is_out()
            store.set_roles([town.app], closed=False)
            store.close()
        assert not town.is_out()


def test_a_restore_that_brings_the_database_anew_lets_nobody_in(town: Town, tmp_path: Path) -> None:
    """`pg_restore --create`, or `createdb` before it: the database's own ACL lets everybody connect."""
    dump = town.server.dump(town.database, tmp_path / "town.dump")
    store = town.store()
    store.set_roles([town.app], closed=True)
    store.close()
    town.server.drop_database(town.database)
    town.server.restore("postgres", dump, "--create")
    assert (
        town.server.psql(f"SELECT has_database_privilege('{town.app}', '{town.database}', 'CONNECT')") == "t"
    )
    assert town.is_out()
    town.store().set_roles([town.app], closed=False)
    assert not town.is_out()


def test_other_roles_and_other_databases_sessions_stay(town: Town) -> None:
    town.server.psql(f"CREATE ROLE other_{town.app} LOGIN PASSWORD 'secret'")
    other, elsewhere = town.connect(f"other_{town.app}"), town.connect(database="postgres")
    town.store().set_roles([town.app], closed=True)
    for session in (other, elsewhere):
        session.execute("SELECT 1")
        session.close()


def test_who_is_let_in_at_the_last_moment_is_out_at_the_next_look(town: Town) -> None:
    store = town.store()
    store.set_roles([town.app], closed=True)
    town.server.psql(f"ALTER ROLE {town.app} LOGIN")
    late = town.connect()
    town.server.psql(f"ALTER ROLE {town.app} NOLOGIN")
    assert store.set_roles([town.app], closed=True) == 1
    with pytest.raises(psycopg.OperationalError):
        late.execute("SELECT 1")


def test_superusers_and_lethes_own_role_are_never_touched(town: Town) -> None:
    superuser = urlsplit(town.server.url()).username or ""
    for role, words in ((superuser, "is a superuser"), (town.me, "Lethe itself connects as")):
        with pytest.raises(RoleRefused, match=words):
            town.store().set_roles([town.app, role], closed=False)
        assert not town.is_out()
        with pytest.raises(RoleRefused):
            town.store().set_roles([role, town.app], closed=True)
        assert town.is_out(), "one that can't be closed keeps no other open"
        town.store().set_roles([town.app], closed=False)


def test_a_role_that_is_missing_is_named_with_the_field(town: Town) -> None:
    with pytest.raises(RoleRefused, match=r"no role nobody; create it, or correct spec\.gate\.role\.names"):
        town.store().set_roles(["nobody"], closed=False)


@pytest.mark.parametrize("lost", ["CREATEROLE", "ADMIN", "INHERIT"])
def test_a_right_that_is_missing_is_said_as_the_statement_that_gives_it(town: Town, lost: str) -> None:
    before_16 = {"ADMIN": f"REVOKE {town.app} FROM {town.me}", "INHERIT": f"ALTER ROLE {town.me} NOINHERIT"}
    if lost == "CREATEROLE":
        town.server.psql(f"ALTER ROLE {town.me} NOCREATEROLE")
    elif town.before_16:
        town.server.psql(before_16[lost])
    else:
        town.server.psql(f"REVOKE {lost} OPTION FOR {town.app} FROM {town.me}")
    store = town.store()
    with pytest.raises(RoleRefused) as refused:  # told while all is well, too
        store.set_roles([town.app], closed=False)
    with pytest.raises(RoleRefused):
        store.set_roles([town.app], closed=True)
    assert not town.is_out()
    [_, statements] = refused.value.remedy.split(": ")
    town.server.psql(statements)
    store.set_roles([town.app], closed=True)
    assert town.is_out()


def test_the_right_to_end_anybodys_sessions_does_instead_of_inheriting(town: Town) -> None:
    member = "" if town.before_16 else "INHERIT OPTION FOR"
    town.server.psql(f"REVOKE {member} {town.app} FROM {town.me}")
    town.server.psql(f"GRANT pg_signal_backend TO {town.me}")
    session = town.connect()
    assert town.store().set_roles([town.app], closed=True) == 1
    assert session.closed or town.is_out()


@pytest.mark.parametrize("attribute", ["REPLICATION", "BYPASSRLS", "CREATEROLE"])
def test_a_role_that_only_a_superuser_may_alter_is_said_while_all_is_well(town: Town, attribute: str) -> None:
    """Before PostgreSQL 16 that is one with REPLICATION, whatever of it is altered."""
    town.server.psql(f"ALTER ROLE {town.app} {attribute}")
    store = town.store()
    if attribute == "REPLICATION" and town.before_16:
        with pytest.raises(RoleRefused, match="only a superuser"):
            store.set_roles([town.app], closed=False)
        with pytest.raises(RoleRefused, match=f"ALTER ROLE {town.app} NOREPLICATION"):
            store.set_roles([town.app], closed=True)
        assert not town.is_out()
        assert town.comment() == ""
        return
    for closed in (True, False):
        store.set_roles([town.app], closed=closed)
        assert town.is_out() == closed


def test_a_session_that_follows_the_log_of_the_database_is_ended_too(town: Town) -> None:
    """Who decodes changes sees each row that a restore writes, and may ask by SQL besides."""
    if town.before_16:
        pytest.skip("such a role can't be closed there")
    town.server.psql(f"ALTER ROLE {town.app} REPLICATION")
    url = town.server.url(town.database, user=town.app, password="secret")
    follower = psycopg.connect(url, autocommit=True, replication="database")
    assert follower.execute("SELECT 1").fetchone() == (1,)
    assert town.store().set_roles([town.app], closed=True) == 1
    with pytest.raises(psycopg.OperationalError):
        follower.execute("SELECT 1")


def test_a_crash_between_taking_and_remembering_leaves_neither(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are one transaction: whoever is killed before it ends has taken nothing."""

    def killed(*_: object) -> None:
        town.server.psql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = " + f"'{town.me}'"
        )

    comment = roles._comment

    def cut_off(cursor: Cursor, role: str, lines: Sequence[str]) -> None:
        comment(cursor, role, lines)
        killed()

    for moment in (killed, cut_off):
        with monkeypatch.context() as patched:
            patched.setattr(roles, "_comment", moment)
            with pytest.raises(StoreUnreachable):
                town.store().set_roles([town.app], closed=True)
        assert not town.is_out()
        assert town.comment() == ""
    store = town.store()
    store.set_roles([town.app], closed=True)
    assert town.is_out()
    town.store().set_roles([town.app], closed=False)  # by another process, which remembers nothing
    assert not town.is_out()
