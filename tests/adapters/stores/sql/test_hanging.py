"""Every call into a server that hangs ends, at any moment; a long statement of one that lives does not."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from devtools.servers import PostgresServer
from devtools.servers.certificates import write_certificates
from devtools.servers.children import wait_until
from devtools.servers.tarpit import Tarpit
from lethe.adapters import hosts
from lethe.adapters.stores.sql import sessions as clocks
from lethe.adapters.stores.sql.errors import ServerSilent
from lethe.adapters.stores.sql.postgres import compose, copy_in, fetch_in_chunks, name
from lethe.adapters.stores.sql.sessions import Session, Sessions
from lethe.adapters.stores.sql.store import SqlStore
from lethe.domain.tombstones import match_unchanged_rows
from lethe.ports.stores import StoreUnreachable, Wanted
from tests.adapters.stores.sql.conftest import SCHEMA, Site, store_of
from tests.adapters.stores.sql.encrypting_proxy import EncryptingProxy
from tests.contracts.store_contract import somebody

pytestmark = pytest.mark.slow  # not each test, but all of them together

BOUND = 7.0
"""Seconds after which everything has ended, with the clocks of these tests and on a busy machine."""
SAYS_SO = "does not answer"


@pytest.fixture(autouse=True)
def fast_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A twentieth of the time: the rules are the same."""
    monkeypatch.setattr(clocks, "ATTEMPT_SECONDS", 2.0)
    monkeypatch.setattr(clocks, "CONNECT_SECONDS", 3.5)
    monkeypatch.setattr(clocks, "QUICK_SECONDS", 0.5)
    monkeypatch.setattr(clocks, "ASK_AFTER_SECONDS", 0.4)
    monkeypatch.setattr(clocks, "ASK_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(clocks, "ASK_SECONDS", 2.0)
    monkeypatch.setattr(clocks, "GIVE_UP_SECONDS", 1.5)
    monkeypatch.setattr(clocks, "CLIENT_SECONDS", 0.5)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server of these tests' own: the other one may not be stopped."""
    with PostgresServer(tmp_path_factory.mktemp("frozen"), fsync=False) as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    """A database whose server goes on at the end, whatever a test has done to it."""
    yield server.create_database("site")
    server.thaw()
    server.drop_database("site")


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    with psycopg.connect(url) as connection:
        connection.execute(SCHEMA)
    store = store_of(url)
    store.prove()
    yield store
    store.close()


@pytest.fixture
def sessions(url: str) -> Iterator[Sessions]:
    opened = Sessions(url)
    yield opened
    opened.close()


def require_soon(ask: Callable[[], object], *, match: str = SAYS_SO) -> None:
    """Require that a question is told unreachable within the bound."""
    began = time.monotonic()
    with pytest.raises((StoreUnreachable, psycopg.OperationalError)) as told:
        ask()
    assert time.monotonic() - began < BOUND
    if isinstance(told.value, StoreUnreachable):
        assert match in told.value.problem


class TestFrozen:
    """All processes of the server are stopped: the kernel accepts connections, and nobody answers."""

    def test_each_question_ends_and_is_answered_again_when_the_server_goes_on(
        self, server: PostgresServer, store: SqlStore
    ) -> None:
        asked: list[Callable[[], object]] = [
            store.prove,
            lambda: store.find([Wanted("r", ())]),
            lambda: list(store.journaled_numbers()),
        ]
        server.freeze()
        for ask in asked:
            require_soon(ask)
        server.thaw()
        for ask in asked:
            ask()

    @pytest.mark.parametrize("idle", [True, False])
    def test_a_look_ends_with_and_without_a_connection_that_was_open_before(
        self, server: PostgresServer, store: SqlStore, url: str, *, idle: bool
    ) -> None:
        looked = store if idle else store_of(url)
        server.freeze()
        require_soon(looked.observe)
        server.thaw()
        assert looked.observe().identity.server
        looked.close()

    def test_an_erasure_ends_within_a_statement_and_nothing_is_half_done(
        self, server: PostgresServer, store: SqlStore, url: str
    ) -> None:
        with psycopg.connect(url, autocommit=True) as sql:
            site = Site(store, store._keyring, sql=sql, url=url)
            person = somebody()
            site.enter(person)
            tombstones, move, before = site.tombstones_of(person), site.move(), site.everything()
            sql.execute(
                "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql"
                " AS 'BEGIN PERFORM pg_sleep(60); RETURN NULL; END';"
                "CREATE TRIGGER slow AFTER UPDATE ON users FOR EACH STATEMENT EXECUTE FUNCTION slow()"
            )
            with ThreadPoolExecutor() as others:
                erased = others.submit(
                    store.erase, tombstones, match_unchanged_rows(site.fingerprints), move=move
                )
                wait_until(lambda: sleeps(sql), what="the erasure to reach its last statement")
                server.freeze()
                require_soon(erased.result)
            server.thaw()
            wait_until(lambda: not sleeps(sql), what="the server to notice that nobody waits any more")
            assert site.everything() == before
            sql.execute("DROP TRIGGER slow ON users")
            assert store.erase(tombstones, match_unchanged_rows(site.fingerprints), move=move).entries

    @pytest.mark.parametrize("moment", ["COMMIT", "ROLLBACK", "COPY", "FETCH", "SAVEPOINT"])
    def test_a_transaction_ends_at_any_moment(
        self, server: PostgresServer, sessions: Sessions, moment: str
    ) -> None:
        def run() -> None:
            with sessions.transaction() as cursor:
                cursor.execute("CREATE TEMP TABLE t (a text) ON COMMIT DROP")
                query = compose("SELECT pg_catalog.generate_series(1, 1000000)")
                for _ in fetch_in_chunks(cursor, query, size=200_000, called="rows"):
                    if moment == "FETCH":
                        server.freeze()
                server.freeze()
                match moment:
                    case "ROLLBACK":
                        raise LookupError
                    case "COPY":
                        copy_in(cursor, name("pg_temp", "t"), ["a"], (["x" * 1000] for _ in range(100_000)))
                    case "SAVEPOINT":
                        with cursor.connection.transaction():
                            cursor.execute("SELECT 1")

        began = time.monotonic()
        with pytest.raises((ServerSilent, LookupError)):
            run()
        assert time.monotonic() - began < BOUND
        assert sessions._idle == []

    def test_what_could_not_be_committed_is_told_to_who_overlooks_an_error(
        self, server: PostgresServer, sessions: Sessions
    ) -> None:
        def run() -> None:
            with sessions.transaction() as cursor:
                server.freeze()
                with suppress(ServerSilent):
                    cursor.execute("SELECT 1")

        with pytest.raises(ServerSilent):
            run()

    def test_closing_waits_for_nobody_and_ends_what_others_wait_for(
        self, server: PostgresServer, store: SqlStore
    ) -> None:
        with ThreadPoolExecutor() as others:
            waits = begin(others, store, "SELECT pg_catalog.pg_sleep(60)")
            store.observe()  # a second session, idle
            server.freeze()
            began = time.monotonic()
            store.close()
            assert time.monotonic() - began < 0.5
            require_soon(waits.result)
            assert time.monotonic() - began < 1.5
        require_soon(store.observe, match="closed")

    def test_closing_an_encrypted_session_waits_for_nobody_either(
        self, server: PostgresServer, url: str, certificates: Path
    ) -> None:
        with EncryptingProxy(certificates, server.port) as proxy:
            sessions = Sessions(
                url.replace(str(server.port), str(proxy.port))
                + f"?sslmode=verify-full&sslrootcert={certificates / 'ca.crt'}"
            )
            with sessions.alive() as session:
                assert session.pgconn.ssl_in_use
                proxy.passes.clear()
                require_soon(lambda: session.execute("SELECT 1"))
            proxy.passes.set()
            with sessions.alive():
                proxy.passes.clear()
            began = time.monotonic()
            sessions.close()
            assert time.monotonic() - began < 0.5

    def test_a_handshake_of_tls_that_hangs_ends(self, certificates: Path) -> None:
        with EncryptingProxy(certificates, None) as proxy:
            store = store_of(f"postgresql://u:p@127.0.0.1:{proxy.port}/db?sslmode=require")
            require_soon(store.observe)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with an authority and a server's certificate for this machine."""
    write_certificates(tmp_path)
    return tmp_path


def begin(others: ThreadPoolExecutor, store: SqlStore, statement: Any) -> Future[None]:
    """Let another thread run a statement in a transaction of the store; return when it has begun to."""
    begun = threading.Event()

    def run() -> None:
        with store._sessions.transaction() as cursor:
            begun.set()
            cursor.execute(statement)

    running = others.submit(run)
    assert begun.wait(30)
    time.sleep(0.2)
    return running


def sleeps(sql: psycopg.Connection[Any]) -> bool:
    """Whether a session of Lethe's is in a `pg_sleep`."""
    query = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'lethe' AND wait_event = 'PgSleep'"
    return sql.execute(query).fetchone() is not None


class TestAlive:
    """The server answers, only not here: then a statement may last, but not for ever."""

    def test_a_statement_that_lasts_is_waited_for(self, sessions: Sessions) -> None:
        with sessions.transaction() as cursor:
            assert cursor.execute("SELECT 7 FROM pg_catalog.pg_sleep(3)").fetchone() == (7,)

    def test_a_server_that_has_no_connection_left_has_answered(
        self, server: PostgresServer, url: str
    ) -> None:
        server.psql("CREATE ROLE single LOGIN PASSWORD 'pw' CONNECTION LIMIT 1")
        sessions = Sessions(server.url("site", user="single", password="pw"))
        with sessions.transaction() as cursor:
            assert cursor.execute("SELECT 7 FROM pg_catalog.pg_sleep(3)").fetchone() == (7,)
        sessions.close()
        server.psql("DROP ROLE single")

    def test_a_single_session_that_is_frozen_is_given_up_after_the_limit(self, sessions: Sessions) -> None:
        with sessions.connection() as session:
            backend = session.info.backend_pid
            os.kill(backend, signal.SIGSTOP)
            try:
                with session.within(1.5), pytest.raises(psycopg.OperationalError):
                    session.execute("SELECT 1")
            finally:
                os.kill(backend, signal.SIGCONT)
        with sessions.alive() as another:
            assert another.info.backend_pid != backend

    def test_another_server_that_answers_in_its_place_is_no_sign_of_life(self, sessions: Sessions) -> None:
        with sessions.connection() as session:
            session.server_started = 0
            require_soon(lambda: session.execute("SELECT pg_catalog.pg_sleep(60)"))

    def test_a_session_that_was_idle_and_is_dead_costs_no_answer(self, sessions: Sessions) -> None:
        with sessions.connection() as session:
            backend = session.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        try:
            with sessions.transaction() as cursor:
                assert cursor.execute("SELECT 7").fetchone() == (7,)
        finally:
            os.kill(backend, signal.SIGCONT)

    def test_at_most_two_idle_sessions_are_kept(self, sessions: Sessions) -> None:
        with sessions.alive(), sessions.alive(), sessions.alive():
            assert sessions._idle == []
        assert len(sessions._idle) == 2


class TestNobodyLetsIn:
    @pytest.mark.parametrize("accepts", [True, False])
    def test_a_port_that_swallows_everything_is_left_in_time(self, *, accepts: bool) -> None:
        with Tarpit(accepts=accepts) as tarpit:
            store = store_of(f"postgresql://u:p@127.0.0.1:{tarpit.port}/db")
            for ask in (store.observe, store.prove):
                require_soon(ask)
            store.close()

    def test_many_hosts_that_swallow_everything_are_left_in_time(self) -> None:
        with Tarpit() as tarpit:
            several = ",".join([f"127.0.0.1:{tarpit.port}"] * 16)
            require_soon(store_of(f"postgresql://u:p@{several}/db").observe)

    def test_closing_ends_the_attempts(self) -> None:
        with Tarpit() as tarpit, ThreadPoolExecutor() as others:
            store = store_of(f"postgresql://u:p@127.0.0.1:{tarpit.port},127.0.0.1:{tarpit.port}/db")
            waits = others.submit(store.prove)
            time.sleep(0.2)
            store.close()
            require_soon(waits.result, match="closed")


class TestSeveralHosts:
    def test_the_first_that_lets_lethe_in_is_used(self, server: PostgresServer, url: str) -> None:
        with Tarpit() as tarpit:
            credentials, _, place = url.partition("@")
            nobody = f"127.0.0.1:1,nowhere.invalid,127.0.0.1:{tarpit.port}"
            sessions = Sessions(f"{credentials}@{nobody},{place}?target_session_attrs=read-write")
            with sessions.alive() as session:
                assert session.address == f"127.0.0.1:{server.port}"
                assert session.info.dbname == "site"
            sessions.close()

    def test_a_database_that_may_not_be_written_is_not_the_primary(
        self, server: PostgresServer, url: str
    ) -> None:
        server.psql("ALTER DATABASE site SET default_transaction_read_only = on")
        store = store_of(f"{url}?target_session_attrs=read-write")
        with pytest.raises(StoreUnreachable, match="is not the primary"):
            store.observe()

    def test_what_a_server_said_is_told_rather_than_that_another_is_away(self, url: str) -> None:
        place = url.partition("@")[2]
        store = store_of(f"postgresql://postgres:wrong@{place.partition('/')[0]},127.0.0.1:1/site")
        with pytest.raises(StoreUnreachable, match="refuses the password"):
            store.observe()

    def test_the_name_of_a_host_is_not_taken_for_what_is_wrong(self) -> None:
        store = store_of("postgresql://password:database@localhost:1/role")
        with pytest.raises(StoreUnreachable, match="no server listens"):
            store.observe()


class TestFilesOfTheOperator:
    def test_a_root_certificate_that_is_no_file_is_not_read(self, tmp_path: Path, url: str) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "empty").touch()
        (tmp_path / "text").write_text("root:x:0")
        files = ("pipe", "empty", "text", "nothing", ".")
        for path in ("/dev/zero", *(tmp_path / file for file in files)):
            store = store_of(f"{url}?sslmode=verify-full&sslrootcert={path}")
            require_soon(store.observe, match="sslrootcert")


class TestNames:
    """The name service does not answer."""

    @pytest.fixture
    def answer(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
        answered, real = threading.Event(), socket.getaddrinfo

        def slow(host: Any, *args: Any, **options: Any) -> Any:
            if "slow" in str(host):
                answered.wait(30)
                return real("127.0.0.1", *args, **options)
            return real(host, *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", slow)
        yield answered
        answered.set()
        wait_until(lambda: not hosts._pending, what="the lookups to end")

    def test_a_store_whose_name_is_not_looked_up_is_left_in_time(self, answer: threading.Event) -> None:
        store = store_of("postgresql://u:p@slow.example/db")
        require_soon(store.observe, match="nobody answers which address")

    def test_all_who_look_for_a_name_share_one_thread(self, answer: threading.Event) -> None:
        before = threading.active_count()
        for _ in range(5):
            with pytest.raises(hosts.NameNotAnswered):
                hosts.ANYWHERE.addresses_of("slow.example", 1, seconds=0.01)
        assert threading.active_count() == before + 1
        answer.set()
        wait_until(lambda: not hosts._pending, what="the lookup to end")
        assert hosts.ANYWHERE.addresses_of("slow.example", 1, seconds=5) == ("127.0.0.1",)

    def test_the_number_of_lookups_is_bounded(self, answer: threading.Event) -> None:
        before = threading.active_count()
        for number in range(hosts.MOST_LOOKUPS + 20):
            with suppress(hosts.NameNotAnswered):
                hosts.ANYWHERE.addresses_of(f"slow{number}.example", 1, seconds=0)
        assert threading.active_count() <= before + hosts.MOST_LOOKUPS

    def test_a_name_that_nobody_knows_is_told_as_such(self) -> None:
        with pytest.raises(hosts.NameUnknown):
            hosts.ANYWHERE.addresses_of("nowhere.invalid", 5432, seconds=20)


def test_a_session_is_the_drivers_connection_in_all_else(url: str) -> None:
    assert issubclass(Session, psycopg.Connection)
    sessions = Sessions(url)
    with sessions.transaction(read_only=True) as cursor, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        cursor.execute("CREATE TABLE t ()")
    with sessions.transaction() as cursor:
        cursor.execute("CREATE TABLE t ()")
    with pytest.raises(psycopg.errors.DuplicateTable), sessions.transaction() as cursor:
        cursor.execute("CREATE TABLE t ()")
    sessions.close()
