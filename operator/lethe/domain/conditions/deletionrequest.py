"""Where a DeletionRequest stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from lethe.domain.conditions.base import FALSE, TRUE, UNKNOWN, Condition, ConditionSet, with_progress
from lethe.domain.facts import Outcome
from lethe.domain.requests import UNCONFIRMED, RequestRecord, StoreState
from lethe.domain.snapshots import CopiesLeft
from lethe.domain.trust import Blocker, BlockReason

_STALLING = frozenset({BlockReason.VALUE_REFUSED, BlockReason.NAME_REUSED})
_ASKS_A_PERSON = frozenset(
    {
        BlockReason.NOTHING_FOUND,
        BlockReason.NOTHING_TO_ASK_BY,
        BlockReason.FIND_UNTRUSTED,
        BlockReason.SHARED_RECORD,
        BlockReason.KEY_ABOVE_RESTORE,
    }
)
_GRAVITY = (
    BlockReason.INTERNAL_ERROR,
    BlockReason.NAME_REUSED,
    BlockReason.SECRET_MISSING,
    BlockReason.VALUE_REFUSED,
    BlockReason.SHARED_RECORD,
    BlockReason.KEY_ABOVE_RESTORE,
    BlockReason.FIND_UNTRUSTED,
    BlockReason.HELD,
    BlockReason.NOTHING_FOUND,
    BlockReason.NOTHING_TO_ASK_BY,
    BlockReason.STORE_UNREACHABLE,
    BlockReason.PENDING,
    BlockReason.ERASING,
)


def gravest(blockers: Sequence[Blocker]) -> Blocker | None:
    """Return what a person should hear first; `None` where nothing blocks."""
    return min(blockers, key=lambda blocker: _GRAVITY.index(blocker.reason), default=None)


@dataclass(frozen=True, slots=True)
class BackupsObservation:
    """What is known of the backups that may hold an erased person.

    `without_backups`: no store has any, as their DataStores state. `held`: a snapshot among them is kept
    beyond its time for a reason.
    """

    left: CopiesLeft = field(default_factory=CopiesLeft)
    without_backups: bool = False
    held: bool = False


def deletionrequest_conditions(
    record: RequestRecord | None,
    blockers: Sequence[Blocker],
    *,
    backups: BackupsObservation = BackupsObservation(),
    now: datetime,
) -> ConditionSet:
    """Say where a DeletionRequest stands."""
    no_hold = Condition("Held", FALSE, "NoHold", "no legal hold keeps this person's data")
    if record is not None and record.outcome is Outcome.ERASED:
        return _erased(record, no_hold, backups, now)
    if record is not None and record.outcome is Outcome.PLANNED:
        message = f"dry run, nothing was changed; would erase {_rows_summary(record, StoreState.PLANNED)}"
        since = record.completed_at
        return ConditionSet(
            "Planned",
            (
                Condition("Ready", TRUE, "Planned", message, since),
                no_hold,
                Condition("Erased", FALSE, "Planned", message, since),
                Condition("Purged", FALSE, "NotErased", "a dry run erases nothing", since),
            ),
        )
    # Who is held in secret must look like everybody else: that blocker is passed over.
    sayable = [blocker for blocker in blockers if blocker.reason is not BlockReason.PENDING]
    worst = gravest(sayable) or _unblocked(record)
    stalled = worst.reason in _STALLING
    ready = Condition("Ready", FALSE, worst.reason.value, worst.message)
    working = not stalled and worst.reason not in (*_ASKS_A_PERSON, BlockReason.HELD)
    return ConditionSet(
        _state_of_open(record, worst.reason),
        (
            *with_progress(ready, stalled=stalled, working=working),
            _held_of_open(worst),
            Condition("Erased", FALSE, worst.reason.value, worst.message),
            Condition("Purged", FALSE, "NotErased", "not erased everywhere yet"),
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
        return Condition("Held", TRUE, "LegalHold", worst.message)
    message = "holds are looked for when the request is carried out"
    return Condition("Held", UNKNOWN, "Pending", message)


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
    begun = [_short(name) for name, one in sorted(record.stores.items()) if one.proof == UNCONFIRMED]
    if begun:
        message += f"; not seen to be erased in {', '.join(begun)}, which is a third party's since"
    purged = _purged(record, backups, now)
    return ConditionSet(
        "Purged" if purged.status is TRUE else "Erased",
        (
            Condition("Ready", TRUE, "Erased", message, since),
            no_hold,
            Condition("Erased", TRUE, "Verified", message, since),
            purged,
        ),
    )


def _purged(record: RequestRecord, backups: BackupsObservation, now: datetime) -> Condition:
    """Say whether any backup still holds an erased person: proven, or not claimed."""
    since, left = record.completed_at, backups.left
    if backups.without_backups:
        return Condition("Purged", TRUE, "NoBackups", "the stores have no backups", since)
    if record.purged_at is not None:
        message = "the last snapshot that held this person is proven gone"
        return Condition("Purged", TRUE, "Verified", message, record.purged_at)
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
    return Condition("Purged", FALSE, reason, message, since)


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
