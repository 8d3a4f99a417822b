"""A copy that is older than what Lethe still knows: whom it brings back nobody can tell, and that is said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lethe.workflows.backup.last_copy import Coverage, expire_tombstones, grade
from lethe.workflows.restore.replay import ReplayState
from tests.invariants.company import JOURNAL, STORE, Company, Snapshot


@pytest.fixture
def year(company: Company) -> Company:
    """A company whose ledger goes by the clock that the test sets."""
    company.now = datetime.now(UTC)
    company.real_ledger._now = lambda: company.now
    return company


def _erase_and_forget(company: Company, person: str) -> None:
    """Erase somebody tomorrow, and let half a year and more pass, in which the last copy dies."""
    company.now += timedelta(days=1)
    company.request("ada", key=company.key_of(person))
    company.visit_until_safe()
    company.now += timedelta(days=200)
    assert grade(company.real_ledger, {STORE: Coverage(no_backups=True)}, now=company.now)
    company.now += timedelta(days=40)
    assert expire_tombstones(company.real_ledger, now=company.now)
    assert company.real_ledger.tombstone_count(STORE) == 0
    company.visit_until_safe()


@pytest.mark.parametrize("journal", [True, False], ids=["with-journal", "from-before-it"])
def test_a_copy_older_than_the_oldest_tombstone_waits_for_a_person_and_says_why(
    year: Company, *, journal: bool
) -> None:
    ada, bob = year.sign_up("ada@x.example"), year.sign_up("bob@x.example")
    year.visit_until_safe()
    before = year.snapshot()
    if not journal:
        before = Snapshot({t: rows for t, rows in before.rows.items() if t not in JOURNAL}, before.sequences)
    _erase_and_forget(year, ada)

    year.restore(before, "volume")
    waiting = year.visit_until(ReplayState.AWAITING_RELEASE)

    assert waiting.step is not None
    assert "nothing is known any more" in waiting.step.message
    assert not year.is_cleared(ada), "nobody can tell who that was: the gate stays closed"
    asked = year.last_episode().episode
    for _ in range(4):
        again = year.visit()
        assert again.step == waiting.step
    assert year.last_episode().episode == asked, "it is one restore, however long nobody answers"
    assert year.visit(release="we have looked ourselves", uid="").safe
    assert not year.is_cleared(bob)


def test_a_copy_from_after_the_last_forgotten_erasure_needs_nobody(year: Company) -> None:
    ada, bob = year.sign_up("ada@x.example"), year.sign_up("bob@x.example")
    year.visit_until_safe()
    _erase_and_forget(year, ada)
    year.sql(
        "UPDATE lethe_journal_head SET ticked_at = %s", year.now
    )  # the server's clock knows no half year
    before = year.snapshot()
    year.now += timedelta(days=1)
    year.request("bob", key=year.key_of(bob))
    year.visit_until_safe()

    year.restore(before, "volume")
    year.visit_until_safe()

    assert year.is_cleared(ada)
    assert year.is_cleared(bob)


def test_it_waits_as_well_if_a_table_was_seen_to_be_another_before_the_head_went_back(year: Company) -> None:
    ada = year.sign_up("ada@x.example")
    year.visit_until_safe()
    before = year.snapshot()
    _erase_and_forget(year, ada)
    year.restore(before, "tables")  # what comes first
    assert year.visit().opened

    year.restore(before, "volume")  # and the rest of it, with the journal's head
    waiting = year.visit_until(ReplayState.AWAITING_RELEASE)

    assert waiting.step is not None
    assert "nothing is known any more" in waiting.step.message
    assert not year.is_cleared(ada)


@pytest.mark.parametrize("moment", range(1, 13))
def test_a_pass_that_ends_after_the_head_was_moved_on_makes_no_young_copy_of_an_old_one(
    year: Company, moment: int
) -> None:
    year.now -= timedelta(days=300)  # so that the store's own clock, by which it tells, is of today
    ada = year.sign_up("ada@x.example")
    year.visit_until_safe()
    year.sql("UPDATE lethe_journal_head SET ticked_at = %s", year.now)
    before = year.snapshot()
    _erase_and_forget(year, ada)
    year.sign_up("bob@x.example")
    year.visit_until_safe()

    year.restore(before, "volume")
    year.cut_at(moment, lambda: year.visit_until(ReplayState.AWAITING_RELEASE))
    year.visit_until(ReplayState.AWAITING_RELEASE)

    assert not year.is_cleared(ada)
