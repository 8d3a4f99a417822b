"""Scans of a real directory over a real ledger: what dies, when, and what stops it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from lethe.domain.conditions.backupsnapshot import backupsnapshot_conditions
from lethe.domain.facts import (
    PruneIntended,
    SnapshotsDeleted,
    SnapshotsPurged,
    SnapshotsVanished,
)
from lethe.domain.periods import Period
from lethe.domain.pruning import PruneBlock, RetentionHold
from lethe.ports.backups import BackendUnavailable, DeletionResult, Listing
from lethe.workflows.backup.scan import AT_ONCE, Declared
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

MICROSECOND = timedelta(microseconds=1)


def facts_of(backups: Backups, *kinds: type) -> list[object]:
    return [fact for _, _, fact in backups.real_ledger.facts() if isinstance(fact, kinds)]


def test_a_listing_with_a_name_that_cannot_be_kept_is_its_sources_trouble(
    backups: Backups, nightly: Source
) -> None:
    nightly.dump(NIGHT)
    seen = nightly.backend.list()
    strange = replace(seen.snapshots[0], ref="site-\0.dump")
    with (
        patch.object(nightly.backend, "list", lambda: Listing([*seen.snapshots, strange])),
        pytest.raises(BackendUnavailable, match=r"begins with 'site-\\x00.dump' has a name"),
    ):
        nightly.scan()
    assert nightly.scan().listing.snapshots == seen.snapshots


# Expiry


def test_a_dump_dies_six_calendar_months_after_it_was_taken_and_not_a_moment_earlier(
    backups: Backups, nightly: Source
) -> None:
    dump = nightly.dump(NIGHT)
    for before in (NIGHT, NIGHT + 100 * DAY, EXPIRY - MINUTE, EXPIRY - MICROSECOND):
        backups.true = before
        done = nightly.scan()
        assert (done.plan.to_delete, nightly.names) == ((), [dump.name])
        assert done.next == (nightly.record(dump), EXPIRY)
    backups.true = EXPIRY
    done = nightly.scan()
    assert (done.deleted, done.purged, nightly.names) == ([dump.name], [dump.name], [])
    assert (nightly.record(dump).deleted_at, nightly.record(dump).purged_at) == (EXPIRY, EXPIRY)


def test_a_dump_that_became_due_while_nobody_looked_goes_at_the_first_scan(
    backups: Backups, nightly: Source
) -> None:
    dump = nightly.dump(NIGHT)
    nightly.scan()
    backups.true = EXPIRY + 90 * DAY
    backups.restart()
    assert nightly.scan().purged == [dump.name]


def test_a_source_may_ask_for_less(backups: Backups) -> None:
    weekly = backups.source("weekly", retention="P1W")
    dump = weekly.dump(NIGHT)
    backups.true = NIGHT + 7 * DAY - MICROSECOND
    assert weekly.scan().purged == []
    backups.true += MICROSECOND
    assert weekly.scan().purged == [dump.name]


def test_a_source_that_asks_for_more_than_the_policy_prunes_nothing_and_says_so(
    backups: Backups, nightly: Source
) -> None:
    nightly.say(retention="P12M", too_long=True)
    nightly.dump(NIGHT)
    nightly.scan()
    backups.true = EXPIRY + 2 * YEAR
    done = nightly.scan()
    assert (done.plan.waits, done.plan.to_delete, len(nightly.names)) == (
        PruneBlock.RETENTION_TOO_LONG,
        (),
        1,
    )
    assert "LETHE_RETENTION" in done.plan.message


# Every evidence of a snapshot's date must be past retention


def test_an_old_name_over_a_new_modification_time_is_kept(backups: Backups, nightly: Source) -> None:
    dump = nightly.dump(NIGHT, mtime=NIGHT + 40 * DAY)
    backups.true = EXPIRY + 39 * DAY
    assert nightly.scan().purged == []
    backups.true = datetime(2027, 4, 10, 3, tzinfo=UTC)  # six months after 10 October
    assert nightly.scan().purged == [dump.name]


def test_a_new_name_over_an_old_modification_time_is_kept(backups: Backups, nightly: Source) -> None:
    dump = nightly.dump(NIGHT, mtime=NIGHT - YEAR)
    backups.true = EXPIRY - MINUTE
    assert nightly.scan().purged == []
    backups.true = EXPIRY
    assert nightly.scan().purged == [dump.name]


def test_a_date_that_somebody_applied_lets_a_snapshot_live_longer(backups: Backups, nightly: Source) -> None:
    dump = nightly.dump(NIGHT)
    backups.true = NIGHT + 20 * DAY
    later = [Declared(dump.name, NIGHT + 10 * DAY)]
    nightly.scan(declared=later)
    backups.true = EXPIRY + 9 * DAY
    assert nightly.scan(declared=later).purged == []
    backups.true = datetime(2027, 3, 10, 3, tzinfo=UTC)
    assert nightly.scan(declared=later).purged == [dump.name]


def test_a_declared_date_outlives_its_declaration(backups: Backups, nightly: Source) -> None:
    dump = nightly.dump(NIGHT)
    backups.true = NIGHT + 20 * DAY
    nightly.scan(declared=[Declared(dump.name, NIGHT + 10 * DAY)])
    backups.true = EXPIRY + 9 * DAY
    backups.restart()
    assert nightly.scan().purged == []


def test_an_earlier_date_that_somebody_applied_has_no_effect(backups: Backups, nightly: Source) -> None:
    dump = nightly.dump(NIGHT)
    earlier = [Declared(dump.name, NIGHT - YEAR)]
    nightly.scan(declared=earlier)
    before = backups.ledger.position()
    assert nightly.scan(declared=earlier).purged == []
    assert backups.ledger.position() == before
    backups.true = EXPIRY - MINUTE
    assert nightly.scan(declared=earlier).purged == []
    assert nightly.record(dump).declared_at is None


def test_an_earlier_date_applied_before_the_dump_was_seen_has_no_effect(
    backups: Backups, nightly: Source
) -> None:
    declared = [Declared(f"site-{NIGHT:%Y%m%dT%H%M%SZ}.dump", NIGHT - YEAR)]
    nightly.scan(declared=declared)
    dump = nightly.dump(NIGHT)
    nightly.scan(declared=declared)
    backups.true = EXPIRY - MINUTE
    assert nightly.scan(declared=declared).purged == []
    backups.true = EXPIRY
    assert nightly.scan(declared=declared).purged == [dump.name]


@pytest.mark.parametrize("way", ["name", "mtime", "declared"])
def test_a_date_of_the_far_future_is_capped_by_when_the_snapshot_was_first_seen(
    backups: Backups, nightly: Source, way: str
) -> None:
    far = NIGHT + 20 * YEAR
    dump = nightly.dump(far if way == "name" else NIGHT, mtime=far if way == "mtime" else NIGHT)
    declared = [Declared(dump.name, far)] if way == "declared" else []
    backups.true = NIGHT + 9 * HOUR
    nightly.scan(declared=declared)
    backups.true = EXPIRY + 9 * HOUR - MICROSECOND
    assert nightly.scan(declared=declared).purged == []
    backups.true = EXPIRY + 9 * HOUR
    assert nightly.scan(declared=declared).purged == [dump.name]


def test_a_modification_time_set_back_after_it_was_seen_does_not_shorten_a_life(
    backups: Backups, nightly: Source
) -> None:
    dump = nightly.dump(NIGHT, mtime=NIGHT + 5 * DAY)
    backups.true = NIGHT + 6 * DAY
    nightly.scan()
    touch(dump, NIGHT - YEAR)
    backups.true = EXPIRY + DAY
    assert nightly.scan().purged == []
    assert nightly.names == [dump.name]


# Pruning: intended, deleted and proven gone are facts of their own


def test_intent_deletion_and_proof_are_recorded_in_this_order(backups: Backups, nightly: Source) -> None:
    dump = nightly.dump(NIGHT)
    nightly.scan()
    backups.true = EXPIRY
    nightly.scan()
    name = nightly.known.name
    assert facts_of(backups, PruneIntended, SnapshotsDeleted, SnapshotsPurged) == [
        PruneIntended(name, EXPIRY, (dump.name,)),
        SnapshotsDeleted(name, EXPIRY, (dump.name,)),
        SnapshotsPurged(name, EXPIRY, (dump.name,)),
    ]


def test_a_scan_that_finds_nothing_new_writes_nothing(backups: Backups, nightly: Source) -> None:
    nightly.dump(NIGHT)
    nightly.scan()
    before = backups.ledger.position()
    for _ in range(3):
        backups.true += HOUR
        assert not nightly.scan().changed
    backups.restart()
    assert not nightly.scan().changed
    after = backups.ledger.position().sequence
    assert after == before.sequence + 1  # that a new process took over


def test_a_deletion_that_is_refused_is_told_and_tried_again(backups: Backups, nightly: Source) -> None:
    dump = nightly.dump(NIGHT)
    other = nightly.path / "other-name"
    other.hardlink_to(dump)
    backups.true = EXPIRY
    done = nightly.scan()
    assert done.problems[dump.name].result is DeletionResult.FAILED
    assert (done.failed, done.deleted, done.purged) == (1, [], [])
    assert (nightly.record(dump).deleted_at, nightly.record(dump).purged_at) == (None, None)
    other.unlink()
    assert nightly.scan().purged == [dump.name]


def test_what_comes_to_lie_there_between_deletion_and_proof_is_not_called_gone(
    backups: Backups, nightly: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = nightly.dump(NIGHT)
    backups.true = EXPIRY
    delete = nightly.backend.delete
    monkeypatch.setattr(
        nightly.backend, "delete", lambda pins: [delete(pins), dump.write_text("once more")][0]
    )
    done = nightly.scan()
    assert (done.deleted, done.purged) == ([dump.name], [])
    record = nightly.record(dump)
    assert (record.deleted_at, record.purged_at) == (EXPIRY, None)
    assert "lies in the directory" in done.problems[dump.name].message


def test_partial_dumps_and_names_that_do_not_parse_are_told_and_never_deleted(
    backups: Backups, nightly: Source
) -> None:
    dump = nightly.dump(NIGHT)
    others = {"site.dump", f"{dump.name}.tmp", ".hidden", "notes.txt"}
    for name in others:
        touch_new(nightly.path / name, NIGHT - YEAR)
    (nightly.path / "site-20200101T000000Z.dump").symlink_to(nightly.path / "notes.txt")
    backups.true = EXPIRY
    done = nightly.scan()
    assert done.purged == [dump.name]
    assert sorted(done.listing.unparsable) == ["notes.txt", "site-20200101T000000Z.dump", "site.dump"]
    assert {one.name for one in done.listing.partial} == {".hidden", f"{dump.name}.tmp"}
    assert set(nightly.names) == others | {"site-20200101T000000Z.dump"}


def touch_new(path: Path, at: datetime) -> None:
    path.write_text("x")
    touch(path, at)


# Identity


def test_what_was_replaced_between_scan_and_deletion_is_not_deleted(
    backups: Backups, nightly: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = nightly.dump(NIGHT)
    backups.true = EXPIRY
    listed = nightly.backend.list

    def list_then_replace() -> Listing:
        listing = listed()
        dump.write_text("something else of another size")
        touch(dump, NIGHT)
        return listing

    with monkeypatch.context() as patched:
        patched.setattr(nightly.backend, "list", list_then_replace)
        done = nightly.scan()
    assert done.problems[dump.name].result is DeletionResult.IDENTITY_MISMATCH
    assert dump.read_text() == "something else of another size"
    done = nightly.scan()
    assert (done.plan.to_delete, nightly.record(dump).replaced) == ((), True)
    assert done.next is not None
    assert done.next[1] == datetime(2027, 8, 28, 3, tzinfo=UTC)


@pytest.mark.parametrize("as_old_as", [NIGHT, NIGHT - YEAR, NIGHT + DAY], ids=["same", "older", "newer"])
def test_what_was_replaced_with_old_dates_counts_from_when_that_was_seen(
    backups: Backups, nightly: Source, as_old_as: datetime
) -> None:
    dump = nightly.dump(NIGHT)
    backups.true = NIGHT + 100 * DAY
    nightly.scan()
    dump.write_text("put there by cp -p today")
    touch(dump, as_old_as)
    backups.true = seen = datetime(2026, 12, 20, tzinfo=UTC)
    nightly.scan()
    assert nightly.record(dump).replaced
    backups.true = EXPIRY + 2 * DAY
    assert nightly.scan().purged == []
    backups.true = datetime(2027, 6, 20, tzinfo=UTC) - MICROSECOND
    assert nightly.scan().purged == []
    backups.true = datetime(2027, 6, 20, tzinfo=UTC)
    assert nightly.scan().purged == [dump.name]
    assert seen < EXPIRY


def test_what_was_replaced_while_known_counts_from_then_whatever_its_new_date(
    backups: Backups, nightly: Source
) -> None:
    dump = nightly.dump(NIGHT)
    for day in range(1, 60):
        backups.true = NIGHT + day * DAY
        nightly.scan()
    dump.write_text("put there today, says to be a month old")
    touch(dump, NIGHT + 30 * DAY)
    nightly.scan()
    backups.true = datetime(2027, 3, 30, 3, tzinfo=UTC)  # six months after what it says
    assert nightly.scan().purged == []
    backups.true = datetime(2027, 4, 29, 3, tzinfo=UTC)
    assert nightly.scan().purged == [dump.name]


def test_a_dump_that_is_still_being_written_under_its_name_is_not_called_replaced(
    backups: Backups, nightly: Source
) -> None:
    dump = nightly.dump(NIGHT, "begin", mtime=NIGHT)
    backups.true = NIGHT + MINUTE
    nightly.scan()
    nightly.dump(NIGHT, "begin and end", mtime=NIGHT + 2 * MINUTE)
    backups.true = NIGHT + 5 * MINUTE
    nightly.scan()
    assert not nightly.record(dump).replaced


# Vanishing


def both_of_old_and_new(backups: Backups, nightly: Source) -> tuple[Path, Path]:
    backups.true = NIGHT + 150 * DAY
    both = nightly.dump(NIGHT), nightly.dump(backups.true)
    nightly.scan()
    return both


def test_a_vanished_snapshot_counts_until_its_expiry_and_is_proven_gone_then(
    backups: Backups, nightly: Source
) -> None:
    dump, other = both_of_old_and_new(backups, nightly)
    dump.unlink()
    backups.true = NIGHT + 155 * DAY
    nightly.scan()
    record = nightly.record(dump)
    assert (record.vanished_at, record.live, record.present) == (backups.true, True, False)
    backups.true = EXPIRY - MICROSECOND
    assert nightly.scan().purged == []
    backups.true = EXPIRY
    done = nightly.scan()
    assert (done.deleted, done.purged, nightly.names) == ([], [dump.name], [other.name])
    assert (nightly.record(dump).deleted_at, nightly.record(dump).purged_at) == (None, EXPIRY)


def test_a_vanished_snapshot_that_comes_back_is_there_again_and_dies_in_time(
    backups: Backups, nightly: Source, tmp_path: Path
) -> None:
    dump, _ = both_of_old_and_new(backups, nightly)
    away = tmp_path / "away"
    shutil.copy2(dump, away)
    dump.unlink()
    backups.true = NIGHT + 155 * DAY
    nightly.scan()
    shutil.copy2(away, dump)
    nightly.scan()
    record = nightly.record(dump)
    assert (record.vanished_at, record.present, record.replaced) == (None, True, False)
    backups.true = EXPIRY
    done = nightly.scan()
    assert (done.deleted, done.purged, dump.exists()) == ([dump.name], [dump.name], False)


def test_what_comes_back_as_something_else_after_the_listing_is_not_called_gone(
    backups: Backups, nightly: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump, _ = both_of_old_and_new(backups, nightly)
    dump.unlink()
    backups.true = NIGHT + 155 * DAY
    nightly.scan()
    backups.true = EXPIRY
    listed = nightly.backend.list
    monkeypatch.setattr(nightly.backend, "list", lambda: [listed(), dump.write_text("back, and another")][0])
    done = nightly.scan()
    assert done.problems[dump.name].result is DeletionResult.IDENTITY_MISMATCH
    assert (done.purged, dump.exists()) == ([], True)


@pytest.mark.parametrize("intended", [False, True], ids=["not due", "due, and could not be deleted"])
@pytest.mark.parametrize("again", [False, True], ids=["same process", "after a restart"])
def test_an_empty_listing_where_something_was_concludes_nothing(
    backups: Backups, nightly: Source, intended: bool, again: bool
) -> None:
    dump = nightly.dump(NIGHT)
    (nightly.path / "keeps").hardlink_to(dump)  # so it can't be deleted yet
    backups.erase("ada", 1)
    nightly.scan()
    if intended:
        backups.true = EXPIRY
        assert nightly.scan().failed == 1
    before = nightly.record(dump)
    mounted = nightly.path.rename(backups.home / "volume")
    nightly.path.mkdir()
    if again:
        backups.restart()
    backups.true = EXPIRY + 100 * DAY
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="is the right volume mounted"):
            nightly.scan()
    backups.grade()
    assert backups.known_again(nightly) == {dump.name: before}
    assert not backups.purged("ada")
    nightly.path.rmdir()
    mounted.rename(nightly.path)
    (nightly.path / "keeps").unlink()
    assert nightly.scan().purged == [dump.name]


def test_a_vanished_snapshot_does_not_stop_the_scans_of_a_rightly_empty_source(
    backups: Backups, nightly: Source
) -> None:
    backups.true = NIGHT + 15 * DAY
    vanishes, last = nightly.dump(NIGHT + 10 * DAY), nightly.dump(NIGHT)
    nightly.scan()
    vanishes.unlink()
    backups.true = NIGHT + 20 * DAY
    nightly.scan()
    backups.true = EXPIRY
    assert nightly.scan().purged == [last.name]
    backups.true = datetime(2027, 3, 10, 3, tzinfo=UTC)
    assert nightly.scan().purged == [vanishes.name]


def test_a_listing_that_fails_concludes_nothing(
    backups: Backups, nightly: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    dumps = [nightly.dump(NIGHT + n * DAY) for n in range(3)]
    nightly.scan()
    before, scanned = backups.known_again(nightly), nightly.known.scanned_at
    backups.true = EXPIRY + 30 * DAY
    status, asked = nightly.backend._status, list[str]()

    def fails_midway(directory: int, name: str) -> object:
        asked.append(name)
        if len(asked) == 2:
            raise BackendUnavailable("the volume went away")
        return status(directory, name)

    monkeypatch.setattr(nightly.backend, "_status", fails_midway)
    with pytest.raises(BackendUnavailable):
        nightly.scan()
    assert backups.known_again(nightly) == before
    assert nightly.known.scanned_at == scanned
    assert nightly.names == sorted(one.name for one in dumps)


def test_a_directory_that_is_not_there_concludes_nothing(backups: Backups, nightly: Source) -> None:
    dump = nightly.dump(NIGHT)
    nightly.scan()
    shutil.rmtree(nightly.path)
    backups.true = EXPIRY + DAY
    with pytest.raises(Exception, match="is the volume mounted"):
        nightly.scan()
    assert backups.known_again(nightly)[dump.name].live


# What waits


def test_the_only_snapshot_left_is_held_and_a_newer_one_frees_it(backups: Backups, nightly: Source) -> None:
    nightly.say(hold_last=True)
    older, newest = nightly.dump(NIGHT), nightly.dump(NIGHT + DAY)
    backups.true = EXPIRY + 50 * DAY
    done = nightly.scan()
    assert (done.purged, nightly.names) == ([older.name], [newest.name])
    done = nightly.scan()
    assert (done.plan.held, done.plan.to_delete) == ({newest.name: RetentionHold.LAST_SNAPSHOT}, ())
    fresh = nightly.dump(backups.true)
    assert nightly.scan().purged == [newest.name]
    assert nightly.names == [fresh.name]


def test_a_vanished_snapshot_is_not_the_one_that_is_left(backups: Backups, nightly: Source) -> None:
    nightly.say(hold_last=True)
    older, newest = nightly.dump(NIGHT), nightly.dump(NIGHT + DAY)
    nightly.scan()
    newest.unlink()
    backups.true = EXPIRY + 50 * DAY
    nightly.scan()
    assert nightly.names == [older.name]


def test_the_only_snapshot_left_goes_where_the_source_says_so(backups: Backups, nightly: Source) -> None:
    nightly.say(hold_last=True)
    dump = nightly.dump(NIGHT)
    backups.true = EXPIRY
    assert nightly.scan().purged == []
    nightly.say(hold_last=False)
    assert nightly.scan().purged == [dump.name]


def test_more_than_allowed_at_once_waits_until_a_person_names_the_count(
    backups: Backups, nightly: Source
) -> None:
    nightly.say(most_per_run=2)
    for n in range(3):
        nightly.dump(NIGHT + n * HOUR)
    backups.true = EXPIRY + DAY
    done = nightly.scan()
    assert (done.plan.waits, done.plan.due, len(nightly.names)) == (PruneBlock.AWAITING_CONFIRMATION, 3, 3)
    assert "set spec.confirmPrunes to 3" in done.plan.message
    nightly.say(confirm_prunes=2)
    assert nightly.scan().plan.waits is PruneBlock.AWAITING_CONFIRMATION
    nightly.say(confirm_prunes=3)
    assert len(nightly.scan().purged) == 3


def test_as_many_as_allowed_go_without_asking(backups: Backups, nightly: Source) -> None:
    nightly.say(most_per_run=3)
    for n in range(3):
        nightly.dump(NIGHT + n * HOUR)
    backups.true = EXPIRY + DAY
    assert len(nightly.scan().purged) == 3


def test_a_used_confirmation_deletes_nothing_again_and_another_can_be_given(
    backups: Backups, nightly: Source
) -> None:
    nightly.say(most_per_run=1, confirm_prunes=3)
    for n in range(3):
        nightly.dump(NIGHT + n * HOUR)
    backups.true = EXPIRY + DAY
    assert len(nightly.scan().purged) == 3
    for n in range(3):
        nightly.dump(NIGHT + 2 * DAY + n * HOUR, mtime=NIGHT)
    backups.true = EXPIRY + 9 * DAY
    assert nightly.scan().plan.waits is PruneBlock.AWAITING_CONFIRMATION
    backups.restart()
    done = nightly.scan()
    assert (done.plan.waits, len(nightly.names)) == (PruneBlock.AWAITING_CONFIRMATION, 3)
    told = int(done.plan.message.rpartition(" ")[2])
    nightly.say(confirm_prunes=told)
    assert len(nightly.scan().purged) == 3


def test_a_confirmed_backlog_cut_off_anywhere_goes_on_and_its_confirmation_is_used(
    make_backups: Callable[[], Backups], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lethe.workflows.backup.scan.AT_ONCE", 2)
    for moment in range(1, 99):
        backups = make_backups()
        nightly = backups.source(most_per_run=2, confirm_prunes=5)
        for n in range(5):
            nightly.dump(NIGHT + n * HOUR)
        keeps = nightly.dump(EXPIRY)
        backups.true = EXPIRY + DAY
        cut = backups.cut_at(moment, nightly)
        nightly.scan()
        assert nightly.names == [keeps.name], backups.fuse.names
        for n in range(3):
            nightly.dump(NIGHT + n * HOUR + MINUTE)
        assert nightly.scan().plan.waits is PruneBlock.AWAITING_CONFIRMATION, backups.fuse.names
        assert len(nightly.names) == 4
        if not cut:
            assert backups.fuse.names.count("after delete") == 3
            return
    pytest.fail("it never came to the end")


def test_a_suspended_source_is_listed_and_loses_nothing(backups: Backups, nightly: Source) -> None:
    nightly.say(suspended=True)
    dump = nightly.dump(NIGHT)
    backups.true = EXPIRY + DAY
    done = nightly.scan()
    assert (done.plan.waits, nightly.names) == (PruneBlock.SUSPENDED, [dump.name])
    assert done.plan.next == (nightly.record(dump), EXPIRY)
    nightly.say(suspended=False)
    assert nightly.scan().purged == [dump.name]


def test_a_legal_hold_of_one_store_keeps_every_snapshot_that_holds_it(backups: Backups) -> None:
    both = backups.source("both", (SITE, CRM))
    dump = both.dump(NIGHT)
    both.scan()
    both.say(stores=(CRM,))
    only_crm = both.dump(NIGHT + HOUR)
    backups.true = EXPIRY + DAY
    backups.hold(SITE)
    done = both.scan()
    assert (done.plan.held, done.purged) == ({dump.name: RetentionHold.LEGAL_HOLD}, [only_crm.name])
    backups.let_go()
    backups.hold("shop/elsewhere", name="le-2")
    assert both.scan().purged == [dump.name]


def test_a_hold_of_which_nobody_may_be_told_keeps_as_well_and_says_nothing(backups: Backups) -> None:
    nightly = backups.source()
    dump = nightly.dump(NIGHT)
    nightly.scan()
    backups.hold(secretly=True)
    backups.true = EXPIRY + DAY
    done = nightly.scan()
    assert (done.plan.held, done.purged) == ({dump.name: RetentionHold.UNSAID}, [])
    told = backupsnapshot_conditions(
        nightly.record(dump), Period(6, 0), now=backups.true, held=done.plan.held[dump.name]
    )
    assert "hold" not in " ".join(one.message for one in told.conditions)


def test_a_hold_that_comes_while_a_source_prunes_keeps_what_is_still_there(backups: Backups) -> None:
    nightly = backups.source(most_per_run=500)
    dumps = [nightly.dump(NIGHT + n * MINUTE) for n in range(AT_ONCE + 1)]
    nightly.scan()
    backups.true = EXPIRY + DAY
    delete = nightly.backend.delete

    def deleting(pins: Any) -> Any:
        backups.hold(SITE)
        return delete(pins)

    with patch.object(nightly.backend, "delete", deleting):
        done = nightly.scan()
    assert len(done.purged) == AT_ONCE
    assert nightly.names == [dumps[-1].name]
    assert nightly.scan().purged == []


def test_a_hold_of_another_namespace_keeps_nothing_here(backups: Backups, nightly: Source) -> None:
    dump = nightly.dump(NIGHT)
    nightly.scan()
    backups.hold(namespace="shopping")
    backups.hold("shopping/site", name="le-2", namespace="shopping")
    backups.true = EXPIRY + DAY
    done = nightly.scan()
    assert (done.plan.held, done.purged) == ({}, [dump.name])


def test_a_hold_of_a_store_keeps_its_snapshots_in_every_source_that_holds_it(backups: Backups) -> None:
    sources = [
        backups.source("nightly", hold_last=False),
        backups.source("weekly", (CRM, SITE), hold_last=False),
        backups.source("crm", (CRM,), hold_last=False),
    ]
    for one in sources:
        one.dump(NIGHT)
        one.scan()
    backups.true = EXPIRY + DAY
    backups.hold(SITE)
    backups.hold(CRM, name="le-2", secretly=True)
    # That somebody else is held there in secret hides nothing, in whatever order they are read.
    backups.hold(SITE, name="le-3", secretly=True)
    held = [list(one.scan().plan.held.values()) for one in sources]
    backups.let_go("le-3")
    assert held == [[RetentionHold.LEGAL_HOLD], [RetentionHold.LEGAL_HOLD], [RetentionHold.UNSAID]]
    backups.let_go()
    assert [len(one.scan().purged) for one in sources] == [1, 0, 0]
    assert list(sources[1].scan().plan.held.values()) == [RetentionHold.UNSAID]
    backups.let_go("le-2")
    assert [len(one.scan().purged) for one in sources] == [0, 1, 1]


def test_a_hold_outlives_the_loss_of_the_process_and_what_it_kept_goes_once_it_ends(
    backups: Backups, nightly: Source
) -> None:
    dump = nightly.dump(NIGHT)
    nightly.scan()
    backups.hold()
    backups.true = EXPIRY + DAY
    backups.restart()
    assert nightly.scan().plan.held == {dump.name: RetentionHold.LEGAL_HOLD}
    assert nightly.names == [dump.name]
    backups.let_go()
    assert nightly.scan().purged == [dump.name]


def test_what_goes_next_and_when_is_always_told(backups: Backups, nightly: Source) -> None:
    dumps = [nightly.dump(NIGHT + n * DAY) for n in range(3)]
    backups.true = EXPIRY
    done = nightly.scan()
    assert done.purged == [dumps[0].name]
    assert done.next is not None
    # 1 September has no end of February to be cut to.
    assert (done.next[0].ref, done.next[1]) == (dumps[1].name, datetime(2027, 3, 1, 3, tzinfo=UTC))


def test_a_deleted_source_that_is_applied_again_knows_its_snapshots(
    backups: Backups, nightly: Source
) -> None:
    dump = nightly.dump(NIGHT, mtime=NIGHT)
    nightly.scan(declared=[])
    before = nightly.record(dump)
    nightly.connect()
    backups.true += DAY
    assert not nightly.scan().changed
    assert nightly.record(dump) == before


def test_an_edited_list_of_stores_adds_to_what_snapshots_hold_and_takes_nothing_away(
    backups: Backups, nightly: Source
) -> None:
    dump = nightly.dump(NIGHT)
    nightly.scan()
    nightly.say(stores=(SITE, CRM))
    nightly.scan()
    assert nightly.record(dump).stores == (SITE, CRM)
    nightly.say(stores=(CRM,))
    nightly.scan()
    assert nightly.record(dump).stores == (SITE, CRM)


# Clocks


JUMPS = [
    pytest.param(wrong, server, id=f"{wrong.days} days, server {server.days}")
    for wrong in (YEAR, -YEAR)
    for server in (timedelta(0), wrong)
]


@pytest.mark.parametrize(("wrong", "server_wrong"), JUMPS)
def test_a_clock_that_jumps_by_a_year_between_two_scans_deletes_nothing_wrongly(
    backups: Backups, nightly: Source, wrong: timedelta, server_wrong: timedelta
) -> None:
    dumps = [nightly.dump(NIGHT)]
    nightly.scan()
    backups.true += 10 * DAY
    backups.wrong, backups.server_wrong = wrong, server_wrong
    dumps.append(nightly.dump(backups.true))
    done = nightly.scan(declared=[Declared(dumps[0].name, NIGHT + DAY)])
    assert (done.plan.waits, done.purged, len(nightly.names)) == (PruneBlock.CLOCKS_DISAGREE, [], 2)
    assert list(backups.known_again(nightly)) == [dumps[0].name]
    backups.true += HOUR
    backups.wrong = backups.server_wrong = timedelta(0)
    nightly.scan()
    assert nightly.record(dumps[1]).first_seen_at == backups.true
    _all_die_on_their_days(backups, nightly, of=2)


@pytest.mark.parametrize("at", ["began", "listed"])
@pytest.mark.parametrize("wrong", [YEAR, -YEAR])
def test_a_clock_that_is_corrected_during_a_scan_deletes_nothing_wrongly(
    backups: Backups, nightly: Source, wrong: timedelta, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nightly.dump(NIGHT)
    nightly.scan()
    backups.true += 10 * DAY
    nightly.dump(backups.true)
    listed = nightly.backend.list

    def listed_as_the_clock_changes() -> Listing:
        listing = listed()
        backups.wrong = wrong - backups.wrong
        return listing

    backups.wrong = wrong if at == "began" else timedelta(0)
    with monkeypatch.context() as patched:
        patched.setattr(nightly.backend, "list", listed_as_the_clock_changes)
        nightly.scan()
    assert len(nightly.names) == 2
    backups.wrong = timedelta(0)
    scanned = nightly.known.scanned_at
    assert scanned is None or scanned <= backups.true
    nightly.scan()
    _all_die_on_their_days(backups, nightly, of=2)


def test_a_process_that_begins_with_all_clocks_a_year_behind_dates_nothing_back(
    backups: Backups, nightly: Source
) -> None:
    nightly.dump(NIGHT)
    nightly.scan()
    backups.true += 10 * DAY
    fresh = nightly.dump(backups.true)
    backups.wrong = backups.server_wrong = -YEAR
    backups.restart()
    nightly.scan()
    backups.true += HOUR
    backups.wrong = backups.server_wrong = timedelta(0)
    backups.restart()
    backups.true = EXPIRY - MINUTE
    nightly.scan()
    # No later than the newest sight that was noted is known for sure: that shortens its life by ten days.
    assert nightly.record(fresh).first_seen_at == NIGHT
    assert len(nightly.names) == 2


def test_a_process_that_began_with_all_clocks_a_year_ahead_leaves_nothing_wrong(
    backups: Backups, nightly: Source
) -> None:
    nightly.say(hold_last=True, most_per_run=1)
    backups.wrong = backups.server_wrong = YEAR
    backups.restart()
    for n in (0, 5, 10):
        nightly.dump(NIGHT - n * DAY)
    nightly.scan()
    assert len(nightly.names) == 3  # the brake holds, whatever the clocks say
    backups.wrong = backups.server_wrong = timedelta(0)
    backups.restart()
    nightly.scan()
    nightly.say(hold_last=False)
    _all_die_on_their_days(backups, nightly, of=3)


def _all_die_on_their_days(backups: Backups, nightly: Source, *, of: int) -> None:
    """Let each of so many dumps live to the last moment that its name gives it."""
    assert len(nightly.names) == of
    by_name = {name: datetime.strptime(name, "site-%Y%m%dT%H%M%S%z.dump") for name in nightly.names}
    for name, taken_at in sorted(by_name.items(), key=lambda one: one[1]):
        expiry = Period(6, 0).after(taken_at)
        backups.true = expiry - MINUTE
        nightly.scan()
        assert name in nightly.names
        backups.true = expiry
        nightly.scan()
        assert name not in nightly.names


def test_without_a_second_clock_nothing_goes(backups: Backups, nightly: Source) -> None:
    nightly.dump(NIGHT)
    nightly.scan()
    backups.true = EXPIRY
    backups.server_tells = False
    done = nightly.scan()
    assert (done.plan.waits, len(nightly.names)) == (PruneBlock.CLOCKS_DISAGREE, 1)
    assert "no second clock" in done.plan.message


# Crashes


@pytest.mark.parametrize("hold_last", [True, False])
def test_a_scan_that_dies_at_any_moment_goes_on_and_touches_nothing_else(
    make_backups: Callable[[], Backups], hold_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lethe.workflows.backup.scan.AT_ONCE", 2)
    for moment in range(1, 99):
        backups = make_backups()
        nightly = backups.source(hold_last=hold_last)
        due = [nightly.dump(NIGHT + n * HOUR) for n in range(3)]
        stays = nightly.dump(EXPIRY)
        vanishes = nightly.dump(EXPIRY + MINUTE)
        backups.true = EXPIRY - HOUR
        nightly.scan()
        vanishes.unlink()
        backups.true = EXPIRY + DAY
        cut = backups.cut_at(moment, nightly)
        nightly.scan()
        assert nightly.names == [stays.name], backups.fuse.names
        for dump in due:
            record = nightly.record(dump)
            assert record.deleted_at == record.purged_at == backups.true, backups.fuse.names
        vanished = [ref for fact in facts_of(backups, SnapshotsVanished) for ref in fact.refs]  # type: ignore[attr-defined]
        assert vanished == [vanishes.name], backups.fuse.names
        assert not nightly.scan().changed
        backups.real_ledger.verify()
        if not cut:
            assert backups.fuse.names.count("after append") >= 4
            assert backups.fuse.names.count("after gone") == 1
            return
    pytest.fail("it never came to the end")


def test_a_last_snapshot_deleted_in_a_crash_is_proven_gone_once_a_listing_shows_any(
    make_backups: Callable[[], Backups],
) -> None:
    for moment in range(1, 99):
        backups = make_backups()
        nightly = backups.source()
        dump = nightly.dump(NIGHT)
        nightly.scan()
        backups.true = EXPIRY
        cut = backups.cut_at(moment, nightly)
        if cut and backups.fuse.names[-1] == "after delete":
            with pytest.raises(BackendUnavailable, match="empty"):  # Lethe, or no volume? Nobody can tell.
                nightly.scan()
        backups.true += DAY
        fresh = nightly.dump(backups.true)
        nightly.scan()
        record = nightly.record(dump)
        assert None not in (record.deleted_at, record.purged_at), backups.fuse.names
        assert record.vanished_at is None, backups.fuse.names
        assert nightly.names == [fresh.name]
        if not cut:
            break
