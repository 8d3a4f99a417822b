"""The ledger in PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.servers import PostgresServer
from devtools.servers.children import outer_address
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger import waiting
from lethe.adapters.ledger.ledger import SqlLedger, open_ledger
from lethe.ports.keys import Keyring
from lethe.ports.ledger import Ledger, LedgerUnavailable
from tests.contracts.ledger_contract import LedgerContract
from tests.contracts.ledger_facts import accepted

_names = (f"ledger{number}" for number in itertools.count())


@pytest.mark.slow  # not each test, but all of them together
class TestPostgresqlLedger(LedgerContract):
    tables_query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"

    @pytest.fixture
    def url(self, postgres: PostgresServer) -> str:
        return postgres.create_database(next(_names))

    def test_the_server_is_known_by_its_system_identifier(
        self, ledger: Ledger, postgres: PostgresServer
    ) -> None:
        assert ledger.server == postgres.psql("SELECT system_identifier FROM pg_control_system()")

    def test_a_killed_server_loses_nothing_acknowledged_and_the_ledger_goes_on(
        self, ledger: SqlLedger, opened: Callable[[], Ledger], postgres: PostgresServer
    ) -> None:
        for number in range(20):
            ledger.append([accepted(f"r{number}")])
        position = ledger.position()
        postgres.kill9()
        with pytest.raises(LedgerUnavailable, match="LETHE_LEDGER_URL"):
            ledger.append([accepted("away")])
        postgres.start()
        assert ledger.verify() == position
        ledger.append([accepted("back")])
        assert ledger.verify().sequence == position.sequence + 1

    def test_a_frozen_server_is_given_up_and_a_slow_one_is_waited_for(
        self, tmp_path: Path, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(waiting, "ASK_AFTER_SECONDS", 0.3)
        monkeypatch.setattr(waiting, "ASK_SECONDS", 2.0)
        monkeypatch.setattr(waiting, "GIVE_UP_SECONDS", 1.0)
        with PostgresServer(tmp_path / "frozen", fsync=False) as server:
            ledger = open_ledger(f"{server.create_database('frozen')}?connect_timeout=2", keyring)
            ledger.take_over()
            with ledger._engine.connect() as connection:
                connection.exec_driver_sql("SELECT pg_sleep(3)")
            server.freeze()
            try:
                for _ in range(2):
                    with pytest.raises(LedgerUnavailable, match="is away or refuses"):
                        ledger.confirm()
                with pytest.raises(LedgerUnavailable, match="is away or refuses"):
                    ledger.append([accepted("a")])
            finally:
                server.thaw()
            ledger.confirm()
            ledger.append([accepted("a")])
            ledger.close()

    def test_a_commit_waits_for_the_disk_whatever_the_server_is_set_to(
        self, postgres: PostgresServer, url: str, keyring: FileKeyring
    ) -> None:
        postgres.psql(f"ALTER DATABASE {url.rsplit('/', 1)[1]} SET synchronous_commit = off")
        ledger = open_ledger(url, keyring)
        with ledger._engine.connect() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
        ledger.close()


def test_a_wrong_password_is_said_and_not_shown(postgres: PostgresServer, tmp_path: Path) -> None:
    with pytest.raises(
        LedgerUnavailable, match=r"LETHE_LEDGER_URL.*refuses this user or password"
    ) as refused:
        open_ledger(postgres.url(password="s3cret"), FileKeyring(tmp_path))
    assert "s3cret" not in str(refused.value)


def test_a_database_that_does_not_exist_is_said(postgres: PostgresServer, tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match=r"LETHE_LEDGER_URL.*/nothing does not exist"):
        open_ledger(postgres.url("nothing"), FileKeyring(tmp_path))


@pytest.mark.slow
def test_beyond_this_machine_the_ledger_goes_without_tls_only_where_the_url_says_so(tmp_path: Path) -> None:
    address = outer_address()
    if address is None:
        pytest.skip("nobody else reaches this machine")
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    with PostgresServer(tmp_path / "server", fsync=False, from_elsewhere=True) as server:
        url = server.create_database("ledger").replace("@127.0.0.1:", f"@{address}:")
        with pytest.raises(LedgerUnavailable, match=r"LETHE_LEDGER_URL: .*/ledger offers no TLS; enable it"):
            open_ledger(url, FileKeyring(keys))
        open_ledger(f"{url}?sslmode=disable", FileKeyring(keys)).close()
