"""What is known of snapshots, when they die, and whom they hold."""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lethe.domain.facts import (
    ListedSnapshot,
    PruneIntended,
    PrunesConfirmed,
    SnapshotDeclared,
    SnapshotFact,
    SnapshotsDeleted,
    SnapshotsPurged,
    SnapshotsSeen,
    SnapshotsVanished,
    SourceDescribed,
)
from lethe.domain.periods import Period, instant
from lethe.domain.snapshots import (
    CLOCK_SKEW,
    NO_BACKUPS,
    UNKNOWN_START,
    CopiesLeft,
    CopyStep,
    DirtyWindow,
    HoldingSnapshot,
    SnapshotRecord,
    SourceRecord,
    copy_steps,
    earlier,
    evolve_snapshots,
    evolve_source,
    holding_snapshots,
    is_recordable,
    needs_recording,
)

AGES = timedelta(days=365 * 3000)
SIX_MONTHS = Period.parse("P6M")
NOW = datetime(2026, 11, 3, 9, 30, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
SOURCE = "shop/nightly"

MOMENTS = st.integers(1_577_836_800, 2_524_608_000).map(lambda second: datetime.fromtimestamp(second, UTC))
OFFSETS = st.sampled_from(
    [UTC, *(datetime.fromisoformat(f"2026-01-01T00:00{o}").tzinfo for o in ("+14:00", "-11:00"))]
)
EVERY_MONTH_END = [
    datetime(year, month, calendar.monthrange(year, month)[1], 23, 59, 59, 999_999, tzinfo=UTC)
    for year in (2023, 2024, 2099, 2100)
    for month in range(1, 13)
]
LEAP_DAYS = [datetime(year, 2, 29, hour, tzinfo=UTC) for year in (2000, 2024, 2028) for hour in (0, 12, 23)]

RECORDS = st.builds(
    SnapshotRecord,
    st.just(SOURCE),
    st.just("one"),
    st.just(("site",)),
    MOMENTS,
    MOMENTS,
    st.lists(MOMENTS, max_size=3).map(tuple),
    st.lists(st.sampled_from(["v1", "v2"]), max_size=2, unique=True).map(tuple),
    st.none(),
    st.none() | MOMENTS,
    st.booleans(),
)


def snapshot(
    taken_at: datetime, *, first_seen_at: datetime | None = None, **fields: object
) -> SnapshotRecord:
    record = SnapshotRecord(
        SOURCE, "one", ("site",), first_seen_at or taken_at + HOUR, taken_at, pieces=("v1",)
    )
    return replace(record, **fields)  # type: ignore[arg-type]


def seen(
    taken_at: datetime,
    *pieces: str,
    at: datetime = NOW,
    evidence: Sequence[datetime] = (),
    store: str = "site",
) -> SnapshotsSeen:
    return SnapshotsSeen(
        SOURCE, at, (store,), (ListedSnapshot("one", pieces or ("v1",), taken_at, tuple(evidence)),)
    )


def after(*facts: SnapshotFact) -> SnapshotRecord:
    """Return what the snapshot `one` has become."""
    records: dict[str, SnapshotRecord] = {}
    for fact in facts:
        records |= evolve_snapshots(records, fact)
    return records["one"]


# When it dies


@pytest.mark.parametrize("end", [*EVERY_MONTH_END, *LEAP_DAYS], ids=str)
def test_a_snapshot_of_a_months_end_dies_in_the_sixth_month_and_not_before_its_day(
    end: datetime,
) -> None:
    dies = snapshot(end).expires_at(SIX_MONTHS)
    months = (dies.year * 12 + dies.month) - (end.year * 12 + end.month)
    assert months == 6
    assert dies.day == min(end.day, calendar.monthrange(dies.year, dies.month)[1])
    assert dies.timetz() == end.timetz()


@pytest.mark.parametrize(
    ("taken", "dies"),
    [
        ("2026-08-31", "2027-02-28"),
        ("2027-08-31", "2028-02-29"),
        ("2027-08-29", "2028-02-29"),
        ("2028-02-29", "2028-08-29"),
        ("2026-03-31", "2026-09-30"),
        ("2099-08-31", "2100-02-28"),
        ("2026-06-30", "2026-12-30"),
    ],
)
def test_six_months_are_what_the_calendar_says(taken: str, dies: str) -> None:
    taken_at = datetime.fromisoformat(taken).replace(tzinfo=UTC)
    assert snapshot(taken_at).expires_at(SIX_MONTHS) == datetime.fromisoformat(dies).replace(tzinfo=UTC)


@given(RECORDS)
def test_nothing_dies_before_six_calendar_months_have_passed_since_its_latest_date(
    record: SnapshotRecord,
) -> None:
    dies = record.expires_at(SIX_MONTHS)
    first_of_month = dies.replace(day=1) - record.latest.replace(day=1)
    assert (dies.year * 12 + dies.month) - (record.latest.year * 12 + record.latest.month) == 6
    assert first_of_month >= timedelta(days=181)
    assert dies.day == record.latest.day or (dies + DAY).day == 1


@given(MOMENTS, MOMENTS)
def test_who_was_taken_later_never_dies_earlier(one: datetime, other: datetime) -> None:
    assume(one <= other)
    assert snapshot(one).expires_at(SIX_MONTHS) <= snapshot(other).expires_at(SIX_MONTHS)


@given(MOMENTS, OFFSETS)
def test_the_months_are_counted_in_utc_wherever_a_date_comes_from(moment: datetime, zone: object) -> None:
    local = moment.astimezone(zone)  # type: ignore[arg-type]
    assert snapshot(local).expires_at(SIX_MONTHS) == snapshot(moment).expires_at(SIX_MONTHS)


# When it was taken


@given(RECORDS)
def test_nothing_was_taken_after_it_was_first_seen(record: SnapshotRecord) -> None:
    assert record.latest <= record.first_seen_at
    assert record.began_at(timedelta(0)) <= record.latest


@given(RECORDS, MOMENTS)
def test_a_date_that_somebody_declares_only_makes_a_snapshot_live_longer(
    record: SnapshotRecord, taken_at: datetime
) -> None:
    declared = evolve_snapshots({"one": record}, SnapshotDeclared(SOURCE, "one", NOW, taken_at))["one"]
    assert declared.latest >= record.latest
    assert declared.expires_at(SIX_MONTHS) >= record.expires_at(SIX_MONTHS)
    assert declared.began_at(HOUR) <= record.began_at(HOUR)


@given(RECORDS, st.lists(MOMENTS, max_size=3), MOMENTS)
def test_no_listing_makes_a_snapshot_die_earlier_than_the_dates_seen_before(
    record: SnapshotRecord, evidence: Sequence[datetime], at: datetime
) -> None:
    same = replace(record, pieces=("v1",))
    again = evolve_snapshots({"one": same}, seen(same.taken_at, "v1", at=at, evidence=evidence))["one"]
    assert again.latest >= same.latest
    assert again.began_at(HOUR) <= same.began_at(HOUR)
    assert again.first_seen_at == same.first_seen_at


@given(RECORDS, MOMENTS)
def test_a_date_that_is_set_back_later_speaks_of_nothing(record: SnapshotRecord, taken_at: datetime) -> None:
    same = replace(record, pieces=("v1",))
    again = evolve_snapshots({"one": same}, seen(taken_at, "v1"))["one"]
    assert again.latest >= same.latest


def test_a_snapshot_of_many_dates_is_as_old_as_the_latest_and_began_at_the_earliest() -> None:
    record = snapshot(
        NOW - 9 * DAY, first_seen_at=NOW, evidence=(NOW - 10 * DAY, NOW - 7 * DAY), declared_at=NOW - 8 * DAY
    )
    assert record.latest == NOW - 7 * DAY
    assert record.began_at(2 * HOUR) == NOW - 10 * DAY - 2 * HOUR


# What becomes of it


def test_a_listing_makes_a_snapshot_known_with_everything_that_it_shows() -> None:
    listed = ListedSnapshot("one", ("v1", "v2"), NOW - DAY, (NOW - HOUR,), 12)
    record = evolve_snapshots({}, SnapshotsSeen(SOURCE, NOW, ("site",), (listed,)))["one"]
    assert record == SnapshotRecord(SOURCE, "one", ("site",), NOW, NOW - DAY, (NOW - HOUR,), ("v1", "v2"), 12)
    assert record.present


def test_one_that_was_only_declared_is_live_and_not_present() -> None:
    record = after(SnapshotDeclared(SOURCE, "one", NOW, NOW - DAY, ("site",)))
    assert (record.live, record.present, record.latest) == (True, False, NOW - DAY)


def test_one_that_was_declared_and_then_found_keeps_what_was_declared() -> None:
    record = after(
        SnapshotDeclared(SOURCE, "one", NOW, NOW - DAY, ("crm",)), seen(NOW - 9 * DAY, at=NOW + HOUR)
    )
    assert record.declared_at == record.latest == NOW - DAY
    assert set(record.stores) == {"site", "crm"}
    assert record.present


def test_of_two_declared_dates_the_later_counts_in_either_order() -> None:
    early, late = (SnapshotDeclared(SOURCE, "one", NOW, NOW - days * DAY) for days in (9, 2))
    assert after(seen(NOW - 20 * DAY), early, late).latest == NOW - 2 * DAY
    assert after(seen(NOW - 20 * DAY), late, early).latest == NOW - 2 * DAY


def test_what_no_listing_shows_any_more_is_live_until_its_bytes_are_proven_gone() -> None:
    vanished = after(seen(NOW - DAY), SnapshotsVanished(SOURCE, NOW + DAY, ("one",)))
    assert (vanished.live, vanished.present, vanished.vanished_at) == (True, False, NOW + DAY)
    assert needs_recording(vanished, ListedSnapshot("one", ("v1",), NOW - DAY), ["site"])
    back = after(
        seen(NOW - DAY), SnapshotsVanished(SOURCE, NOW + DAY, ("one",)), seen(NOW - DAY, at=NOW + 2 * DAY)
    )
    assert (back.present, back.vanished_at, back.first_seen_at) == (True, None, NOW)


def test_deleted_is_not_purged() -> None:
    intended, deleted = PruneIntended(SOURCE, NOW, ("one",)), SnapshotsDeleted(SOURCE, NOW + HOUR, ("one",))
    record = after(seen(NOW - DAY), intended, deleted)
    assert (record.intended_at, record.deleted_at, record.live) == (NOW, NOW + HOUR, True)
    purged = after(seen(NOW - DAY), intended, deleted, SnapshotsPurged(SOURCE, NOW + DAY, ("one",)))
    assert (purged.purged_at, purged.live) == (NOW + DAY, False)


def test_another_one_under_the_name_of_what_was_purged_owes_it_nothing() -> None:
    purged = (seen(NOW - DAY), SnapshotsPurged(SOURCE, NOW, ("one",)))
    assert after(*purged, seen(NOW + DAY, "v9", at=NOW + DAY)) == after(seen(NOW + DAY, "v9", at=NOW + DAY))
    declared = SnapshotDeclared(SOURCE, "one", NOW + DAY, NOW, ("site",))
    assert after(*purged, declared) == after(declared)


@pytest.mark.parametrize(
    "fact",
    [
        kind(SOURCE, NOW, ("one",))
        for kind in (SnapshotsVanished, PruneIntended, SnapshotsDeleted, SnapshotsPurged)
    ],
)
def test_what_is_said_of_a_snapshot_that_nobody_knows_is_nothing(fact: SnapshotFact) -> None:
    assert evolve_snapshots({}, fact) == {}


@given(RECORDS, MOMENTS, MOMENTS, st.lists(MOMENTS, max_size=2))
def test_replaced_content_lives_as_long_as_the_new_may_and_holds_whom_the_old_held(
    record: SnapshotRecord, taken_at: datetime, at: datetime, evidence: Sequence[datetime]
) -> None:
    old = replace(record, pieces=("v1",))
    assume(at >= old.first_seen_at)
    new = evolve_snapshots({"one": old}, seen(taken_at, "v2", at=at, evidence=evidence))["one"]
    assert new.latest >= old.latest
    assert new.began_at(HOUR) <= old.began_at(HOUR)
    assert (new.first_seen_at, new.pieces) == (at, ("v2",))


def test_content_that_is_replaced_under_its_old_dates_counts_from_when_it_was_seen() -> None:
    record = after(seen(NOW - 90 * DAY, "v1", at=NOW - 80 * DAY), seen(NOW - 90 * DAY, "v2"))
    assert (record.replaced, record.latest) == (True, NOW)
    assert record.began_at(timedelta(0)) == NOW - 90 * DAY
    again = after(
        seen(NOW - 90 * DAY, "v1", at=NOW - 80 * DAY),
        seen(NOW - 90 * DAY, "v2"),
        seen(NOW - 90 * DAY, "v2", at=NOW + DAY),
    )
    assert (again.replaced, again.latest) == (True, NOW)


def test_versions_that_are_gone_make_no_other_snapshot_and_new_ones_do() -> None:
    fewer = after(seen(NOW - DAY, "v1", "v2"), seen(NOW - DAY, "v2", at=NOW + DAY))
    assert (fewer.first_seen_at, fewer.pieces, fewer.replaced) == (NOW, ("v2",), False)
    more = after(seen(NOW - DAY, "v1"), seen(NOW - DAY, "v1", "v2", at=NOW + DAY))
    assert (more.first_seen_at, more.replaced) == (NOW + DAY, True)


def test_the_same_sighting_says_nothing_new_and_every_other_one_does() -> None:
    listed = ListedSnapshot("one", ("v1",), NOW - DAY, (NOW - HOUR,), 12)
    record = evolve_snapshots({}, SnapshotsSeen(SOURCE, NOW, ("site",), (listed,)))["one"]
    assert not needs_recording(record, listed, ["site"])
    assert not needs_recording(record, replace(listed, evidence=()), ["site"])
    for other in (
        replace(listed, pieces=("v2",)),
        replace(listed, taken_at=NOW),
        replace(listed, evidence=(NOW,)),
    ):
        assert needs_recording(record, other, ["site"])
    assert needs_recording(record, listed, ["site", "crm"])
    assert needs_recording(None, listed, ["site"])
    assert needs_recording(replace(record, purged_at=NOW), listed, ["site"])


@given(RECORDS, MOMENTS, st.lists(MOMENTS, max_size=2), st.sampled_from(["v1", "v2", "v3"]))
def test_what_was_recorded_needs_no_recording(
    record: SnapshotRecord, taken_at: datetime, evidence: Sequence[datetime], piece: str
) -> None:
    fact = seen(taken_at, piece, evidence=evidence)
    recorded = evolve_snapshots({"one": record}, fact)["one"]
    assert not needs_recording(recorded, fact.listed[0], fact.stores)


def test_a_source_keeps_its_spent_consents_when_it_is_described_anew() -> None:
    described = SourceDescribed(SOURCE, ("site",), "P6M", 60.0)
    first = evolve_source(evolve_source(None, described), PrunesConfirmed(SOURCE, NOW, 40))
    assert first == SourceRecord(SOURCE, ("site",), "P6M", 60.0, frozenset({40}))
    assert evolve_source(first, replace(described, retention="P3M")) == replace(first, retention="P3M")


# Whom it holds

HOURS = st.integers(0, 40).map(lambda hours: NOW + hours * HOUR)
HOLDING = st.lists(
    st.builds(
        HoldingSnapshot,
        st.just(UNKNOWN_START) | HOURS,
        HOURS.map(lambda at: at + 180 * DAY),
        st.lists(HOURS, max_size=2).map(tuple),
    ),
    max_size=8,
).map(lambda found: sorted(found, key=lambda one: (one.began_at, one.expires_at)))


def step_of(steps: Sequence[CopyStep], cleared_at: datetime) -> CopyStep:
    return [step for step in steps if step.since <= cleared_at][-1]


@given(HOLDING, st.booleans(), st.none() | HOURS, HOURS, st.sampled_from([-1, 0, 1]))
def test_the_step_of_a_clearing_says_what_looking_at_every_snapshot_says(
    holding: list[HoldingSnapshot],
    covered: bool,
    scanned_at: datetime | None,
    cleared_at: datetime,
    microseconds: int,
) -> None:
    cleared_at += timedelta(microseconds=microseconds)
    step = step_of(copy_steps(holding, covered=covered, scanned_at=scanned_at), cleared_at)
    # Unless it began after the clearing, it holds the person; also of whom it was not cleaned before.
    holds = [one for one in holding if one.began_at <= cleared_at or cleared_at in one.kept]
    assert step.gone_at == max((one.expires_at for one in holds), default=None)
    assert step.proven == (covered and scanned_at is not None and cleared_at < scanned_at)


@given(HOLDING, st.booleans(), st.none() | HOURS)
def test_steps_begin_before_everybody_are_sorted_and_each_says_something_else(
    holding: list[HoldingSnapshot],
    covered: bool,
    scanned_at: datetime | None,
) -> None:
    steps = copy_steps(holding, covered=covered, scanned_at=scanned_at)
    assert steps[0].since == UNKNOWN_START
    assert all(one.since < other.since for one, other in pairwise(steps))
    assert all((one.gone_at, one.proven) != (other.gone_at, other.proven) for one, other in pairwise(steps))


def test_an_empty_listing_that_no_source_stands_behind_proves_nothing() -> None:
    assert copy_steps([], covered=False, scanned_at=NOW) == [CopyStep(UNKNOWN_START, None, proven=False)]
    assert copy_steps([], covered=True, scanned_at=None) == [CopyStep(UNKNOWN_START, None, proven=False)]
    assert NO_BACKUPS[0].proven


WINDOWS = st.lists(
    st.builds(lambda since, until: DirtyWindow("site", since, until), HOURS, st.none() | HOURS), max_size=2
)


@given(
    st.lists(st.tuples(HOURS, st.integers(0, 9), st.integers(0, 5)), max_size=5),
    WINDOWS,
    st.integers(0, 7_200),
    st.integers(0, 7_200),
)
def test_a_snapshot_that_overlaps_a_dirty_window_holds_everybody_and_no_other_does(
    taken: list[tuple[datetime, int, int]], windows: list[DirtyWindow], longest: int, skew: int
) -> None:
    records = [
        snapshot(at, first_seen_at=at + seen_after * HOUR, evidence=(at + late * HOUR,), ref=f"{n}")
        for n, (at, seen_after, late) in enumerate(taken)
    ]
    source = SourceRecord(SOURCE, ("site",), "P6M", float(longest), skew=float(skew))
    expected = []
    for record in records:
        earliest = record.began_at(timedelta(seconds=longest + skew))
        latest = record.latest + timedelta(seconds=skew)
        overlaps = any(
            window.since <= latest and earliest <= (window.until or datetime.max.replace(tzinfo=UTC))
            for window in windows
        )
        expected.append((UNKNOWN_START if overlaps else earliest, record.expires_at(SIX_MONTHS)))
    found = holding_snapshots("site", records, {SOURCE: source}, windows)
    assert [(one.began_at, one.expires_at) for one in found] == sorted(expected)


def test_a_window_of_another_store_and_a_purged_snapshot_hold_nobody() -> None:
    window = [DirtyWindow("crm", UNKNOWN_START, None)]
    sources = {SOURCE: SourceRecord(SOURCE, ("site",), "P3M")}
    (held,) = holding_snapshots("site", [snapshot(NOW)], sources, window)
    assert (held.began_at, held.expires_at) == (NOW, datetime(2027, 2, 3, 9, 30, tzinfo=UTC))
    assert holding_snapshots("crm", [snapshot(NOW)], sources, window) == []
    assert holding_snapshots("site", [snapshot(NOW, purged_at=NOW)], sources, []) == []


def test_a_snapshot_of_a_source_that_nobody_describes_any_more_counts_for_six_months() -> None:
    (held,) = holding_snapshots("site", [snapshot(NOW)], {}, [])
    assert held.expires_at == datetime(2027, 5, 3, 9, 30, tzinfo=UTC)


def test_a_source_that_nobody_describes_is_dated_by_a_clock_that_may_be_wrong() -> None:
    (held,) = holding_snapshots("site", [snapshot(NOW)], {}, [])
    assert held.began_at == NOW - CLOCK_SKEW


@given(st.datetimes(timezones=st.just(UTC)), st.timedeltas(timedelta(0), timedelta(days=999_999)))
def test_nothing_began_before_the_calendar_does(moment: datetime, by: timedelta) -> None:
    assert UNKNOWN_START <= earlier(moment, by) <= moment
    record = snapshot(moment)
    assert record.began_at(by) >= UNKNOWN_START


def test_a_dump_that_is_stamped_at_its_end_began_before() -> None:
    source = SourceRecord(SOURCE, ("site",), "P6M", 7_200.0)
    (held,) = holding_snapshots("site", [snapshot(NOW)], {SOURCE: source}, [])
    assert held.began_at == NOW - 2 * HOUR


@pytest.mark.parametrize(
    ("left", "none_left"),
    [(CopiesLeft(), True), (CopiesLeft(NOW), False), (CopiesLeft(None, ("site",)), False)],
)
def test_none_is_left_only_if_none_is_known_and_that_is_proven(
    left: CopiesLeft,
    none_left: bool,
) -> None:
    assert left.none_left is none_left


@pytest.mark.parametrize("taken_at", [UNKNOWN_START, UNKNOWN_START + HOUR, datetime(1970, 1, 1, tzinfo=UTC)])
@pytest.mark.parametrize("longest", [timedelta(0), DAY, AGES])
def test_no_date_of_one_snapshot_ends_the_grading_of_all(taken_at: datetime, longest: timedelta) -> None:
    """Whatever a manifest, a name or a backend says: what began before any date can hold everybody."""
    snapshot = SnapshotRecord(SOURCE, "ref", ("shop/site",), NOW, taken_at, declared_at=taken_at)
    source = SourceRecord(SOURCE, ("shop/site",), "P6M", longest.total_seconds())
    (holding,) = holding_snapshots("shop/site", [snapshot], {SOURCE: source}, [])
    assert UNKNOWN_START <= holding.began_at <= taken_at
    assert instant(holding.began_at) == f"{holding.began_at:%Y-%m-%dT%H:%M:%S}Z".zfill(20)


SEEN = ListedSnapshot("ref", ("1:2",), NOW, size=7)


def test_what_can_be_kept_of_a_snapshot_has_a_size_and_characters_that_a_ledger_takes() -> None:
    assert is_recordable(SEEN)
    assert is_recordable(replace(SEEN, ref="r" * 1024, size=2**63 - 1))
    for strange in (
        replace(SEEN, ref="ref\0"),
        replace(SEEN, ref="ref\udc80"),
        replace(SEEN, ref="r" * 1025),
        replace(SEEN, pieces=("1\0",)),
        replace(SEEN, pieces=("p" * 1024,) * 1024),
        replace(SEEN, size=-1),
        replace(SEEN, size=2**63),
    ):
        assert not is_recordable(strange)


@pytest.mark.parametrize("skew", [timedelta(minutes=5), CLOCK_SKEW])
def test_a_dump_from_a_clock_ahead_by_less_than_the_setting_holds_nobody_from_before(skew: timedelta) -> None:
    source = SourceRecord(SOURCE, ("shop/site",), "P6M", skew=skew.total_seconds())
    ahead = SnapshotRecord(SOURCE, "one", ("shop/site",), NOW, NOW + skew, pieces=("v1",))
    further = replace(ahead, taken_at=NOW + skew + HOUR)
    [held] = holding_snapshots("shop/site", [ahead], {SOURCE: source}, [])
    assert held.began_at == NOW - skew
    [held] = holding_snapshots("shop/site", [further], {SOURCE: source}, [])
    assert held.began_at == UNKNOWN_START
