"""When a drill is due, also across daylight saving time, and what facts make of it."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from lethe.domain.drill_facts import DrillEnded, DrillResult, DrillStarted
from lethe.domain.drills import (
    DrillRecord,
    InvalidSchedule,
    SnapshotChoice,
    chosen_snapshot,
    due_at,
    evolve_drill,
    next_run,
    period_of,
)
from lethe.domain.snapshots import SnapshotRecord

VIENNA = "Europe/Vienna"


def local(*at: int, fold: int = 0) -> datetime:
    return datetime(*at, tzinfo=ZoneInfo(VIENNA), fold=fold)  # type: ignore[misc,arg-type]


def runs(schedule: str, after: datetime, count: int) -> list[datetime]:
    found = []
    for _ in range(count):
        after = next_run(schedule, VIENNA, after)
        found.append(after.astimezone(ZoneInfo(VIENNA)))
    return found


def test_a_time_of_day_is_kept_on_both_sides_of_daylight_saving_time() -> None:
    assert runs("0 4 * * SUN", local(2026, 3, 20), 2) == [local(2026, 3, 22, 4), local(2026, 3, 29, 4)]
    assert runs("0 4 * * SUN", local(2026, 10, 20), 2) == [local(2026, 10, 25, 4), local(2026, 11, 1, 4)]
    assert next_run("0 4 * * SUN", VIENNA, local(2026, 3, 20)) == datetime(2026, 3, 22, 3, tzinfo=UTC)
    assert next_run("0 4 * * SUN", VIENNA, local(2026, 3, 26)) == datetime(2026, 3, 29, 2, tzinfo=UTC)


def test_what_falls_into_the_hour_that_there_is_not_runs_right_after_it() -> None:
    (first, second) = runs("30 2 * * *", local(2026, 3, 28, 12), 2)
    assert first == local(2026, 3, 29, 3)
    assert second == local(2026, 3, 30, 2, 30)


def test_what_falls_into_the_hour_that_there_is_twice_runs_once() -> None:
    (first, second) = runs("30 2 * * *", local(2026, 10, 24, 12), 2)
    assert first.astimezone(UTC) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert second == local(2026, 10, 26, 2, 30)


def begun(schedule: str, *clock: datetime) -> list[str]:
    """Return when drills begin, in local time, given what the clock shows at each look at it."""
    known: DrillRecord | None = None
    found = []
    for now in clock:
        if due_at(known, schedule, VIENNA, clock[0]) <= now:
            known = evolve_drill(known, DrillStarted("d", now, "s", "src", "one", now, "lethe_drill_ab"))
            known = evolve_drill(known, DrillEnded("d", now, DrillResult.PASSED, replayed_from=now))
            found.append(f"{now.astimezone(ZoneInfo(VIENNA)):%d. %H:%M %Z}")
    return found


def every_minute(*, since: datetime, hours: int) -> list[datetime]:
    """Return what a clock shows that is looked at each minute, some seconds past it."""
    return [since.astimezone(UTC) + timedelta(minutes=n, seconds=7) for n in range(hours * 60)]


SPRING, AUTUMN = local(2026, 3, 28, 12), local(2026, 10, 24, 12)


@pytest.mark.parametrize(
    ("schedule", "since", "expected"),
    [
        ("30 2 * * *", SPRING, ["29. 03:00 CEST", "30. 02:30 CEST"]),
        ("0 2 * * *", SPRING, ["29. 03:00 CEST", "30. 02:00 CEST"]),
        ("0 3 * * *", SPRING, ["29. 03:00 CEST", "30. 03:00 CEST"]),
        ("30 2 * * *", AUTUMN, ["25. 02:30 CEST", "26. 02:30 CET"]),
        ("0 2 * * *", AUTUMN, ["25. 02:00 CEST", "26. 02:00 CET"]),
        ("0 3 * * *", AUTUMN, ["25. 03:00 CET", "26. 03:00 CET"]),
    ],
)
def test_each_night_has_one_drill_also_those_in_which_clocks_change(
    schedule: str, since: datetime, expected: list[str]
) -> None:
    assert begun(schedule, *every_minute(since=since, hours=42)) == expected


def test_of_an_operator_that_was_away_while_clocks_changed_one_drill_is_made_up_for() -> None:
    for since, back_at in ((SPRING, local(2026, 3, 29, 9)), (AUTUMN, local(2026, 10, 25, 9))):
        looks = [since, *every_minute(since=back_at, hours=10)]
        assert len(begun("30 2 * * *", *looks)) == 1


def test_a_clock_that_is_set_back_lets_no_drill_run_twice_and_one_set_forth_makes_up_for_one() -> None:
    """As where a host was set by local time: an hour off from the change on, until somebody sets it."""
    night = local(2026, 10, 25, 1)
    before = every_minute(since=night, hours=3)  # past half past two, by both
    again = every_minute(since=night, hours=28)
    assert begun("30 2 * * *", *before, *again) == ["25. 02:30 CEST", "26. 02:30 CET"]
    month = local(2026, 11, 25, 1)
    assert len(begun("30 2 * * *", *before, *every_minute(since=month, hours=1))) == 2


@pytest.mark.parametrize("schedule", ["0 4 * *", "61 4 * * SUN", "0 4 31 2 *", "@weekly", "0 4 * * SUN *"])
def test_a_schedule_that_is_none_is_refused(schedule: str) -> None:
    with pytest.raises(InvalidSchedule):
        next_run(schedule, "UTC", datetime(2026, 1, 1, tzinfo=UTC))


def test_the_period_is_the_time_between_two_runs() -> None:
    assert period_of("0 4 * * SUN", "UTC", datetime(2026, 1, 1, tzinfo=UTC)) == timedelta(days=7)


START = datetime(2026, 11, 1, 4, tzinfo=UTC)  # a Sunday


def record(*results: DrillResult, replayed: bool = True) -> DrillRecord:
    """Return what is known after drills on Sundays that came to this; the last of them may not have ended."""
    known: DrillRecord | None = None
    at = START
    for result in results:
        known = evolve_drill(known, DrillStarted("d", at, "s", "src", "one", at, "lethe_drill_ab"))
        done = at if replayed else None
        known = evolve_drill(known, DrillEnded("d", at + timedelta(minutes=5), result, replayed_from=done))
        at += timedelta(days=7)
    assert known is not None
    return known


def test_however_many_were_missed_one_is_due() -> None:
    known = record(DrillResult.PASSED)
    due = due_at(known, "0 4 * * SUN", "UTC", START)
    assert due == START + timedelta(days=7)
    assert due_at(None, "0 4 * * SUN", "UTC", START - timedelta(days=1)) == START


def test_one_that_was_cut_off_is_due_at_once_but_not_again_and_again() -> None:
    cut, again = DrillResult.INTERRUPTED, START + timedelta(days=7)
    once = record(cut)
    assert due_at(once, "0 4 * * SUN", "UTC", START) == once.ended.at  # type: ignore[union-attr]
    assert due_at(record(cut, cut), "0 4 * * SUN", "UTC", START) == again + timedelta(days=7)
    yielded = record(DrillResult.GAVE_WAY)
    assert due_at(yielded, "0 4 * * SUN", "UTC", START) == START + timedelta(minutes=5)


def test_a_drill_that_failed_takes_nothing_from_the_one_that_passed_before() -> None:
    known = record(DrillResult.PASSED, DrillResult.UNCLEARED)
    assert known.passed_at == START + timedelta(minutes=5)
    assert known.rehearsed["s"].replayed_from == START
    assert [one.result for one in known.past] == [DrillResult.UNCLEARED, DrillResult.PASSED]
    assert len(record(*[DrillResult.PASSED] * 30).past) == 20


def test_only_what_is_there_and_holds_the_store_is_restored() -> None:
    def snapshot(
        name: str, day: int, *, stores: tuple[str, ...] = ("s",), gone: bool = False
    ) -> SnapshotRecord:
        at = datetime(2026, 1, day, tzinfo=UTC)
        return SnapshotRecord("src", name, stores, at, at, pieces=("p",), vanished_at=at if gone else None)

    there = [
        snapshot("b", 2),
        snapshot("a", 1),
        snapshot("other", 3, stores=("crm",)),
        snapshot("gone", 4, gone=True),
    ]
    drawn = random.Random(1)

    def chosen(choice: SnapshotChoice) -> str | None:
        found = chosen_snapshot(there, "s", choice, drawn)
        return found.ref if found is not None else None

    assert chosen(SnapshotChoice.NEWEST) == "b"
    assert chosen(SnapshotChoice.OLDEST) == "a"
    assert {chosen(SnapshotChoice.RANDOM) for _ in range(50)} == {"a", "b"}
    assert chosen_snapshot(there, "hrm", SnapshotChoice.NEWEST, drawn) is None
