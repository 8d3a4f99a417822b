"""Models and migrations say the same."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select

import lethe.adapters.ledger
from devtools.servers import PostgresServer
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.docs import number_of
from lethe.adapters.ledger.ledger import SqlLedger, open_ledger
from lethe.adapters.ledger.schema import VERSIONS, clearings, metadata, request_months, requests
from lethe.domain.facts import Completed, Confirmed, CopiesGone, NotFound, Outcome, Reerased
from lethe.domain.journal import Head, KnownHead
from lethe.ports.ledger import Fenced, KeysDoNotMatch, MoveSettled
from tests.contracts.ledger_backups_contract import DECEMBER, HOUR, done, purge
from tests.contracts.ledger_facts import NOW, Clock, accepted
from tests.contracts.ledger_legal_contract import registered


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    postgres: PostgresServer = request.getfixturevalue("postgres")
    postgres.drop_database("migrated")
    return postgres.create_database("migrated")


def test_the_migrations_make_what_the_models_say(url: str, tmp_path: Path) -> None:
    ledger = open_ledger(url, FileKeyring(tmp_path))
    with ledger._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    ledger.close()


def test_the_code_knows_every_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(lethe.adapters.ledger.__path__[0]) / "migrations"))
    script = ScriptDirectory.from_config(config)
    assert [one.revision for one in script.walk_revisions()][::-1] == list(VERSIONS)


def test_openers_at_once_make_one_ledger(url: str, tmp_path: Path) -> None:
    keyring = FileKeyring(tmp_path)
    found: list[str] = []

    def open_it() -> None:
        ledger = open_ledger(url, keyring)
        found.append(ledger.ledger_id)
        ledger.close()

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


_AS_IT_WAS_IN_0002 = """
    DROP TABLE sealed_legal; DROP TABLE legal_requests;
    UPDATE alembic_version SET version_num = '0002'
"""

_AS_IT_WAS_IN_0001 = f"""
    {_AS_IT_WAS_IN_0002};
    DROP TABLE clearings; DROP TABLE snapshots; DROP TABLE sources; DROP TABLE request_months;
    DROP INDEX entries_period;
    ALTER TABLE requests DROP COLUMN completed_at;
    ALTER TABLE requests DROP COLUMN outcome;
    ALTER TABLE requests DROP COLUMN purged_at;
    ALTER TABLE store_heads DROP COLUMN head_at;
    ALTER TABLE store_heads DROP COLUMN settled_at;
    UPDATE alembic_version SET version_num = '0001'
"""


def test_a_ledger_of_the_first_schema_goes_on_with_all_that_it_knew(url: str, tmp_path: Path) -> None:
    keyring, clock = FileKeyring(tmp_path), Clock()
    old = open_ledger(url, keyring, now=clock)
    old.take_over()
    facts = done("a", 1, stores=("site", "crm"))
    old.append([*facts[:3], NotFound("a", "crm", NOW, "canary"), *facts[3:], *done("b", 2, at=NOW + HOUR)])
    old.append([accepted("nowhere"), Completed("nowhere", NOW, Outcome.ERASED)])
    old.append([accepted("planned"), Completed("planned", NOW, Outcome.PLANNED), accepted("open")])
    old.append(moves=[MoveSettled("site", Head(1, "a" * 64))])
    clock.now = DECEMBER
    old.append([Confirmed("open", ()), Reerased("site", None, NOW + 2 * HOUR, 9, (1,))])
    expected, position = _filled(old), old.position()
    with old._engine.begin() as connection:
        for statement in _AS_IT_WAS_IN_0001.split(";"):
            connection.exec_driver_sql(statement)
    old.close()

    ledger = open_ledger(url, keyring, now=clock)
    assert _filled(ledger) == expected
    assert expected["clearings"] == [
        ("a", "crm", number_of(NOW), None, False),
        ("a", "site", number_of(NOW + 2 * HOUR), None, False),
        ("b", "site", number_of(NOW + HOUR), None, False),
        ("nowhere", "", number_of(NOW), None, True),
    ]
    assert ledger.verify() == ledger.position() == position
    assert ledger.known_head("site") == KnownHead(Head(1, "a" * 64))
    with ledger._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    ledger.take_over()
    ledger.append([CopiesGone(DECEMBER, ("nowhere",))])
    assert ledger.purgeable() == []
    ledger.close()


def test_a_ledger_that_knew_no_legal_requests_goes_on_with_all_that_it_knew(url: str, tmp_path: Path) -> None:
    keyring, clock = FileKeyring(tmp_path), Clock()
    old = open_ledger(url, keyring, now=clock)
    old.take_over()
    old.append([*done("a", 1), accepted("open")], seal={"open": b"ada"})
    clock.now = DECEMBER
    old.append([Reerased("site", None, NOW + 2 * HOUR, 9, (1,))])
    purge(old, "a", at=DECEMBER)
    expected, position = _filled(old), old.position()
    with old._engine.begin() as connection:
        for statement in _AS_IT_WAS_IN_0002.split(";"):
            connection.exec_driver_sql(statement)
    old.close()

    ledger = open_ledger(url, keyring, now=clock)
    assert _filled(ledger) == expected  # nothing is filled in once more: who was purged stays purged
    assert ledger.verify() == ledger.position() == position
    assert ledger.sealed(["open"]) == {"open": b"ada"}
    assert list(ledger.legal_requests()) == []
    with ledger._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    ledger.take_over()
    ledger.append([registered("order")], seal={"order": b"bob"})
    assert ledger.legal_requests(open_only=True)[0].registered == registered("order")
    assert ledger.sealed(["order", "open"]) == {"order": b"bob", "open": b"ada"}
    ledger.close()


def test_who_works_with_the_version_before_is_fenced_by_the_migration(url: str, tmp_path: Path) -> None:
    keyring = FileKeyring(tmp_path)
    old = open_ledger(url, keyring)
    old.take_over()
    open_ledger(url, keyring).close()
    old.confirm()  # of the same version: nothing has changed
    with old._engine.begin() as connection:
        for statement in _AS_IT_WAS_IN_0002.split(";"):
            connection.exec_driver_sql(statement)
    ledger = open_ledger(url, keyring)
    with pytest.raises(Fenced):
        old.append([accepted("a")])
    ledger.take_over()
    ledger.append([accepted("a")])
    assert ledger.verify() == ledger.position()
    ledger.close()
    old.close()


def test_a_migration_under_other_keys_leaves_the_ledger_as_it_was(url: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    ledger = open_ledger(url, FileKeyring(tmp_path))
    with ledger._engine.begin() as connection:
        for statement in _AS_IT_WAS_IN_0001.split(";"):
            connection.exec_driver_sql(statement)
    with pytest.raises(KeysDoNotMatch):
        open_ledger(url, FileKeyring(tmp_path / "other"))
    with ledger._engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one() == "0001"
        assert not inspect(connection).has_table("clearings")
    ledger.close()


def _filled(ledger: SqlLedger) -> dict[str, list[tuple[object, ...]]]:
    """Return what the migration has to fill in."""
    queries = {
        "clearings": select(clearings),
        "months": select(request_months),
        "ended": select(
            requests.c.request, requests.c.completed_at, requests.c.outcome, requests.c.purged_at
        ),
    }
    with ledger._engine.connect() as connection:
        return {
            name: sorted(tuple(row) for row in connection.execute(query)) for name, query in queries.items()
        }
