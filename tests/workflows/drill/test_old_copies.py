"""A drill of a copy older than what Lethe knows of the store: it is erased again, or it says why not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lethe.domain.drill_facts import DrillResult
from lethe.workflows.backup.last_copy import Coverage, expire_tombstones, grade
from tests.invariants.company import STORE
from tests.workflows.drill.drilling import Drills
from tests.workflows.drill.test_conduct import erase, people_of

BEFORE_ITS_FIRST_MOVE = "psql -c 'DELETE FROM lethe_journal_head'"
WITHOUT_JOURNAL = "psql -c 'DROP TABLE lethe_journal_head, lethe_journal_entries'"
WITH_JOURNAL = "true"


def restored_as(drills: Drills, script: str) -> None:
    """Let what is restored be as it was once, by a script in the copy."""
    programs = drills.server.programs
    line = f'{programs}/pg_restore --no-owner --exit-on-error --dbname="$LETHE_SCRATCH_URL"'
    psql = f'{programs}/psql -qv ON_ERROR_STOP=1 "$LETHE_SCRATCH_URL"'
    drills.command(
        "restore", f'{line} "$LETHE_SNAPSHOT_PLACE/$LETHE_SNAPSHOT" && {script.replace("psql", psql)}'
    )


@pytest.mark.parametrize("script", [BEFORE_ITS_FIRST_MOVE, WITHOUT_JOURNAL])
def test_a_copy_from_before_the_journal_is_erased_again_while_all_who_were_erased_are_known(
    drills: Drills, script: str
) -> None:
    ada, _ = people_of(drills, "ada", "bob")
    snapshot = drills.dump()
    restored_as(drills, script)
    erase(drills, ada)
    ended = drills.run(snapshot)
    assert ended.result is DrillResult.PASSED, ended.message
    assert (ended.erased_again, ended.missed) == (1, 0)
    assert drills.company.visit().safe


@pytest.mark.parametrize("script", [BEFORE_ITS_FIRST_MOVE, WITHOUT_JOURNAL, WITH_JOURNAL])
def test_of_a_copy_older_than_who_is_still_known_a_drill_says_that_nobody_can_tell_whom_it_holds(
    drills: Drills, script: str
) -> None:
    company = drills.company
    company.now = datetime.now(UTC)
    company.real_ledger._now = lambda: company.now
    ada, bob = people_of(drills, "ada", "bob")
    snapshot = drills.dump()
    restored_as(drills, script)
    company.now += timedelta(days=1)
    erase(drills, ada)
    company.now += timedelta(days=200)
    assert grade(company.real_ledger, {STORE: Coverage(no_backups=True)}, now=company.now)
    company.now += timedelta(days=40)
    assert expire_tombstones(company.real_ledger, now=company.now)
    erase(drills, bob)

    ended = drills.run(snapshot)

    assert ended.result is DrillResult.UNCLEARED, ended
    assert ended.erased_again == 1, "who is known is erased again all the same"
    assert "a restore in earnest would wait for a person" in ended.message
    assert "nothing is known any more" in ended.message
    assert drills.record.rehearsed == {}
    assert drills.left() == set()
