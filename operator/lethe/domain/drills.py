"""What is known of a RestoreDrill, and when it is due."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from lethe.domain.drill_facts import DrillEnded, DrillFact, DrillResult, DrillStarted
from lethe.domain.snapshots import SnapshotRecord

DATABASE_PREFIX = "lethe_drill_"
"""How the name of each scratch database begins, and that of no DataStore's."""


class SnapshotChoice(StrEnum):
    """Which snapshot a drill takes."""

    NEWEST = "Newest"
    OLDEST = "Oldest"
    RANDOM = "Random"


class InvalidSchedule(ValueError):
    """A schedule can't be meant like this; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The last drill of a store that passed: every erasure until `replayed_from` was in it."""

    replayed_from: datetime
    passed_at: datetime


@dataclass(frozen=True, slots=True)
class PastDrill:
    """A drill that has ended."""

    started_at: datetime
    result: DrillResult
    snapshot: str


MOST_PAST = 20
"""How many drills are remembered of each RestoreDrill."""


@dataclass(frozen=True, slots=True)
class DrillRecord:
    """A RestoreDrill as the ledger knows it: how it ran last, and what has passed, by store.

    `interrupted` counts how often in a row the process ended meanwhile; `past` are the last drills that have
    ended, newest first.
    """

    started: DrillStarted
    ended: DrillEnded | None = None
    rehearsed: Mapping[str, Rehearsal] = field(default_factory=dict)
    interrupted: int = 0
    past: tuple[PastDrill, ...] = ()

    @property
    def passed_at(self) -> datetime | None:
        """Return when one passed last; `None`: none has."""
        return max((one.passed_at for one in self.rehearsed.values()), default=None)


def evolve_drill(before: DrillRecord | None, fact: DrillFact) -> DrillRecord | None:
    """Return what is known after a fact; an end without a beginning tells nothing."""
    if isinstance(fact, DrillStarted):
        if before is None:
            return DrillRecord(fact)
        return replace(before, started=fact, ended=None)
    if before is None:
        return None
    if before.ended is not None:  # only its database is gone since
        return replace(before, ended=fact)
    interrupted = before.interrupted + 1 if fact.result is DrillResult.INTERRUPTED else 0
    rehearsed = before.rehearsed
    if fact.result is DrillResult.PASSED and fact.replayed_from is not None:
        rehearsal = Rehearsal(fact.replayed_from, fact.at)
        rehearsed = {**rehearsed, before.started.store: rehearsal}
    last = PastDrill(before.started.at, fact.result, before.started.snapshot)
    past = (last, *before.past)[:MOST_PAST]
    return replace(before, ended=fact, rehearsed=rehearsed, interrupted=interrupted, past=past)


def next_run(schedule: str, time_zone: str, after: datetime) -> datetime:
    """Return when a schedule (cron, five fields, in an IANA time zone) is due next, in UTC.

    As cron does across a change to or from daylight saving time: what falls into the hour that there is not
    runs right after it, and what is due at one time of day runs once in the hour that there is twice. Raises
    `InvalidSchedule`, also for one that is never due.
    """
    try:
        upcoming = next(CronSim(schedule, after.astimezone(ZoneInfo(time_zone))), None)
    except CronSimError as wrong:
        raise InvalidSchedule(f"{wrong}; write five fields, as in 0 4 * * SUN") from None
    if upcoming is None:
        raise InvalidSchedule("it is never due; correct its day and month")
    return upcoming.astimezone(UTC)


def due_at(record: DrillRecord | None, schedule: str, time_zone: str, created_at: datetime) -> datetime:
    """Return when a drill is due, which may be in the past. Raises `InvalidSchedule`.

    However many times it was missed, it is due once. One that the end of the process cut off, or that gave
    way to a restore, is due at once; not a second time in a row, lest it be the drill that ends the process.
    """
    if record is None:
        return next_run(schedule, time_zone, created_at)
    if record.ended is not None:
        gave_way = record.ended.result is DrillResult.GAVE_WAY
        if gave_way or (record.ended.result is DrillResult.INTERRUPTED and record.interrupted == 1):
            return record.ended.at
    return next_run(schedule, time_zone, record.started.at)


def period_of(schedule: str, time_zone: str, after: datetime) -> timedelta:
    """Return the time between the next two runs. Raises `InvalidSchedule`."""
    first = next_run(schedule, time_zone, after)
    return next_run(schedule, time_zone, first) - first


def chosen_snapshot(
    snapshots: Sequence[SnapshotRecord],
    store: str,
    choice: SnapshotChoice,
    draw: random.Random,
    holding: Mapping[str, datetime] | None = None,
) -> SnapshotRecord | None:
    """Return the snapshot to restore among those that hold a store and still exist; `None`: there is none.

    With `holding` it is one of these (by ref): since when somebody must have been erased to be in it. The
    oldest is then the one that was rewritten longest ago, else the same one would always be.
    """
    there = sorted(
        (one for one in snapshots if one.present and store in one.stores), key=lambda s: s.taken_at
    )
    if holding is not None:
        there = [one for one in there if one.ref in holding]
    if not there:
        return None
    match choice:
        case SnapshotChoice.NEWEST:
            return there[-1]
        case SnapshotChoice.OLDEST:
            return min(there, key=lambda one: (holding or {}).get(one.ref, one.taken_at))
        case SnapshotChoice.RANDOM:
            return draw.choice(there)
