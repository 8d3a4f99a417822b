"""Invariant 4: whoever looks every 100 ms during a pg_restore never opens the gate before its end."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psycopg
import pytest

from devtools.servers import PostgresServer
from tests.invariants.company import JOURNAL, TABLES, Company

PEOPLE = 20_000
"""People and padding enough for a restore that takes many looks."""


def _dump(server: PostgresServer, company: Company, directory: Path, way: str) -> Path:
    dump = directory / "site.dump"
    if way == "psql":
        return server.dump(company.database, dump, "--format=plain", "--clean", "--if-exists")
    return server.dump(company.database, dump)


def _restore(server: PostgresServer, company: Company, dump: Path, way: str) -> None:
    database = company.database
    if way == "psql":
        server.psql(dump.read_text(), database=database)
    elif way == "data-only":
        # The head first, as Lethe does: otherwise the two can lock one another out, and one has to give way.
        company.sql(f"TRUNCATE {', '.join((*JOURNAL, *TABLES, 'padding'))}")
        server.restore(database, dump, "--data-only", "--disable-triggers")
    elif way == "-j4":
        server.restore(database, dump, "--clean", "--if-exists", "-j4")
    else:
        server.restore(database, dump, "--clean", "--if-exists")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["psql", "-j4", "data-only", "--clean"])
def test_the_gate_never_opens_before_a_restore_has_ended(
    company: Company, postgres: PostgresServer, tmp_path: Path, way: str
) -> None:
    ada, early = company.sign_up("ada@x.example"), company.sign_up("early@x.example")
    company.sql(
        "INSERT INTO users (first_name, last_name, email, person) SELECT 'F', 'L', 'n' || n || '@x.example',"
        f" gen_random_uuid() FROM generate_series(1, {PEOPLE}) n"
    )
    company.sql(
        "CREATE TABLE padding (id serial PRIMARY KEY, noise text);"
        "INSERT INTO padding (noise) SELECT repeat(md5(n::text), 12) FROM generate_series(1, 100000) n;"
        "CREATE INDEX ON padding (noise)"
    )
    company.request("early", key=company.key_of(early))
    company.visit_until_safe()
    dump = _dump(postgres, company, tmp_path, way)
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company._hang_up()
    looks: list[tuple[float, bool]] = []
    ended, failed = threading.Event(), list[BaseException]()

    def look_again_and_again() -> None:
        try:
            until_safe = 60
            while until_safe:
                visit = company.visit(sweep=False)
                looks.append((time.monotonic(), visit.safe))
                if ended.is_set():
                    until_safe = 0 if visit.safe else until_safe - 1
                threading.Event().wait(0.1)
        except BaseException as error:  # noqa: BLE001 - told in the test's own thread
            failed.append(error)

    looking = threading.Thread(target=look_again_and_again)
    looking.start()
    try:
        began = time.monotonic()
        _restore(postgres, company, dump, way)
        over = time.monotonic()
    finally:
        ended.set()
        looking.join()
    assert not failed, failed
    during = [safe for at, safe in looks if began < at < over]
    assert len(during) >= 3, "the restore was too short to look at"
    closed_at = next((n for n, safe in enumerate(during) if not safe), None)
    assert closed_at is not None, "the restore was noticed only after its end"
    assert not any(during[closed_at:]), "the gate opened before the restore had ended"
    assert looks[-1][1], "and it opens after it"
    assert company.is_cleared(ada)
    assert company.is_cleared(early)
    assert company.last_episode().re_erased == 1


def test_the_gate_closes_in_a_restore_though_a_look_saw_the_tables_gone_before_the_journal(
    company: Company, postgres: PostgresServer, tmp_path: Path
) -> None:
    ada = company.sign_up("ada@x.example")
    company.visit_until_safe()
    dump = postgres.dump(company.database, tmp_path / "site.dump")
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()

    company.sql(f"DROP TABLE {', '.join(TABLES)}")
    assert not company.visit().opened, "a migration does that, too"
    company.sql(f"DROP TABLE {', '.join(JOURNAL)}")
    for section in ("pre-data", "data"):
        postgres.restore(company.database, dump, f"--section={section}")
    assert not company.is_cleared(ada), "she can be read, and there is no key yet to erase her by"

    assert company.visit().opened
    assert company.store.trouble is None
    postgres.restore(company.database, dump, "--section=post-data")
    company.visit_until_safe()
    assert company.is_cleared(ada)


def test_the_gate_closes_in_a_restore_that_has_no_journal_yet_also_for_a_new_process(
    company: Company, postgres: PostgresServer
) -> None:
    ada = company.sign_up("ada@x.example")
    before = company.snapshot()
    company.request("ada", key=company.key_of(ada))
    company.visit_until_safe()
    company.sql(f"DROP TABLE {', '.join(JOURNAL)}")
    company.restore(before, "truncated")
    company.power_cut()

    with psycopg.connect(postgres.url(company.database), application_name="pg_restore"):
        assert company.visit().opened, "it goes on with other tables, and she can be read"
        assert not company.visit().safe

    company.visit_until_safe()
    assert company.is_cleared(ada)
