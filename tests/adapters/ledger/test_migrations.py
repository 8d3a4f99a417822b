"""Models and migrations say the same."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, select

from devtools.servers import PostgresServer
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger import database
from lethe.adapters.ledger.ledger import SqlLedger, open_ledger
from lethe.adapters.ledger.schema import VERSIONS, metadata
from lethe.domain.facts import CopiesGone
from lethe.ports.ledger import Fenced, KeysDoNotMatch
from tests.contracts.ledger_backups_contract import done
from tests.contracts.ledger_facts import NOW, accepted


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    postgres: PostgresServer = request.getfixturevalue("postgres")
    postgres.drop_database("migrated")
    return postgres.create_database("migrated")


def test_the_migrations_make_exactly_the_schema_of_the_models(url: str, tmp_path: Path) -> None:
    ledger = open_ledger(url, FileKeyring(tmp_path))
    with ledger._engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        migrated = _schema(connection)
        metadata.drop_all(connection)
        metadata.create_all(connection)
        assert _schema(connection) == migrated
    ledger.close()


def _schema(connection: Connection) -> dict[str, object]:
    """Return each table and index in the database's own words, so that no clause of either is left out."""
    if connection.dialect.name == "sqlite":
        made = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {name: sorted(line.strip("\t, ") for line in sql.splitlines()) for name, sql in made}
    indexes = connection.exec_driver_sql(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    )
    columns = connection.exec_driver_sql(
        "SELECT table_name || '.' || column_name, concat_ws(' ', data_type, character_maximum_length,"
        " is_nullable, column_default) FROM information_schema.columns WHERE table_schema = 'public'"
    )
    constraints = connection.exec_driver_sql(
        "SELECT conrelid::regclass || ' ' || conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace"
    )
    return {name: words for found in (indexes, columns, constraints) for name, words in found}


def test_the_code_knows_every_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    assert [migration.revision for migration in script.walk_revisions()][::-1] == list(VERSIONS)


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


@pytest.fixture
def upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what makes the code from then on that of the next version, with one migration more."""

    def upgrade() -> None:
        migrations = Path(shutil.copytree(database.MIGRATIONS, tmp_path / "migrations"))
        (migrations / "versions" / "0002_next.py").write_text(_NEXT)
        monkeypatch.setattr(database, "MIGRATIONS", migrations)
        monkeypatch.setattr(database, "VERSIONS", (*VERSIONS, "0002"))

    return upgrade


_NEXT = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    op.add_column("sources", sa.Column("note", sa.Text))
"""


def test_a_migrated_ledger_goes_on_with_all_that_it_knew(
    url: str, tmp_path: Path, upgraded: Callable[[], None]
) -> None:
    keyring = FileKeyring(tmp_path)
    old = open_ledger(url, keyring)
    old.take_over()
    old.append([*done("a", 1), accepted("open")], seal={"open": b"ada"})
    before, position = _rows(old), old.position()
    old.close()

    upgraded()
    ledger = open_ledger(url, keyring)
    assert _columns(ledger, "sources") == {"source", "doc", "note"}
    after = _rows(ledger)
    assert after.pop("ledger") != before.pop("ledger")  # the token in it, which fences who was before
    assert after == before
    assert ledger.verify() == ledger.position() == position
    assert ledger.sealed(["open"]) == {"open": b"ada"}
    ledger.take_over()
    ledger.append([CopiesGone(NOW, ())])
    ledger.close()


def test_who_works_with_the_version_before_is_fenced_by_the_migration(
    url: str, tmp_path: Path, upgraded: Callable[[], None]
) -> None:
    keyring = FileKeyring(tmp_path)
    old = open_ledger(url, keyring)
    old.take_over()
    open_ledger(url, keyring).close()
    old.confirm()  # of the same version: nothing has changed
    upgraded()
    ledger = open_ledger(url, keyring)
    with pytest.raises(Fenced):
        old.append([accepted("a")])
    ledger.take_over()
    ledger.append([accepted("a")])
    assert ledger.verify() == ledger.position()
    ledger.close()
    old.close()


def test_a_migration_under_other_keys_leaves_the_ledger_as_it_was(
    url: str, tmp_path: Path, upgraded: Callable[[], None]
) -> None:
    (tmp_path / "other").mkdir()
    ledger = open_ledger(url, FileKeyring(tmp_path))
    ledger.take_over()
    upgraded()
    with pytest.raises(KeysDoNotMatch):
        open_ledger(url, FileKeyring(tmp_path / "other"))
    with ledger._engine.connect() as connection:
        version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
    assert version == VERSIONS[-1]
    assert _columns(ledger, "sources") == {"source", "doc"}
    ledger.confirm()
    ledger.close()


def _rows(ledger: SqlLedger) -> dict[str, list[tuple[object, ...]]]:
    with ledger._engine.connect() as connection:
        return {
            name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for name, table in metadata.tables.items()
        }


def _columns(ledger: SqlLedger, table: str) -> set[str]:
    with ledger._engine.connect() as connection:
        return {column["name"] for column in inspect(connection).get_columns(table)}
