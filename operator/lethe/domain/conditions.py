"""From what is recorded and seen to conditions: pure functions, one for each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from lethe.domain.facts import Outcome
from lethe.domain.requests import RequestRecord, StoreState
from lethe.domain.restores import RestoreEpisode
from lethe.domain.snapshots import CopiesLeft
from lethe.domain.trouble import Trouble
from lethe.domain.trust import Blocker, BlockReason


class ConditionStatus(StrEnum):
    """A condition is true, false, or not known yet."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"

    @classmethod
    def of(cls, truth: bool) -> ConditionStatus:
        """Return the status that stands for a truth."""
        return cls.TRUE if truth else cls.FALSE


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition. `since` is when it came about, where the ledger knows that (`None`: when it is
    first shown).
    """

    type: str
    status: ConditionStatus
    reason: str
    message: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class ConditionSet:
    """Where an object stands: `state` in one word (`None` for kinds without), and its conditions."""

    state: str | None
    conditions: tuple[Condition, ...]

    @property
    def ready(self) -> Condition:
        """Return the condition that everybody waits for."""
        return next(condition for condition in self.conditions if condition.type == "Ready")


_STALLING = frozenset({BlockReason.VALUE_REFUSED, BlockReason.NAME_REUSED})
_ASKS_A_PERSON = frozenset(
    {
        BlockReason.NOTHING_FOUND,
        BlockReason.FIND_UNTRUSTED,
        BlockReason.SHARED_RECORD,
        BlockReason.KEY_ABOVE_RESTORE,
    }
)
_GRAVITY = (
    BlockReason.NAME_REUSED,
    BlockReason.SECRET_MISSING,
    BlockReason.VALUE_REFUSED,
    BlockReason.SHARED_RECORD,
    BlockReason.KEY_ABOVE_RESTORE,
    BlockReason.FIND_UNTRUSTED,
    BlockReason.HELD,
    BlockReason.NOTHING_FOUND,
    BlockReason.STORE_UNREACHABLE,
    BlockReason.PENDING,
    BlockReason.ERASING,
)


def gravest(blockers: Sequence[Blocker]) -> Blocker | None:
    """Return what a person should hear first; `None` where nothing blocks."""
    return min(blockers, key=lambda blocker: _GRAVITY.index(blocker.reason), default=None)


def with_progress(ready: Condition, *, stalled: bool = False, working: bool = False) -> tuple[Condition, ...]:
    """Add `Stalled` or `Reconciling` with Ready's reason; they exist only while they are true (kstatus)."""
    if stalled:
        return (ready, Condition("Stalled", ConditionStatus.TRUE, ready.reason, ready.message))
    if working:
        return (ready, Condition("Reconciling", ConditionStatus.TRUE, ready.reason, ready.message))
    return (ready,)


# DeletionRequest


@dataclass(frozen=True, slots=True)
class BackupsObservation:
    """What is known of the backups that may hold an erased person.

    `without_backups`: no store has any, as their DataStores state. `held`: a snapshot among them is kept
    beyond its time for a reason.
    """

    left: CopiesLeft = field(default_factory=CopiesLeft)
    without_backups: bool = False
    held: bool = False


def conditions_of_request(
    record: RequestRecord | None,
    blockers: Sequence[Blocker],
    *,
    backups: BackupsObservation = BackupsObservation(),
    now: datetime,
) -> ConditionSet:
    """Say where a DeletionRequest stands."""
    no_hold = Condition("Held", ConditionStatus.FALSE, "NoHold", "no legal hold keeps this person's data")
    if record is not None and record.outcome is Outcome.ERASED:
        return _erased(record, no_hold, backups, now)
    if record is not None and record.outcome is Outcome.PLANNED:
        message = f"dry run, nothing was changed; would erase {_rows_summary(record, StoreState.PLANNED)}"
        since = record.completed_at
        return ConditionSet(
            "Planned",
            (
                Condition("Ready", ConditionStatus.TRUE, "Planned", message, since),
                no_hold,
                Condition("Erased", ConditionStatus.FALSE, "Planned", message, since),
                Condition("Purged", ConditionStatus.FALSE, "NotErased", "a dry run erases nothing", since),
            ),
        )
    # Who is held in secret must look like everybody else: that blocker is passed over.
    sayable = [blocker for blocker in blockers if blocker.reason is not BlockReason.PENDING]
    worst = gravest(sayable) or _unblocked(record)
    stalled = worst.reason in _STALLING
    ready = Condition("Ready", ConditionStatus.FALSE, worst.reason.value, worst.message)
    working = not stalled and worst.reason not in (*_ASKS_A_PERSON, BlockReason.HELD)
    return ConditionSet(
        _state_of_open(record, worst.reason),
        (
            *with_progress(ready, stalled=stalled, working=working),
            _held_of_open(worst),
            Condition("Erased", ConditionStatus.FALSE, worst.reason.value, worst.message),
            Condition("Purged", ConditionStatus.FALSE, "NotErased", "not erased everywhere yet"),
        ),
    )


def _unblocked(record: RequestRecord | None) -> Blocker:
    """Say how far a request has come that nothing blocks, as far as may be said."""
    stores = record.stores.values() if record is not None else ()
    if any(progress.state is not StoreState.PENDING for progress in stores):
        return Blocker(BlockReason.ERASING, "being erased")
    return Blocker(BlockReason.PENDING, "waits to be carried out")


def _state_of_open(record: RequestRecord | None, worst: BlockReason) -> str:
    if worst in _STALLING:
        return "Stalled"
    if worst is BlockReason.HELD:
        return "Held"
    return "Pending" if record is None or worst is BlockReason.PENDING else "Erasing"


def _held_of_open(worst: Blocker) -> Condition:
    """Say whether an open request is held.

    Of one that is not known to be, nothing is said before it ends: that a person is held may be a secret, and
    whoever is held in secret must look like everybody else.
    """
    if worst.reason is BlockReason.HELD:
        return Condition("Held", ConditionStatus.TRUE, "LegalHold", worst.message)
    message = "holds are looked for when the request is carried out"
    return Condition("Held", ConditionStatus.UNKNOWN, "Pending", message)


def _erased(
    record: RequestRecord, no_hold: Condition, backups: BackupsObservation, now: datetime
) -> ConditionSet:
    since = record.completed_at
    summary = _rows_summary(record, StoreState.VERIFIED)
    if summary:
        message = f"erased and read back: {summary}"
    elif "NothingFound" in record.confirmed:
        message = "no store knows this person, as a person confirmed"
    else:
        message = "an earlier request had erased this person everywhere"
    purged = _purged(record, backups, now)
    return ConditionSet(
        "Purged" if purged.status is ConditionStatus.TRUE else "Erased",
        (
            Condition("Ready", ConditionStatus.TRUE, "Erased", message, since),
            no_hold,
            Condition("Erased", ConditionStatus.TRUE, "Verified", message, since),
            purged,
        ),
    )


def _purged(record: RequestRecord, backups: BackupsObservation, now: datetime) -> Condition:
    """Say whether any backup still holds an erased person: proven, or not claimed."""
    since, left = record.completed_at, backups.left
    if backups.without_backups:
        return Condition("Purged", ConditionStatus.TRUE, "NoBackups", "the stores have no backups", since)
    if record.purged_at is not None:
        message = "the last snapshot that held this person is proven gone"
        return Condition("Purged", ConditionStatus.TRUE, "Verified", message, record.purged_at)
    reason = "SnapshotsRemain"
    if left.gone_at is not None and left.gone_at <= now:
        reason = "SnapshotsHeld" if backups.held else "SnapshotsOverdue"
        message = f"the last snapshot that holds this person was to be gone at {left.gone_at:%Y-%m-%d}"
    elif left.gone_at is not None:
        message = f"the last snapshot that is known to hold this person dies on {left.gone_at:%Y-%m-%d}"
    else:
        message = "no snapshot is known to hold this person"
    if left.unproven:
        named = ", ".join(sorted(_short(name) for name in left.unproven))
        message += f"; no listing of every BackupSource of {named} since the erasure proves it"
    return Condition("Purged", ConditionStatus.FALSE, reason, message, since)


def _rows_summary(record: RequestRecord, state: StoreState) -> str:
    """Tell the rows by store and table, as in `site: users 1, sessions 3; crm: party.party 1`."""
    summary = []
    for name, progress in sorted(record.stores.items()):
        if progress.state is state:
            rows = ", ".join(f"{table} {count}" for table, count in sorted(progress.counts.items()) if count)
            summary.append(f"{_short(name)}: {rows or 'nothing left to erase'}")
    return "; ".join(summary)


def _short(store: str) -> str:
    return store.rpartition("/")[2]


# DataStore


@dataclass(frozen=True, slots=True)
class StoreObservation:
    """What is known of a store now, for its conditions. `trouble` `None` is well.

    `proved` tells whether the mapping was proved since the process began; `replay` is `(reason, message)`
    of an open restore. `sources` names the BackupSources that cover it, `snapshots_seen`
    tells whether any of them has ever shown a snapshot.
    """

    third_party: bool
    proved: bool
    trouble: Trouble | None
    kinds_unmapped: Sequence[str]
    lookalikes: Sequence[str]
    journal: str
    journal_message: str
    without_backups: bool
    looked: bool
    replay: tuple[str, str] | None
    notes: Sequence[str] = ()
    sources: Sequence[str] = ()
    snapshots_seen: bool = False


def conditions_of_store(observed: StoreObservation) -> ConditionSet:
    """Say where a DataStore stands."""
    if observed.third_party:
        message = "belongs to a third party; nothing is ever sent to it"
        return ConditionSet(None, (Condition("Ready", ConditionStatus.TRUE, "ThirdParty", message),))
    if observed.trouble is not None:
        ready = Condition(
            "Ready", ConditionStatus.FALSE, observed.trouble.reason.value, observed.trouble.message
        )
    elif not observed.proved:
        ready = Condition("Ready", ConditionStatus.UNKNOWN, "Pending", "not reached yet")
    else:
        message = "; ".join(("connected, and its mapping fits the schema", *observed.notes))
        ready = Condition("Ready", ConditionStatus.TRUE, "Available", message)
    stalled = observed.trouble is not None and observed.trouble.reason.stalls
    conditions = [
        *with_progress(
            ready, stalled=stalled, working=ready.status is not ConditionStatus.TRUE and not stalled
        )
    ]
    if observed.proved:
        conditions += [
            _mapping_complete(observed),
            Condition(
                "Journaled",
                ConditionStatus.of(observed.journal == "Kept"),
                observed.journal,
                observed.journal_message,
            ),
        ]
    conditions.append(
        Condition("BackupsCovered", ConditionStatus.TRUE, "NoBackupsDeclared", "the store has no backups")
        if observed.without_backups
        else Condition(
            "BackupsCovered", ConditionStatus.TRUE, "Covered", f"by {', '.join(sorted(observed.sources))}"
        )
        if observed.sources and observed.snapshots_seen
        else Condition(
            "BackupsCovered",
            ConditionStatus.FALSE,
            "NothingSeen",
            f"no snapshot has been seen in {', '.join(sorted(observed.sources))}; are place and name right?",
        )
        if observed.sources
        else Condition(
            "BackupsCovered",
            ConditionStatus.FALSE,
            "NoSource",
            "no BackupSource names this store; an unknown backup is a broken promise",
        )
    )
    if observed.replay is not None:
        conditions.append(Condition("SafeToServe", ConditionStatus.FALSE, *observed.replay))
    elif observed.looked and observed.trouble is None:
        conditions.append(
            Condition("SafeToServe", ConditionStatus.TRUE, "Verified", "every erasure is in place")
        )
    return ConditionSet(None, tuple(conditions))


def _mapping_complete(observed: StoreObservation) -> Condition:
    if observed.kinds_unmapped:
        message = "no column is said to hold " + ", ".join(sorted(observed.kinds_unmapped))
        return Condition("MappingComplete", ConditionStatus.FALSE, "KindsUnmapped", message)
    if observed.lookalikes:
        named = ", ".join(observed.lookalikes[:8])
        message = f"{named} look like personal data; map them, or name them in ignore"
        return Condition("MappingComplete", ConditionStatus.FALSE, "LookalikesUnmapped", message)
    return Condition(
        "MappingComplete", ConditionStatus.TRUE, "Complete", "every kind of personal data is mapped"
    )


# RestoreEvent


def conditions_of_restore(
    episode: RestoreEpisode | None,
    *,
    reason: str,
    replay: tuple[
        Literal[
            "Waiting",
            "Replaying",
            "IdentityUnclear",
            "HeldRowsReturned",
            "AwaitingRelease",
            "MappingDoesNotFit",
        ],
        str,
    ]
    | None,
) -> ConditionSet:
    """Say where a RestoreEvent stands; `episode` is `None` while no restore has been seen yet."""
    permitted = (
        Condition(
            "Permitted", ConditionStatus.FALSE, "Undeclared", "nobody has given a reason; set spec.reason"
        )
        if reason == "Undeclared"
        else Condition("Permitted", ConditionStatus.TRUE, reason, "the reason was given")
    )
    if episode is None:
        message = "declared; the store has not been seen to go back in time"
        ready = Condition("Ready", ConditionStatus.FALSE, "Declared", message)
        waiting = Condition("Replayed", ConditionStatus.FALSE, "Waiting", message)
        safe = Condition("SafeToServe", ConditionStatus.FALSE, "Declared", message)
        return ConditionSet(
            "Declared", (*with_progress(ready, stalled=False, working=True), permitted, waiting, safe)
        )
    if episode.superseded_by is not None:
        message = f"the store went back once more; RestoreEvent {episode.superseded_by} goes on from there"
        return ConditionSet(
            "Superseded",
            (
                Condition("Ready", ConditionStatus.TRUE, "Superseded", message),
                permitted,
                Condition("Replayed", ConditionStatus.FALSE, "Superseded", message),
                Condition("SafeToServe", ConditionStatus.FALSE, "Superseded", message),
            ),
        )
    if not episode.open:
        since = episode.safe_at
        summary = f"{episode.re_erased} erased again, {episode.left_alone} left alone"
        if episode.released_because is not None:
            summary = f"released by a person; {summary}"
        return ConditionSet(
            "SafeToServe",
            (
                Condition("Ready", ConditionStatus.TRUE, "SafeToServe", summary, since),
                permitted,
                Condition("Replayed", ConditionStatus.TRUE, "AllReErased", summary, since),
                Condition("SafeToServe", ConditionStatus.TRUE, "Verified", summary, since),
            ),
        )
    kind, message = replay or ("Replaying", "the store went back in time; its erasures are applied again")
    shown = "Replaying" if kind == "Waiting" else kind
    ready = Condition("Ready", ConditionStatus.FALSE, shown, message)
    stalled = kind == "MappingDoesNotFit"
    asks = kind in ("IdentityUnclear", "HeldRowsReturned", "AwaitingRelease")
    return ConditionSet(
        "Stalled" if stalled else shown,
        (
            *with_progress(ready, stalled=stalled, working=not stalled and not asks),
            permitted,
            Condition(
                "Replayed", ConditionStatus.FALSE, "Waiting" if kind == "Waiting" else "Replaying", message
            ),
            Condition("SafeToServe", ConditionStatus.FALSE, shown, message),
        ),
    )


def rows_told(counts: Mapping[str, int]) -> Mapping[str, int]:
    """Return the rows by table that status shows: those that there were."""
    return {table: rows for table, rows in sorted(counts.items()) if rows}
