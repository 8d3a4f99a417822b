"""A drill on real PostgreSQL: a copy is erased again, and production hears nothing of it."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from devtools.servers import PostgresServer
from devtools.servers.postgres import NOBODY
from lethe.adapters.ledger.ledger import SqlLedger
from lethe.domain.drill_facts import DrillEnded, DrillResult, DrillStarted
from lethe.ports.ledger import LedgerUnavailable
from lethe.ports.stores import DiskFull, StoreUnreachable
from lethe.workflows.drill.conduct import Halt, end_interrupted, mark_of
from tests.invariants.company import STORE
from tests.workflows.drill.drilling import DRILL, Drills, Told


def people_of(drills: Drills, *names: str) -> list[str]:
    """Let people sign up, and the store be met."""
    persons = [drills.company.sign_up(f"{name}@canary.example") for name in names]
    drills.company.visit_until_safe()
    return persons


def erase(drills: Drills, *persons: str) -> None:
    """Erase people."""
    for person in persons:
        drills.company.request(f"r-{person}", key=drills.company.key_of(person))
    drills.company.visit_until_safe()


def facts_since(ledger: SqlLedger, sequence: int) -> list[Any]:
    return [fact for position, _, fact in ledger.facts() if position.sequence > sequence]


def test_what_a_copy_brings_back_is_erased_in_it_again_and_nothing_else_is_touched(drills: Drills) -> None:
    company = drills.company
    early, ada, bob, cleo = people_of(drills, "early", "ada", "bob", "cleo")
    erase(drills, early)
    snapshot = drills.dump()
    erase(drills, ada, bob)
    before, at = company.everything(), company.real_ledger.position().sequence
    seen: dict[str, bool] = {}

    def look(copy: Any) -> Any:
        class Looking:
            def __getattr__(self, name: str) -> Any:
                return getattr(copy, name)

            def close(self) -> None:  # what stands in the copy right before it is dropped
                (database,) = drills.left()
                rows = drills.server.psql(
                    "SELECT person, email LIKE 'erased-%' AND first_name IS NULL FROM users",
                    database=database,
                )
                seen.update({line.split("|")[0]: line.endswith("t") for line in rows.splitlines()})
                copy.close()

        return Looking()

    ended = drills.run(snapshot, wrap=look)

    assert ended.result is DrillResult.PASSED, ended.message
    assert (ended.erased_again, ended.left_alone, ended.missed) == (2, 0, 0)
    assert ended.message == "2 persons were erased in the copy again, and all erasures read back"
    assert seen == {early: True, ada: True, bob: True, cleo: False}
    assert ended.size is not None and ended.size > 0  # noqa: PT018
    assert 0 < (ended.verification_seconds or 0) <= (ended.replay_seconds or 0)
    assert (ended.restore_seconds or 0) > 0
    assert drills.left() == set()
    assert company.everything() == before, "production's own database was touched"
    written = facts_since(company.real_ledger, at)
    assert [type(fact) for fact in written] == [DrillStarted, DrillEnded]
    assert company.real_ledger.episodes(store=STORE) == []
    visit = company.visit()
    assert visit.safe, "the next look finds the store as it was"
    assert drills.record.rehearsed[STORE].passed_at == ended.at


def test_who_registered_anew_under_an_erased_key_is_left_alone_in_the_copy(drills: Drills) -> None:
    company = drills.company
    (ada,) = people_of(drills, "ada")
    key = company.key_of(ada)
    erase(drills, ada)
    company.sql("DELETE FROM comments; DELETE FROM users WHERE id = %s" % key)  # noqa: UP031
    company.sign_up("newcomer@canary.example", key=key)
    company.visit()
    ended = drills.run(drills.dump())
    assert (ended.result, ended.erased_again, ended.left_alone) == (DrillResult.PASSED, 0, 1)


@pytest.mark.parametrize("same_server", [False, True])
def test_a_scratch_on_the_server_of_a_store_is_refused_and_nothing_is_made_there(
    rehearsed: Drills, *, same_server: bool
) -> None:
    company, before = rehearsed.company, rehearsed.company.everything()
    # The very database of the store is refused in any case; another one of that server unless it is allowed.
    rehearsed.url = company.server.url(company.database if same_server else "postgres")
    rehearsed.same_server = same_server
    ended = rehearsed.run(rehearsed.snapshot)
    assert ended.result is DrillResult.REFUSED
    assert STORE in ended.message
    assert ended.restore_seconds is None
    assert company.everything() == before
    assert company.server.psql("SELECT count(*) FROM pg_database WHERE datname LIKE 'lethe%'") == "0"


def test_a_scratch_on_the_server_of_a_store_is_used_where_that_is_allowed(rehearsed: Drills) -> None:
    rehearsed.url, rehearsed.same_server = rehearsed.company.server.url("postgres"), True
    assert rehearsed.run(rehearsed.snapshot).result is DrillResult.PASSED
    assert rehearsed.company.visit().safe
    assert (
        rehearsed.company.server.psql("SELECT count(*) FROM pg_database WHERE datname LIKE 'lethe%'") == "0"
    )


INTO = '--dbname="$LETHE_SCRATCH_URL" "$LETHE_SNAPSHOT_PLACE/$LETHE_SNAPSHOT"'
NOTHING = {
    "says that it went well": "exit 0",
    "tables without rows": "exec {programs}/pg_restore --schema-only --no-owner " + INTO,
    "one table of three": "exec {programs}/pg_restore --no-owner -t users " + INTO,
}


@pytest.mark.parametrize("line", NOTHING.values(), ids=NOTHING)
def test_a_restore_that_says_it_went_well_and_brought_nothing_back_is_caught(
    rehearsed: Drills, line: str
) -> None:
    rehearsed.command("restore", line.format(programs=rehearsed.server.programs))
    ended = rehearsed.run(rehearsed.snapshot)
    assert ended.result is DrillResult.NOTHING_RESTORED, ended
    assert ended.replay_seconds is None
    assert rehearsed.left() == set()
    assert rehearsed.record.past[0].result is DrillResult.NOTHING_RESTORED
    assert rehearsed.record.passed_at != ended.at


def test_a_restore_that_fails_says_how_it_ended_and_repeats_nothing_of_what_it_wrote(
    rehearsed: Drills,
) -> None:
    rehearsed.command("restore", "echo 'ERROR: ada@canary.example' >&2; exit 7")
    ended = rehearsed.run(rehearsed.snapshot)
    assert ended.result is DrillResult.RESTORE_FAILED
    assert "ended with 7" in ended.message
    assert "canary" not in ended.message
    assert rehearsed.left() == set()


@pytest.mark.parametrize("command", ["absent", "../escape", "folder", "not-executable"])
def test_a_command_that_is_none_of_the_folder_is_refused(rehearsed: Drills, command: str) -> None:
    (rehearsed.folder / "folder").mkdir(exist_ok=True)
    (rehearsed.folder / "not-executable").write_text("exit 0")
    (rehearsed.folder.parent / "escape").write_text("#!/bin/sh\ntouch escaped\n")
    (rehearsed.folder.parent / "escape").chmod(0o755)
    ended = rehearsed.run(rehearsed.snapshot, command)
    assert ended.result is DrillResult.REFUSED
    assert "LETHE_DRILL_COMMANDS_DIR" in ended.message


def test_a_restore_that_never_ends_is_killed_with_all_that_it_began(
    rehearsed: Drills, tmp_path: Path
) -> None:
    rehearsed.command("restore", f"(while :; do date > {tmp_path}/alive; sleep 0.05; done) & sleep 1000")
    ended = rehearsed.run(rehearsed.snapshot, seconds=1.0)
    assert ended.result is DrillResult.TIMED_OUT
    assert rehearsed.left() == set()
    (tmp_path / "alive").unlink()
    time.sleep(0.3)
    assert not (tmp_path / "alive").exists(), "a child of the command lives on"


def test_a_drill_whose_store_is_restored_meanwhile_gives_way(rehearsed: Drills) -> None:
    rehearsed.command("restore", "sleep 1000")
    halt = Halt(time.monotonic() + 60)
    threading.Timer(0.5, halt.now, [DrillResult.GAVE_WAY]).start()
    ended = rehearsed.run(rehearsed.snapshot, halt=halt)
    assert ended.result is DrillResult.GAVE_WAY
    assert rehearsed.left() == set()


def test_somebody_who_can_t_be_cleared_in_the_copy_is_missed_and_told(rehearsed: Drills) -> None:
    undo = (
        "CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.first_name = OLD.first_name;"
        " RETURN NEW; END $$; CREATE TRIGGER undo BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION undo()"
    )
    restore = NOTHING["tables without rows"].replace("exec ", "").replace("--schema-only ", "")
    line = restore.format(programs=rehearsed.server.programs)
    sql = rehearsed.folder / "undo.sql"
    sql.write_text(undo)
    rehearsed.command("restore", f'{line} && {rehearsed.server.programs}/psql -f {sql} "$LETHE_SCRATCH_URL"')
    ended = rehearsed.run(rehearsed.snapshot)
    assert (ended.result, ended.missed) == (DrillResult.UNCLEARED, 1)
    assert "canary" not in ended.message
    assert rehearsed.left() == set()


def test_a_full_disk_of_the_scratch_is_told_whoever_runs_into_it(rehearsed: Drills) -> None:
    rehearsed.command("restore", "echo 'could not extend file: No space left on device' >&2; exit 1")
    assert rehearsed.run(rehearsed.snapshot).result is DrillResult.SCRATCH_FULL

    class Full:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def create(self, database: str, mark: str) -> None:
            raise DiskFull("the server's disk is full", "make room on the server")

    ended = rehearsed.run(rehearsed.snapshot, wrap=Full)
    assert ended.result is DrillResult.SCRATCH_FULL
    assert rehearsed.left() == set()


def test_a_disk_that_gets_full_in_the_midst_of_the_replay_is_told(drills: Drills, tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    options = f"size=3m,mode=0700,uid={NOBODY}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", room], check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        tmp_path.chmod(0o711)
        drills.server.psql(f"CREATE TABLESPACE small LOCATION '{room}'")
        many = people_of(drills, *(f"one-{n}" for n in range(120)))
        snapshot = drills.dump()
        erase(drills, *many)
        line = (
            NOTHING["tables without rows"].replace("exec ", "").replace("--schema-only", "--no-tablespaces")
        )
        fill = "INSERT INTO filler SELECT repeat('x', 900) FROM generate_series(1, 500)"
        psql = f'{drills.server.programs}/psql -qv ON_ERROR_STOP=1 "$LETHE_SCRATCH_URL" -c'
        drills.command(
            "restore",
            "export PGOPTIONS='-c default_tablespace=small'\n"
            f"{line.format(programs=drills.server.programs)}\n{psql} 'CREATE TABLE filler (t text)'\n"
            f'while {psql} "{fill}"; do :; done; exit 0',
        )
        ended = drills.run(snapshot)
        assert ended.result is DrillResult.SCRATCH_FULL, ended
        assert drills.left() == set()
        drills.server.psql("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "--lazy", room], check=False)


def test_a_power_cut_at_any_step_leaves_nothing_that_the_next_process_does_not_clear_away(
    drills: Drills,
) -> None:
    (ada,) = people_of(drills, "ada")
    snapshot = drills.dump()
    erase(drills, ada)
    company = drills.company

    def run() -> None:
        drills.run(snapshot, wrap=lambda scratch: Told(scratch, company.fuse.moment))

    cut, moment = 0, 0
    while True:
        moment += 1
        if not company.cut_at(moment, run):
            break
        cut += 1
        company.prove()
        known, left = company.real_ledger.drills().get(DRILL), drills.left()
        if known is not None and known.ended is None:
            ended = end_interrupted(known, company.context, drills.scratch(), "")
            assert ended.result is DrillResult.INTERRUPTED
            there = "was dropped" if known.started.database in left else "there is no"
            assert known.started.database in ended.message
            assert there in ended.message
        assert drills.left() == set(), f"moment {moment}: {company.fuse.names}"
    assert cut > 10
    assert company.visit_until_safe().opened is False
    assert drills.record.past[0].result is DrillResult.PASSED


@pytest.mark.parametrize("call", ["known_head", "confirm", "mappings", "tombstones", "append"])
def test_a_drill_whose_ledger_falls_away_is_cleared_once_it_is_back_and_keeps_no_connection(
    rehearsed: Drills, call: str
) -> None:
    company = rehearsed.company

    class Away:
        """A ledger that begins a drill, and does not answer to one kind of call since."""

        def __init__(self) -> None:
            self.begun = False

        def __getattr__(self, name: str) -> Any:
            if name == call and self.begun:
                raise LedgerUnavailable("the ledger is away")
            self.begun = self.begun or name == "append"
            return getattr(company.real_ledger, name)

    with pytest.raises(LedgerUnavailable):
        rehearsed.run(rehearsed.snapshot, ledger=Away())
    rows = rehearsed.server.psql(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    )
    assert rows == "1", "besides the one that asks"
    assert rehearsed.record.ended is None
    end_interrupted(rehearsed.record, company.context, rehearsed.scratch(), "")
    assert rehearsed.left() == set()
    assert rehearsed.record.past[0].result is DrillResult.INTERRUPTED


def test_what_an_earlier_drill_has_left_is_dropped_and_told_and_nothing_of_others(rehearsed: Drills) -> None:
    """As where the ledger was lost meanwhile: nothing but the mark tells of it."""
    left, of_another, elsewhere = (f"lethe_drill_{digit * 10}" for digit in "def")
    marks = {
        left: mark_of(DRILL, ""),
        of_another: mark_of("shop/other", ""),
        elsewhere: mark_of(DRILL, "the-uid-in-another-cluster"),
    }
    for database, mark in marks.items():
        rehearsed.server.psql(f"CREATE DATABASE {database}")
        rehearsed.server.psql(f"COMMENT ON DATABASE {database} IS '{mark}'")
    ended = rehearsed.run(rehearsed.snapshot)
    assert ended.result is DrillResult.PASSED
    assert f"{left}, which an earlier drill had left, was dropped" in ended.message
    assert rehearsed.left() == {of_another, elsewhere}


def test_nobody_else_may_read_the_copy(rehearsed: Drills, scratch_server: PostgresServer) -> None:
    scratch_server.psql("DROP ROLE IF EXISTS passer_by; CREATE ROLE passer_by LOGIN PASSWORD 'secret'")
    said = rehearsed.folder / "said"
    url = scratch_server.url("DATABASE", user="passer_by", password="secret")
    rehearsed.command(
        "restore",
        f"name=${{LETHE_SCRATCH_URL##*/}}; {rehearsed.server.programs}/psql -c 'SELECT 1'"
        f' "$(echo {url} | sed s/DATABASE/$name/)" 2> {said}; exit 1',
    )
    rehearsed.run(rehearsed.snapshot)
    assert "permission denied for database" in said.read_text()


def test_a_database_that_could_not_be_dropped_is_tried_again_and_the_result_stays(rehearsed: Drills) -> None:

    class Undroppable:
        def __init__(self, inner: object) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

        def anew(self) -> object:
            return Undroppable(self._inner.anew())  # type: ignore[attr-defined]

        def drop(self, database: str) -> bool:
            raise StoreUnreachable("the server is away", "start it")

    assert rehearsed.run(rehearsed.snapshot, wrap=Undroppable).result is DrillResult.PASSED
    context, past = rehearsed.company.context, rehearsed.record.past
    assert rehearsed.record.ended is not None
    assert rehearsed.record.ended.left
    end_interrupted(rehearsed.record, context, rehearsed.scratch(), "")
    assert rehearsed.left() == set()
    assert rehearsed.record.ended is not None
    assert (rehearsed.record.ended.result, rehearsed.record.ended.left) == (DrillResult.PASSED, False)
    assert rehearsed.record.past == past
