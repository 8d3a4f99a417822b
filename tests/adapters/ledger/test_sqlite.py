"""The ledger in a file."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import SqlLedger, open_ledger
from lethe.domain.facts import Completed, Outcome, TombstonesExpired
from lethe.domain.legal_facts import AddressKept
from lethe.ports.keys import Keyring
from lethe.ports.ledger import Ledger, LedgerUnavailable
from tests.contracts.ledger_backups_contract import DECEMBER, done, purge
from tests.contracts.ledger_contract import OPERATOR, LedgerContract
from tests.contracts.ledger_facts import NOW, Clock, accepted
from tests.contracts.ledger_legal_contract import decided, letter, registered


@dataclass(frozen=True)
class Unheard:
    """A fact of a kind that was forgotten in the projections."""

    request: str


class TestSqliteLedger(LedgerContract):
    tables_query = "SELECT name FROM sqlite_master WHERE type = 'table'"

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'ledger.db'}"

    def test_a_file_is_on_no_server(self, ledger: Ledger) -> None:
        assert ledger.server is None

    def test_only_the_owner_reads_the_files(self, ledger: Ledger, tmp_path: Path) -> None:
        ledger.append([accepted("a")])
        files = list(tmp_path.glob("ledger.db*"))
        assert len(files) == 3
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}

    def test_a_commit_is_on_the_disk_and_what_is_deleted_is_overwritten(self, ledger: SqlLedger) -> None:
        with ledger._engine.connect() as connection:
            settings = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "secure_delete", "foreign_keys")
            ]
        assert settings == ["wal", 2, 1, 1]

    def test_when_a_request_ends_no_ciphertext_of_what_was_sealed_stays_in_the_files(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        plain = b"ada@example.org " * 1000  # more than a page
        ledger.append([accepted("a"), accepted("b")], seal={"a": plain, "b": b"bob"})
        with sqlite3.connect(tmp_path / "ledger.db") as behind:
            query = "SELECT wrapped_key, ciphertext FROM sealed WHERE request = 'a'"
            wrapped, ciphertext = behind.execute(query).fetchone()
        behind.close()
        secrets = [wrapped, *(ciphertext[at : at + 64] for at in range(0, len(ciphertext), 64)), b"ada@"]
        in_files = _bytes_of(tmp_path)
        assert sum(secret in in_files for secret in secrets) > len(secrets) / 2  # so it can be found at all
        ledger.append([Completed("a", NOW, Outcome.ERASED)])
        in_files = _bytes_of(tmp_path)
        assert not [secret for secret in secrets if secret in in_files]
        assert ledger.sealed(["b"]) == {"b": b"bob"}

    def test_what_a_reader_kept_in_the_wal_is_wiped_after_the_reader_has_gone(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        ledger.append([accepted("a"), accepted("b")], seal={"a": b"ada@example.org"})
        behind = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        (wrapped,) = behind.execute("SELECT wrapped_key FROM sealed").fetchone()
        behind.execute("BEGIN")
        behind.execute("SELECT count(*) FROM entries").fetchone()
        ledger.append([Completed("a", NOW, Outcome.ERASED)])  # is not held up by the reader
        assert wrapped in _bytes_of(tmp_path)
        behind.close()
        ledger.append([accepted("c")])
        assert wrapped not in _bytes_of(tmp_path)

    def test_when_the_user_is_told_nothing_of_the_address_stays_in_the_files(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        plain = b"ada@example.org " * 1000  # more than a page
        ledger.append([registered("a"), registered("b")], seal={"a": plain, "b": b"bob"})
        first = _sealed_for_a(tmp_path)
        in_files = _bytes_of(tmp_path)
        assert sum(secret in in_files for secret in first) > len(first) / 2  # so it can be found at all
        ledger.append([AddressKept("a", NOW)], seal={"a": plain})
        second = _sealed_for_a(tmp_path)
        in_files = _bytes_of(tmp_path)
        assert not [secret for secret in first if secret in in_files]
        assert sum(secret in in_files for secret in second) > len(second) / 2
        ledger.append([decided("a"), *letter("a")])
        in_files = _bytes_of(tmp_path)
        assert not [secret for secret in (*first, *second, b"ada@") if secret in in_files]
        assert ledger.sealed(["a", "b"]) == {"b": b"bob"}

    def test_when_tombstones_end_neither_key_nor_ciphertext_stays_in_the_files(
        self, ledger: Ledger, tmp_path: Path, clock: Clock
    ) -> None:
        ledger.append([*done("a", *range(1, 40)), *done("b", 99)])
        with sqlite3.connect(tmp_path / "ledger.db") as behind:
            secrets = [key for (key,) in behind.execute("SELECT wrapped_key FROM period_keys")]
            for query in ("SELECT payload FROM entries", "SELECT doc FROM requests"):
                for (text,) in behind.execute(query):
                    secrets += [text[at : at + 64] for at in range(0, len(text) - 32, 64)]
        behind.close()
        assert sum(secret in _bytes_of(tmp_path) for secret in secrets) > len(secrets) / 2
        clock.now = DECEMBER
        purge(ledger, "a", "b")
        ledger.append([TombstonesExpired(DECEMBER, "2026-11", ("a", "b"))])
        in_files = _bytes_of(tmp_path)
        assert not [secret for secret in secrets if secret in in_files]
        assert ledger.verify() == ledger.position()

    def test_a_fact_of_a_kind_that_nothing_follows_from_is_not_recorded(self, ledger: Ledger) -> None:
        """Recorded and never projected, it would be true in the chain and nowhere else."""
        before = ledger.position()
        with pytest.raises(AssertionError):
            ledger.append([Unheard("a")])  # type: ignore[list-item]
        assert ledger.position() == before
        ledger.append([accepted("a")])
        assert ledger.position().sequence == before.sequence + 1

    def test_a_closed_ledger_is_one_file(self, ledger: Ledger, tmp_path: Path) -> None:
        ledger.append([accepted("a")])
        ledger.close()
        assert [path.name for path in tmp_path.glob("ledger.db*")] == ["ledger.db"]

    def test_a_copy_of_the_file_is_the_same_ledger(
        self, ledger: Ledger, tmp_path: Path, keyring: Keyring
    ) -> None:
        ledger.append([accepted("a")])
        ledger.close()
        shutil.copy(tmp_path / "ledger.db", tmp_path / "copy.db")
        copy = open_ledger(f"sqlite:///{tmp_path / 'copy.db'}", keyring)
        assert (copy.ledger_id, copy.verify().sequence) == (ledger.ledger_id, 2)
        copy.close()

    def test_a_file_without_room_is_said(
        self, ledger: SqlLedger, opened: Callable[[], Ledger], tmp_path: Path
    ) -> None:
        with ledger._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 1")
        before = ledger.position()
        with pytest.raises(LedgerUnavailable, match=r"make room.*SQLITE_FULL"):
            ledger.append([accepted(f"r{number}") for number in range(1_000)])
        assert opened().verify() == before


def _sealed_for_a(folder: Path) -> list[bytes]:
    """Return the wrapped key and the pieces of the ciphertext of what is sealed for a legal request."""
    behind = sqlite3.connect(folder / "ledger.db")
    query = "SELECT wrapped_key, ciphertext FROM sealed_legal WHERE legal = 'a'"
    wrapped, ciphertext = behind.execute(query).fetchone()
    behind.close()
    return [wrapped, *(ciphertext[at : at + 64] for at in range(0, len(ciphertext), 64))]


def _bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob("ledger.db*")))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("not a url", "LETHE_LEDGER_URL is not a URL; write sqlite:////"),
        ("mysql://user:s3cret@host/db", "LETHE_LEDGER_URL is for a database that Lethe doesn't know; write"),
        ("sqlite://", "LETHE_LEDGER_URL names no file; write sqlite:////"),
        ("sqlite:///:memory:", "LETHE_LEDGER_URL names no file; write sqlite:////"),
        ("sqlite:////nowhere/ledger.db", "LETHE_LEDGER_URL names /nowhere/ledger.db, .* mount a volume"),
        ("postgresql://user:s3cret@127.0.0.1:1/db", r"LETHE_LEDGER_URL: 127.0.0.1:1/db is away .*; see that"),
    ],
)
def test_a_url_that_leads_nowhere_is_said_without_its_password(url: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match=says) as refused:
        open_ledger(url, FileKeyring(tmp_path))
    assert "s3cret" not in str(refused.value)


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("These are somebody's notes, and no ledger. " * 100)
    (tmp_path / "keys").mkdir()
    with pytest.raises(LedgerUnavailable, match=r"names .*notes.txt, which is not a ledger; name another"):
        open_ledger(f"sqlite:///{file}", FileKeyring(tmp_path / "keys"))
    assert file.read_text() == "These are somebody's notes, and no ledger. " * 100


def test_a_start_without_migration_does_not_load_alembic(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from lethe.adapters.keys.files import FileKeyring\n"
        "from lethe.adapters.ledger.ledger import open_ledger\n"
        f"open_ledger('sqlite:///{tmp_path / 'ledger.db'}', FileKeyring('{tmp_path}')).close()\n"
        "print('alembic' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(OPERATOR)}
    loaded = [
        subprocess.run(
            [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()
        for _ in range(2)
    ]
    assert loaded == ["True", "False"]
