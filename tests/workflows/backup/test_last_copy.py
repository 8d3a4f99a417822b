"""What backups still hold of erased persons, and when the memory of an erasure ends; over a real ledger."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lethe.domain.facts import (
    Completed,
    DetectedBy,
    Intended,
    Outcome,
    Reerased,
    RestoreDetected,
    SafeToServe,
    Superseded,
    Verified,
)
from lethe.domain.identifiers import email_identifier
from lethe.domain.periods import Period
from lethe.domain.snapshots import CopiesLeft, is_misdated
from lethe.domain.tombstones import Tombstone
from lethe.ports.backups import BackendUnavailable
from lethe.workflows.backup import last_copy
from lethe.workflows.backup.last_copy import Coverage
from lethe.workflows.backup.scan import Declared
from lethe.workflows.erasure.accept import ErasureOrder, Intake, accept
from lethe.workflows.pass_context import PassContext
from tests.workflows.backed_up import (
    CRM,
    DAY,
    EXPIRY,
    HOUR,
    MINUTE,
    NIGHT,
    SITE,
    YEAR,
    Backups,
    Source,
    touch,
)

SOON = NIGHT + 10 * DAY


def after(backups: Backups, length: timedelta = HOUR) -> None:
    backups.true += length


def dump_now(backups: Backups, source: Source) -> Path:
    """Take a dump now, in no time."""
    return source.dump(backups.true.replace(microsecond=0))


# The day on which the last copy dies


def test_the_last_copy_dies_with_the_last_snapshot_not_begun_after_the_erasure(
    backups: Backups, nightly: Source
) -> None:
    for _ in range(2):
        dump_now(backups, nightly)
        after(backups, DAY)
    last = dump_now(backups, nightly)
    after(backups, DAY)
    backups.erase("ada", 1)
    after(backups)
    dump_now(backups, nightly)
    after(backups)
    nightly.scan()
    assert backups.grade() == {"ada"}
    assert backups.gone_at("ada") == nightly.record(last).expires_at(Period(6, 0))


def test_a_snapshot_that_began_in_the_moment_of_the_erasure_holds_the_person(
    backups: Backups, nightly: Source
) -> None:
    dump_now(backups, nightly)
    backups.erase("ada", 1)
    after(backups)
    nightly.scan()
    backups.grade()
    assert backups.gone_at("ada") == EXPIRY


def test_a_new_nightly_snapshot_changes_nothing(backups: Backups, nightly: Source) -> None:
    dump_now(backups, nightly)
    after(backups)
    backups.erase("ada", 1)
    after(backups)
    nightly.scan()
    assert backups.grade() == {"ada"}
    for _ in range(3):
        after(backups, DAY)
        dump_now(backups, nightly)
        nightly.scan()
        assert backups.grade() == frozenset()


def test_a_snapshot_stamped_at_its_end_counts_back_by_its_longest_duration(backups: Backups) -> None:
    slow = backups.source(longest_duration=7200.0)
    backups.erase("ada", 1)
    after(backups, HOUR)
    slow.dump(backups.true)  # began up to two hours ago
    after(backups, 3 * HOUR)
    slow.scan()
    backups.grade()
    assert backups.gone_at("ada") is not None


@pytest.mark.parametrize(
    ("ahead", "holds"), [(30, True), (120, True), (121, False)], ids=["within", "just", "beyond"]
)
def test_a_dump_named_by_a_clock_that_is_ahead_holds_whom_it_held_when_it_began(
    backups: Backups, nightly: Source, ahead: int, holds: bool
) -> None:
    nightly.say(skew=120.0)
    nightly.dump(backups.true - YEAR)
    nightly.scan()
    backups.erase("ada", 1)
    nightly.dump(backups.true + timedelta(seconds=ahead))
    after(backups)
    nightly.scan()
    backups.grade()
    assert (backups.gone_at("ada") is not None) is holds
    assert backups.purged("ada") is not holds


@pytest.mark.parametrize("ahead", [30, -30], ids=["ahead", "behind"])
def test_a_dump_of_a_dirty_time_by_another_clock_holds_everybody(
    backups: Backups, nightly: Source, ahead: int
) -> None:
    nightly.say(skew=120.0)
    backups.erase("ada", 1)
    after(backups, 5 * DAY)
    since, offset = backups.true, timedelta(seconds=ahead)
    # It began and ended while she was back, by the true time.
    dump = nightly.dump(since + offset)
    restored(backups, since=since, safe_at=since)
    after(backups, DAY)
    nightly.scan()
    backups.grade()
    assert backups.gone_at("ada") == nightly.record(dump).expires_at(Period(6, 0))


def test_a_dump_of_another_clock_that_turns_up_later_takes_purged_back(
    backups: Backups, nightly: Source
) -> None:
    nightly.say(skew=120.0)
    erase_before_the_first_dump(backups, nightly)
    assert backups.purged("ada")
    nightly.dump(NIGHT + timedelta(seconds=90))
    nightly.scan()
    backups.grade()
    assert not backups.purged("ada")


def test_purged_comes_with_the_proof_that_the_last_copy_is_gone_and_not_before(
    backups: Backups, nightly: Source
) -> None:
    dump = dump_now(backups, nightly)
    after(backups)
    backups.erase("ada", 1)
    after(backups)
    nightly.scan()
    backups.grade()
    backups.true = EXPIRY - MINUTE
    fresh = dump_now(backups, nightly)
    nightly.scan()
    backups.grade()
    assert not backups.purged("ada")
    backups.true = EXPIRY + HOUR
    backups.grade()  # its day has come, and nobody has looked yet
    assert not backups.purged("ada")
    (nightly.path / "link").hardlink_to(dump)
    assert nightly.scan().failed == 1
    backups.grade()
    assert not backups.purged("ada")
    (nightly.path / "link").unlink()
    nightly.scan()
    assert backups.grade() == {"ada"}
    assert backups.purged("ada")
    assert backups.ledger.requests_by_id(["ada"])["ada"].purged_at == backups.true
    assert nightly.names == [fresh.name]


# What proves nothing


def test_a_listing_that_began_before_the_erasure_proves_nothing(backups: Backups, nightly: Source) -> None:
    backups.true = NIGHT + YEAR
    dump_now(backups, nightly)
    nightly.scan()
    after(backups)
    backups.erase("ada", 1)
    backups.grade()
    assert backups.ledger.copies_left(["ada"])["ada"].unproven == (SITE,)
    after(backups)
    nightly.dump(backups.true)
    nightly.scan()
    backups.grade()
    assert backups.gone_at("ada") is not None


def test_a_listing_that_began_in_the_moment_of_the_erasure_proves_nothing(
    backups: Backups, nightly: Source
) -> None:
    erase_before_the_first_dump(backups, nightly, gap=timedelta(0))
    assert not backups.purged("ada")
    after(backups, MINUTE)
    nightly.scan()
    backups.grade()
    assert backups.purged("ada")


def erase_before_the_first_dump(
    backups: Backups, source: Source, *, gap: timedelta = HOUR, stores: tuple[str, ...] = (SITE,)
) -> None:
    """Erase somebody whom no snapshot holds; the source is listed `gap` later, and grading was done."""
    source.dump(backups.true - YEAR)
    source.scan()  # it goes at once, and has shown that this is the right place
    backups.erase("ada", 1, stores=stores)
    backups.true += gap
    source.scan()
    backups.grade()


def test_a_scan_after_the_erasure_proves_it_where_no_snapshot_holds_the_person(
    backups: Backups, nightly: Source
) -> None:
    erase_before_the_first_dump(backups, nightly)
    assert backups.purged("ada")


def test_a_store_that_no_source_covers_is_never_proven(backups: Backups, nightly: Source) -> None:
    erase_before_the_first_dump(backups, nightly, stores=(SITE, CRM))
    assert backups.ledger.copies_left(["ada"]) == {"ada": CopiesLeft(None, (CRM,))}
    backups.true += YEAR
    nightly.dump(backups.true)
    nightly.scan()
    backups.grade()
    assert not backups.purged("ada")


def test_a_store_stated_to_have_no_backups_holds_nobody_unless_a_snapshot_does(
    backups: Backups, nightly: Source
) -> None:
    backups.erase("ada", 1, stores=(CRM,))
    last_copy.grade(backups.ledger, {CRM: Coverage(no_backups=True)}, now=backups.true)
    assert backups.purged("ada")
    dump_now(backups, nightly)
    nightly.scan()
    backups.erase("bob", 2)
    last_copy.grade(backups.ledger, {SITE: Coverage(no_backups=True)}, now=backups.true)
    assert backups.ledger.copies_left(["bob"]) == {"bob": CopiesLeft(EXPIRY, (SITE,))}


@pytest.mark.parametrize("declared", [False, True], ids=["nothing", "only a snapshot that somebody applied"])
def test_a_source_whose_listing_never_showed_anything_proves_nothing(
    backups: Backups, nightly: Source, declared: bool
) -> None:
    backups.erase("ada", 1)
    after(backups)
    name = f"site-{backups.true:%Y%m%dT%H%M%SZ}.dump"
    nightly.scan(declared=[Declared(name, backups.true)] if declared else [])
    backups.grade()
    assert backups.ledger.copies_left(["ada"]) == {"ada": CopiesLeft(None, (SITE,))}


def test_a_source_is_not_proven_by_another_one_of_the_same_store(backups: Backups, nightly: Source) -> None:
    weekly = backups.source("weekly")
    erase_before_the_first_dump(backups, nightly)
    assert not backups.purged("ada")
    weekly.dump(backups.true - YEAR)
    weekly.scan()
    backups.grade()
    assert backups.purged("ada")


def test_a_deleted_source_proves_nothing(backups: Backups, nightly: Source) -> None:
    dump_now(backups, nightly)
    after(backups)
    backups.erase("ada", 1)
    after(backups)
    nightly.scan()
    nightly.applied = False
    backups.true = EXPIRY + YEAR
    backups.grade()
    assert backups.ledger.copies_left(["ada"]) == {"ada": CopiesLeft(EXPIRY, (SITE,))}
    other = backups.source("other")
    other.dump(backups.true)
    other.scan()
    backups.grade()
    assert backups.ledger.copies_left(["ada"]) == {"ada": CopiesLeft(EXPIRY)}
    nightly.applied = True
    nightly.connect()
    nightly.scan()
    backups.grade()
    assert backups.purged("ada")


def in_two_places(backups: Backups, nightly: Source) -> tuple[Path, Path]:
    """Let a source that has shown a dump of ada look elsewhere; return both places."""
    dump_now(backups, nightly)
    after(backups)
    backups.erase("ada", 1)
    after(backups)
    nightly.scan()
    old, new = nightly.path, backups.home / "moved"
    nightly.look_in(new)
    return old, new


@pytest.mark.parametrize("copied", [False, True], ids=["another dump", "one of the same name"])
@pytest.mark.parametrize("restarted", [False, True])
def test_what_lies_where_a_source_looked_before_is_never_proven_gone_by_another_place(
    backups: Backups, nightly: Source, copied: bool, restarted: bool
) -> None:
    old, new = in_two_places(backups, nightly)
    dump = next(old.iterdir())
    if copied:
        shutil.copy2(dump, new)
    nightly.scan()
    if restarted:
        backups.restart()
    backups.true = EXPIRY + HOUR
    dump_now(backups, nightly)
    for _ in range(2):
        assert nightly.scan().listing.snapshots
        after(backups)
    backups.grade()
    assert dump.exists()
    assert [one.ref for one in nightly.known.elsewhere] == [dump.name]
    assert list(nightly.known.places.values()) == [f"directory {old}"]
    assert not backups.purged("ada")
    assert backups.gone_at("ada") == EXPIRY
    nightly.look_in(old)
    assert nightly.scan().purged == [dump.name]
    nightly.look_in(new)
    after(backups)
    nightly.scan()
    backups.grade()
    assert backups.purged("ada")


def test_a_source_under_another_name_takes_over_what_was_known_of_its_place(
    backups: Backups, nightly: Source
) -> None:
    old, _ = in_two_places(backups, nightly)
    nightly.dump(backups.true)
    nightly.scan()
    assert len(nightly.known.elsewhere) == 1
    other = backups.source("nightly-old")
    other.look_in(old)
    other.dump(EXPIRY)
    backups.true = EXPIRY + HOUR
    assert len(other.scan().purged) == 1
    nightly.scan()
    assert not nightly.known.elsewhere
    backups.grade()
    assert backups.purged("ada")


def test_a_source_takes_over_from_none_that_is_there_or_looks_for_other_names(
    backups: Backups, nightly: Source
) -> None:
    dump_now(backups, nightly)
    nightly.scan()
    other = backups.source("other")
    other.look_in(nightly.path)
    other.scan()
    assert len(backups.real_ledger.snapshots(nightly.known.name)) == 1, "it is there"
    nightly.applied = False
    other.say(names="crm-{takenAt:%Y%m%d}.dump")
    other.scan()
    assert len(backups.real_ledger.snapshots(nightly.known.name)) == 1, "it may not list the same"
    other.say(names=nightly.description.names)
    other.scan()
    assert not backups.real_ledger.snapshots(nightly.known.name)
    foreign = backups.source("foreign", namespace="office")
    foreign.look_in(nightly.path)
    other.applied = False
    foreign.scan()
    assert backups.real_ledger.snapshots(other.known.name), "what a namespace knows stays its own"


def test_an_empty_listing_proves_nothing(backups: Backups, nightly: Source) -> None:
    dump_now(backups, nightly)
    after(backups)
    backups.erase("ada", 1)
    nightly.scan()
    shutil.move(nightly.path, backups.home / "volume")
    nightly.path.mkdir()
    backups.true = EXPIRY + YEAR
    with pytest.raises(BackendUnavailable):
        nightly.scan()
    backups.grade()
    assert not backups.purged("ada")


def test_a_vanished_snapshot_proves_nothing_until_its_expiry(backups: Backups, nightly: Source) -> None:
    dump = dump_now(backups, nightly)
    after(backups)
    backups.erase("ada", 1)
    after(backups)
    stays = dump_now(backups, nightly)
    nightly.scan()
    dump.unlink()
    after(backups)
    nightly.scan()
    backups.grade()
    assert backups.gone_at("ada") == EXPIRY
    backups.true = EXPIRY
    nightly.scan()
    backups.grade()
    assert backups.purged("ada")
    assert stays.exists()


def test_after_a_restart_nothing_is_proven_until_the_next_listing(backups: Backups, nightly: Source) -> None:
    nightly.dump(backups.true - YEAR)
    nightly.scan()
    backups.erase("ada", 1)
    after(backups)
    backups.restart()
    backups.grade()
    assert not backups.purged("ada")
    nightly.dump(backups.true)
    nightly.scan()
    backups.grade()


# Slow dumps, unfinished dumps, dates that lie


def test_a_dump_not_listed_yet_keeps_everybody_unproven_for_as_long_as_it_may_run(
    backups: Backups, nightly: Source
) -> None:
    nightly.say(longest_duration=7200.0)
    nightly.dump(backups.true - YEAR)
    nightly.scan()
    began = backups.true  # it holds ada, and is written where nobody sees it
    after(backups, 30 * MINUTE)
    backups.erase("ada", 1)
    after(backups, 30 * MINUTE)
    nightly.scan()
    backups.grade()
    assert not backups.purged("ada")
    after(backups, 30 * MINUTE)
    nightly.dump(began, "ada", mtime=backups.true)
    nightly.scan()
    backups.grade()
    assert backups.gone_at("ada") is not None
    backups.true += 200 * DAY
    nightly.dump(backups.true)
    nightly.scan()
    backups.grade()
    assert backups.purged("ada")


@pytest.mark.parametrize("restarted", [False, True])
def test_an_unfinished_dump_keeps_unproven_whoever_was_not_erased_before_it_began(
    backups: Backups, nightly: Source, restarted: bool
) -> None:
    nightly.dump(backups.true - YEAR)
    nightly.scan()
    backups.erase("early", 1)
    after(backups)
    nightly.scan()  # nothing unfinished lies there
    after(backups)
    began = backups.true
    part = nightly.path / f"site-{began:%Y%m%dT%H%M%SZ}.dump.tmp"
    part.write_text("late")
    backups.erase("late", 2)
    after(backups)
    nightly.scan()
    if restarted:
        backups.restart()
        nightly.scan()
    backups.grade()
    assert (backups.purged("early"), backups.purged("late")) == (True, False)
    part.rename(nightly.path / part.stem)
    after(backups)
    nightly.scan()
    backups.grade()
    assert backups.purged("early")
    assert backups.gone_at("late") is not None


@pytest.mark.parametrize("date", [NIGHT + YEAR, NIGHT + 2 * DAY], ids=["a year", "a day"])
def test_a_snapshot_all_of_whose_dates_lie_in_the_future_may_hold_everybody(
    backups: Backups, nightly: Source, date: datetime
) -> None:
    nightly.dump(NIGHT - YEAR)
    nightly.scan()
    nightly.dump(date, "ada")  # a job whose clock is wrong
    after(backups)
    backups.erase("ada", 1)
    after(backups)
    nightly.scan()
    nightly.scan()
    backups.grade()
    assert not backups.purged("ada")
    assert backups.gone_at("ada") is not None


def test_replaced_content_still_holds_whom_the_old_one_held(backups: Backups, nightly: Source) -> None:
    dump = dump_now(backups, nightly)
    after(backups)
    backups.erase("ada", 1)
    after(backups)
    nightly.scan()
    after(backups, DAY)
    dump.write_text("another, touched")
    nightly.scan()
    backups.grade()
    gone = backups.gone_at("ada")
    assert gone is not None
    assert gone > EXPIRY


# Restores and write-backs


def restored(backups: Backups, *, since: datetime, safe_at: datetime | None = None, name: str = "e1") -> None:
    backups.ledger.append(
        [RestoreDetected(SITE, name, backups.true, DetectedBy.JOURNAL, missing=1, missing_since=since)]
    )
    if safe_at is not None:
        backups.ledger.append([SafeToServe(SITE, name, safe_at)])


def test_a_snapshot_of_the_time_in_which_erased_persons_were_back_holds_everybody(
    backups: Backups, nightly: Source
) -> None:
    backups.erase("ada", 1)
    after(backups, 5 * DAY)
    since = backups.true
    after(backups, MINUTE)
    within = dump_now(backups, nightly)
    after(backups, MINUTE)
    restored(backups, since=since, safe_at=backups.true)
    after(backups, DAY)
    dump_now(backups, nightly)
    after(backups, DAY)
    nightly.scan()
    backups.grade()
    assert backups.gone_at("ada") == nightly.record(within).expires_at(Period(6, 0))


@pytest.mark.parametrize(
    ("began", "holds"),
    [(timedelta(seconds=4.2), True), (timedelta(seconds=4.8), True), (timedelta(seconds=5), False)],
    ids=["before", "after, in the same second", "in the next second"],
)
def test_a_dump_of_the_second_in_which_a_restored_store_was_read_back_holds_everybody(
    backups: Backups, nightly: Source, began: timedelta, holds: bool
) -> None:
    before = dump_now(backups, nightly)
    after(backups)
    backups.erase("ada", 1)
    after(backups, DAY)
    restored(backups, since=backups.true - MINUTE, safe_at=backups.true + timedelta(seconds=4.5))
    dump = nightly.dump(backups.true + began)  # its name tells whole seconds, and so does its date
    after(backups)
    nightly.scan()
    backups.grade()
    assert backups.gone_at("ada") == nightly.record(dump if holds else before).expires_at(Period(6, 0))


def test_a_dump_of_the_second_in_which_a_store_was_seen_in_step_last_holds_everybody(
    backups: Backups, nightly: Source
) -> None:
    backups.erase("ada", 1)
    after(backups, DAY)
    since = backups.true + timedelta(seconds=4.5)
    earlier = nightly.dump(backups.true + timedelta(seconds=3.9))
    within = nightly.dump(backups.true + timedelta(seconds=4.8))  # restored, and dumped, in the same second
    after(backups, MINUTE)
    restored(backups, since=since, safe_at=backups.true)
    nightly.scan()
    backups.grade()
    gone_at = backups.gone_at("ada")
    assert gone_at == nightly.record(within).expires_at(Period(6, 0))
    assert gone_at != nightly.record(earlier).expires_at(Period(6, 0))


def test_while_a_restore_is_open_nobody_is_purged(backups: Backups, nightly: Source) -> None:
    nightly.dump(NIGHT - YEAR)
    nightly.scan()
    backups.erase("ada", 1)
    since = backups.true + HOUR
    after(backups, DAY)
    restored(backups, since=since)
    nightly.scan()
    backups.grade()
    assert not backups.purged("ada")
    after(backups, DAY)
    backups.ledger.append([Superseded(SITE, "e1", backups.true, "e2")])
    restored(backups, since=backups.true, name="e2")
    nightly.scan()
    backups.grade()
    assert not backups.purged("ada")


def test_a_dump_of_a_restore_that_is_not_listed_yet_keeps_everybody_unproven(
    backups: Backups, nightly: Source
) -> None:
    nightly.dump(NIGHT - YEAR)
    nightly.scan()
    backups.erase("ada", 1)
    after(backups, DAY)
    since = backups.true
    after(backups, MINUTE)
    nightly.scan()
    held = backups.true + MINUTE
    after(backups, 2 * MINUTE)
    restored(backups, since=since, safe_at=backups.true)
    backups.grade()
    assert not backups.purged("ada")
    within = nightly.dump(held, "ada")
    after(backups, MINUTE)
    nightly.scan()
    backups.grade()
    assert backups.gone_at("ada") == nightly.record(within).expires_at(Period(6, 0))


def test_a_restore_of_one_store_says_nothing_of_another(backups: Backups) -> None:
    crm = backups.source("crm", (CRM,))
    restored(backups, since=NIGHT)
    crm.dump(NIGHT - YEAR)
    crm.scan()
    backups.erase("ada", 1, stores=(CRM,))
    after(backups)
    crm.scan()
    backups.grade()
    assert backups.purged("ada")


def test_a_write_back_puts_the_last_copy_off_to_snapshots_before_the_second_erasure(
    backups: Backups, nightly: Source
) -> None:
    dump_now(backups, nightly)
    after(backups)
    backups.erase("ada", 1)
    backups.erase("bob", 2)
    after(backups, 30 * DAY)
    within = dump_now(backups, nightly)
    after(backups)
    nightly.scan()
    backups.grade()
    assert backups.gone_at("ada") == backups.gone_at("bob") == EXPIRY
    backups.ledger.append([Reerased(SITE, None, backups.true, 9, (1,))])
    after(backups)
    nightly.scan()
    backups.grade()
    assert backups.gone_at("bob") == EXPIRY
    assert backups.gone_at("ada") == nightly.record(within).expires_at(Period(6, 0))


@pytest.mark.parametrize("episode", [None, "e1"])
def test_who_was_purged_and_came_back_is_not_purged_any_more(
    backups: Backups, nightly: Source, episode: str | None
) -> None:
    erase_before_the_first_dump(backups, nightly)
    assert backups.purged("ada")
    after(backups, DAY)
    since = backups.true
    after(backups, MINUTE)
    within = dump_now(backups, nightly)
    after(backups, MINUTE)
    if episode is not None:
        restored(backups, since=since)
    backups.ledger.append([Reerased(SITE, episode, backups.true, 9, (1,))])
    assert not backups.purged("ada")
    if episode is not None:
        backups.ledger.append([SafeToServe(SITE, episode, backups.true)])
    after(backups)
    nightly.scan()
    backups.grade()
    assert backups.gone_at("ada") == nightly.record(within).expires_at(Period(6, 0))


# A copy that turns up after the proof


def test_who_was_purged_is_not_any_more_when_an_old_dump_turns_up(backups: Backups, nightly: Source) -> None:
    nightly.dump(backups.true - YEAR)
    nightly.scan()
    backups.erase("ada", 1)
    after(backups, DAY)
    backups.erase("bob", 2)
    after(backups, DAY)
    dump_now(backups, nightly)
    nightly.scan()
    backups.grade()
    assert backups.purged("ada")
    assert backups.purged("bob")
    found = nightly.dump(NIGHT.replace(microsecond=0) + HOUR)  # moved back: after ada, before bob
    nightly.scan()
    backups.grade()
    assert backups.purged("ada")
    assert not backups.purged("bob")
    assert backups.gone_at("bob") == nightly.record(found).expires_at(Period(6, 0))
    backups.true = nightly.record(found).expires_at(Period(6, 0)) + DAY
    dump_now(backups, nightly)
    nightly.scan()
    backups.grade()
    assert backups.purged("bob")


def test_a_new_dump_makes_nobody_doubtful(backups: Backups, nightly: Source) -> None:
    nightly.dump(backups.true - YEAR)
    nightly.scan()
    backups.erase("ada", 1)
    after(backups, DAY)
    nightly.scan()
    backups.grade()
    assert backups.purged("ada")
    after(backups, DAY)
    dump_now(backups, nightly)
    nightly.scan()
    assert backups.purged("ada")


# Clocks


def test_a_clock_that_was_set_back_does_not_date_the_proof_before_the_listing(
    backups: Backups, nightly: Source
) -> None:
    nightly.dump(backups.true - YEAR)
    nightly.scan()
    backups.erase("ada", 1)
    after(backups, DAY)
    nightly.scan()
    listed = backups.true
    backups.wrong = -YEAR
    backups.grade()
    assert backups.ledger.requests_by_id(["ada"])["ada"].purged_at == listed


def test_an_erasure_while_the_clock_is_a_year_behind_is_not_purged_too_soon(
    backups: Backups, nightly: Source
) -> None:
    dump_now(backups, nightly)
    nightly.scan()
    after(backups)
    backups.wrong = -YEAR
    backups.erase("ada", 1)
    backups.wrong = timedelta(0)
    after(backups)
    nightly.scan()
    backups.grade()
    assert not backups.purged("ada")


# Tombstones end


KEY, SUBJECT, EMAIL = "surrogate-key-90210", "opaque-subject-id-4711", "ada.lovelace@x.example"


class Tombs:
    """A person who was erased in August, told by everything that tells of persons."""

    def __init__(self, backups: Backups) -> None:
        self.backups, self.keyring = backups, backups.keyring
        created = backups.true
        self.orders = [
            ErasureOrder(
                "shop", "by-id", "uid-id", "spec one", created, subject_id=SUBJECT, reference="T-90"
            ),
            ErasureOrder(
                "shop", "by-email", "uid-mail", "spec two", created, identifier=email_identifier(EMAIL)
            ),
        ]
        self.fingerprints = [
            self.keyring.fingerprint("email", SITE, EMAIL),
            self.keyring.fingerprint("created-at", SITE, "2020-01-01"),
            self.keyring.fingerprint("identifier", "shop", "by-email", EMAIL),
        ]
        taken = self.apply()
        assert all(one.record is not None for one in taken)
        for number, order in enumerate(self.orders, 1):
            created_at, email = self.fingerprints[1], self.fingerprints[0]
            stone = Tombstone(number, order.uid, "users", f"{KEY}-{number}", "m1", created_at, email)
            intended = Intended(order.uid, SITE, (stone,))
            at = backups.true
            backups.ledger.append([intended, Verified(order.uid, SITE, at, {"users": 1})])
            backups.ledger.append([Completed(order.uid, at, Outcome.ERASED)])

    def apply(self) -> list[Intake]:
        taken = accept(
            self.orders,
            PassContext(self.backups.ledger, self.keyring, 1, lambda: self.backups.true),
            deadline=Period(1, 0),
            stores={"shop": [SITE]},
        )
        return list(taken.values())


def files_of(backups: Backups) -> bytes:
    return b"".join(one.read_bytes() for one in sorted(backups.home.glob("ledger.db*")))


def test_tombstones_expire_thirty_days_after_the_last_copy_and_leave_no_trace_of_who(
    backups: Backups, nightly: Source
) -> None:
    dump_now(backups, nightly)
    tombs = Tombs(backups)
    after(backups, DAY)
    nightly.scan()
    backups.grade()
    assert last_copy.expire_tombstones(backups.ledger, now=EXPIRY) == []

    backups.true = gone = EXPIRY + HOUR
    dump_now(backups, nightly)
    nightly.scan()
    assert backups.grade() == {"uid-id", "uid-mail"}
    with sqlite3.connect(backups.home / "ledger.db") as behind:
        wrapped = [row[0] for row in behind.execute("SELECT wrapped_key FROM period_keys ORDER BY period")]
        rows = "SELECT payload FROM entries WHERE period = '2026-08' AND payload IS NOT NULL"
        payloads = [row[0] for row in behind.execute(rows)]
    behind.close()
    secrets = [wrapped[0], *(one[:64] for one in payloads), *tombs.fingerprints[:2]]
    assert len(payloads) > 6
    in_files = files_of(backups)
    assert sum(one in in_files for one in secrets) > len(secrets) - 2  # so they can be found at all

    backups.true = gone + 30 * DAY
    assert "2026-08" not in last_copy.expire_tombstones(backups.ledger, now=backups.true)
    assert backups.ledger.tombstone_count(SITE) == 2
    backups.true += timedelta(microseconds=1)
    assert "2026-08" in last_copy.expire_tombstones(backups.ledger, now=backups.true)

    assert backups.ledger.verify() == backups.ledger.position()
    assert backups.ledger.tombstone_count(SITE) == 0
    in_files = files_of(backups)
    texts = [text.encode() for text in (KEY, SUBJECT, EMAIL, "T-90")]
    digests = [*tombs.fingerprints, *(one.hex().encode() for one in tombs.fingerprints)]
    assert not [one for one in (*secrets, *texts, *digests) if one in in_files]
    opened = everything_that_opens(backups)
    assert b"by-email" in opened  # that it was asked and done stays
    assert not [one for one in (*texts, *digests) if one in opened]

    # With a Secret nobody can tell any more whether it names the same person: nothing is claimed of it.
    assert [one.blocker is None for one in tombs.apply()] == [True, False]
    tombs.orders[1] = replace(tombs.orders[1], identifier=None)
    again = tombs.apply()
    assert [one.blocker for one in again] == [None, None]
    records = [one.record for one in again]
    assert all(one is not None and one.shredded and one.purged_at == gone for one in records)
    assert backups.ledger.open_requests() == []
    backups.restart()
    assert backups.ledger.verify() == backups.ledger.position()
    assert [one.record for one in tombs.apply()] == records
    assert last_copy.expire_tombstones(backups.ledger, now=backups.true) == []


def everything_that_opens(backups: Backups) -> bytes:
    """Return all that the keyring can still make of the ledger: its facts and its docs."""
    facts = [repr(fact) for _, _, fact in backups.real_ledger.facts() if fact is not None]
    known = backups.ledger
    names = [("shop", "by-id"), ("shop", "by-email")]
    docs: list[object] = [known.requests_named(names), known.snapshots(), known.sources(), known.episodes()]
    docs += [known.known_head(SITE), known.mappings(SITE), known.sealed(["uid-id", "uid-mail"])]
    docs += [stone for some in known.tombstones(SITE) for stone in some]
    return "\n".join([*facts, *map(repr, docs)]).encode()


def test_tombstones_do_not_end_while_a_single_copy_of_their_month_is_left(
    backups: Backups, nightly: Source
) -> None:
    backups.erase("ada", 1)
    after(backups)
    dump_now(backups, nightly)
    after(backups)
    backups.erase("bob", 2)
    after(backups, DAY)
    nightly.scan()
    backups.true = EXPIRY - DAY
    dump_now(backups, nightly)
    nightly.scan()
    backups.grade()
    backups.true = datetime(2028, 1, 1, tzinfo=UTC)  # nobody has looked since
    assert "2026-08" not in last_copy.expire_tombstones(backups.ledger, now=backups.true)
    assert backups.ledger.tombstone_count(SITE) == 2


def test_a_write_back_puts_off_the_end_of_tombstones(backups: Backups, nightly: Source) -> None:
    erase_before_the_first_dump(backups, nightly)
    after(backups, 20 * DAY)
    backups.ledger.append([Reerased(SITE, None, backups.true, 9, (1,))])
    after(backups, 40 * DAY)
    assert "2026-08" not in last_copy.expire_tombstones(backups.ledger, now=backups.true)
    dump_now(backups, nightly)
    nightly.scan()
    backups.grade()
    after(backups, 29 * DAY)
    assert "2026-08" not in last_copy.expire_tombstones(backups.ledger, now=backups.true)
    after(backups, 2 * DAY)
    assert "2026-08" in last_copy.expire_tombstones(backups.ledger, now=backups.true)


# What lies there and is no snapshot: empty dot files, what was left behind, names that tell local time


def left_behind(source: Source, name: str, at: datetime, content: str = "half a dump") -> Path:
    """Lay something down that was written last then."""
    path = source.path / name
    path.write_text(content)
    touch(path, at)
    return path


@pytest.mark.parametrize("name", [".gitkeep", ".nfs000000000a1b2c3d00000001"])
def test_an_empty_dot_file_does_not_matter(backups: Backups, nightly: Source, name: str) -> None:
    left_behind(nightly, name, backups.true, "")
    erase_before_the_first_dump(backups, nightly)
    assert backups.purged("ada")
    assert list(nightly.backend.list().partial) == []
    assert list(nightly.backend.list().unparsable) == []


def test_an_empty_dot_file_that_is_named_like_a_dump_is_one_that_begins(
    backups: Backups, nightly: Source
) -> None:
    left_behind(nightly, f".site-{backups.true:%Y%m%dT%H%M%SZ}.dump.Xa1b2c", backups.true, "")
    erase_before_the_first_dump(backups, nightly)
    assert not backups.purged("ada")


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("named", [True, False], ids=["its name tells", "its name tells nothing"])
def test_what_was_left_unfinished_puts_in_doubt_only_who_was_erased_since_it_began(
    backups: Backups, nightly: Source, restarted: bool, named: bool
) -> None:
    nightly.dump(backups.true - YEAR)
    nightly.scan()
    backups.erase("early", 1)
    after(backups, 40 * DAY)
    began = backups.true
    backups.erase("late", 2)
    name = f"site-{began:%Y%m%dT%H%M%SZ}.dump.part" if named else "pg_dump.tmp"
    part = left_behind(nightly, name, began + HOUR)
    after(backups, 2 * DAY)
    if restarted:
        backups.restart()
    nightly.scan()
    backups.grade()
    assert (backups.purged("early"), backups.purged("late")) == (True, False)
    (unfinished,) = nightly.scan().listing.partial
    assert unfinished.is_left_behind(backups.true)
    assert not unfinished.is_overdue(Period(6, 0), backups.true)
    backups.true = began + 300 * DAY
    (unfinished,) = nightly.scan().listing.partial
    assert unfinished.is_overdue(Period(6, 0), backups.true)
    assert part.exists()
    assert not backups.purged("late")
    part.unlink()
    nightly.dump(backups.true)
    nightly.scan()
    backups.grade()
    assert backups.purged("late")


@pytest.mark.parametrize("zone", [2, 14], ids=["CEST", "the easternmost"])
def test_a_dump_named_in_local_time_as_utc_holds_whom_it_held_when_it_began(
    backups: Backups, nightly: Source, zone: int
) -> None:
    nightly.dump(backups.true - YEAR)
    nightly.scan()
    backups.erase("early", 1)
    after(backups, 2 * DAY)
    began = backups.true
    after(backups, 5 * MINUTE)
    backups.erase("ada", 2)
    after(backups, 5 * MINUTE)
    dump = nightly.dump(began + zone * HOUR, mtime=backups.true)
    after(backups, (zone + 1) * HOUR)
    done = nightly.scan()
    backups.grade()
    assert [is_misdated(one) for one in done.listing.snapshots] == [True]
    assert backups.gone_at("ada") == nightly.record(dump).expires_at(Period(6, 0))
    assert backups.purged("early")


def test_a_name_that_no_zone_explains_may_hold_everybody(backups: Backups, nightly: Source) -> None:
    nightly.dump(backups.true - YEAR)
    nightly.scan()
    backups.erase("ada", 1)
    after(backups, 2 * DAY)
    nightly.dump(backups.true, mtime=backups.true - 15 * HOUR)
    nightly.scan()
    backups.grade()
    assert backups.gone_at("ada") is not None


def test_a_name_that_a_clock_or_a_later_end_explains_is_no_local_time(
    backups: Backups, nightly: Source
) -> None:
    after(backups, DAY)
    nightly.dump(backups.true, mtime=backups.true - timedelta(seconds=90))
    nightly.dump(backups.true - HOUR, mtime=backups.true)
    assert not any(is_misdated(one) for one in nightly.scan().listing.snapshots)
