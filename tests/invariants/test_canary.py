"""Invariant 7: nothing personal is left in ledger, server log, statistics or temporary files."""

from __future__ import annotations

from pathlib import Path

from devtools.servers import PostgresServer
from tests.invariants.company import Company, canary_in

WORDS = ("canary-ada", "canary-bob", "canary-cleo")


def test_no_trace_of_the_erased_is_left_where_lethe_writes(tmp_path: Path, ledger_directory: Path) -> None:
    settings = {"log_statement": "all", "log_min_duration_statement": "0", "log_temp_files": "0"}
    with PostgresServer(tmp_path / "postgres", fsync=False, settings=settings) as server:
        company = Company(server, ledger_directory / "company")
        company.connection.execute("SET log_statement = 'none'")  # what the site itself writes is not asked
        company.connection.execute("SET log_min_duration_statement = -1")
        ada, bob, cleo = (company.sign_up(f"{word}@x.example") for word in WORDS)
        company.sql("ANALYZE users, sessions, comments")
        assert "canary-ada" in str(_statistics(company)), "the search finds what is there"
        company.visit_until_safe()
        before = company.snapshot()
        company.request("ada", email="canary-ada@x.example")
        company.request("bob", key=company.key_of(bob))
        company.visit_until_safe()
        company.sql("ALTER TABLE users ADD CONSTRAINT stubborn CHECK (email NOT LIKE 'erased-%' OR id <> 3)")
        company.request("cleo", email="canary-cleo@x.example")
        company.visit(sweep=False)
        told = str([blocker.message for blocker in company.store.blockers.values()])
        assert "stubborn" in told
        assert "canary" not in told
        company.visit()  # whose sweep proves the mapping anew
        told = str(company.store.trouble)
        assert "stubborn" in told
        assert "canary" not in told
        # While a request waits, its address is sealed, and nothing shows it.
        assert list(canary_in(company.directory, *WORDS)) == []
        company.sql("ALTER TABLE users DROP CONSTRAINT stubborn")
        company.visit_until_safe()
        company.restore(before, "volume")
        company.visit_until_safe()
        company.visit_until_safe()
        assert all(company.is_cleared(person) for person in (ada, bob, cleo))

        company.journal.tidy()

        assert "canary" not in str(_statistics(company))
        assert list(canary_in(company.directory, *WORDS)) == []
        assert "UPDATE" in server.log_path.read_text()
        log = "\n".join(line for line in server.log_path.read_text().splitlines() if "stubborn" not in line)
        leaked = [line for line in log.splitlines() if "canary" in line and "DETAIL" not in line]
        assert leaked == []
        temporary = server.data_directory / "base" / "pgsql_tmp"
        assert not temporary.exists() or list(canary_in(temporary, *WORDS)) == []
        assert company.real_ledger.sealed(["uid-ada", "uid-bob", "uid-cleo"]) == {}
        company.close()
        assert list(canary_in(ledger_directory, *WORDS)) == []


def _statistics(company: Company) -> list[tuple[object, ...]]:
    return company.sql(
        "SELECT tablename, attname, most_common_vals::text, histogram_bounds::text FROM pg_stats"
    )
