"""Models and migrations say the same."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import lethe.adapters.ledger
from lethe.adapters.keys.files import FileKeyring
from lethe.adapters.ledger.ledger import open_ledger
from lethe.adapters.ledger.schema import VERSIONS, metadata
from tests.servers import PostgresServer


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
