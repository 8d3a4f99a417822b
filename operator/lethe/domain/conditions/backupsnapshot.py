"""Where a BackupSnapshot stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lethe.domain.conditions.base import FALSE, TRUE, UNKNOWN, Condition, ConditionSet, with_progress
from lethe.domain.periods import Period, instant
from lethe.domain.pruning import RetentionHold
from lethe.domain.snapshots import SnapshotRecord, SnapshotState

LOCKED = "ObjectLocked"
MISMATCH = "IdentityMismatch"


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Why a snapshot that is due has not gone: a reason in one word, and a message for a person."""

    reason: str
    message: str


def backupsnapshot_conditions(  # noqa: PLR0911 - one return for each way to stand
    record: SnapshotRecord,
    retention: Period,
    *,
    now: datetime,
    held: RetentionHold | None = None,
    difficulty: Difficulty | None = None,
    elsewhere: str | None = None,
) -> ConditionSet:
    """Say where a BackupSnapshot stands. `now` only tells whether it is overdue.

    `elsewhere` is the place that holds it, where its source looked before.
    """
    expires = record.expires_at(retention)
    free = Condition("Held", FALSE, "NoHold", "nothing keeps it beyond its time", record.first_seen_at)
    if record.purged_at is not None:
        message = "looked for after its deletion: nothing of it is left where it lay"
        return ConditionSet(
            SnapshotState.PURGED,
            (
                Condition("Ready", TRUE, "Purged", message, record.purged_at),
                free,
                Condition("Purged", TRUE, "Verified", message, record.purged_at),
            ),
        )
    if elsewhere is not None:
        message = (
            f"it lies in {elsewhere[:200]}, where its BackupSource looked before; it counts as a copy until "
            "a source that looks there has proven it gone"
        )
        return ConditionSet(
            SnapshotState.MISSING,
            (
                *with_progress(
                    Condition("Ready", FALSE, "PlaceChanged", message, record.first_seen_at), stalled=True
                ),
                free,
                Condition("Purged", FALSE, "NotDue", message, record.first_seen_at),
            ),
        )
    if record.deleted_at is not None:
        message = difficulty.message if difficulty else "deleted; its bytes are looked for at the next scan"
        return ConditionSet(
            SnapshotState.DELETED,
            (
                *with_progress(Condition("Ready", FALSE, "Overdue", message, expires), working=True),
                free,
                Condition("Purged", FALSE, "DeletedUnproven", message, record.first_seen_at),
            ),
        )
    not_due = Condition("Purged", FALSE, "NotDue", f"not before {instant(expires)}", record.first_seen_at)
    if held is RetentionHold.UNSAID:
        message = f"its time was over at {instant(expires)}; it is looked at with every scan"
        return ConditionSet(
            SnapshotState.PRESENT,
            (
                Condition("Ready", TRUE, "Retained", message, record.first_seen_at),
                Condition("Held", UNKNOWN, "Pending", message, expires),
                not_due,
            ),
        )
    if held is not None:
        message = (
            "a legal hold keeps it"
            if held is RetentionHold.LEGAL_HOLD
            else f"its time was over at {instant(expires)}, and it is the only snapshot left; take a newer "
            "one, or set spec.lastSnapshot of the BackupSource to Prune"
        )
        return ConditionSet(
            SnapshotState.HELD,
            (
                Condition("Ready", TRUE, "Retained", message, record.first_seen_at),
                Condition("Held", TRUE, held.value, message, expires),
                not_due,
            ),
        )
    if not record.pieces or record.vanished_at is not None:
        message = (
            "not in its source any more, and Lethe did not delete it; it counts as a copy until "
            f"{instant(expires)}, since it may lie elsewhere"
            if record.pieces
            else f"not seen in its source; it counts as a copy until {instant(expires)}"
        )
        since = record.vanished_at or record.first_seen_at
        return ConditionSet(
            SnapshotState.MISSING,
            (
                *with_progress(Condition("Ready", FALSE, "Vanished", message, since), stalled=True),
                free,
                not_due,
            ),
        )
    if now >= expires:
        reason = difficulty.reason if difficulty else "Overdue"
        message = difficulty.message if difficulty else f"its time was over at {instant(expires)}"
        mismatch = reason == MISMATCH
        ready = Condition("Ready", FALSE, MISMATCH if mismatch else "Overdue", message, expires)
        return ConditionSet(
            SnapshotState.OVERDUE,
            (
                *with_progress(ready, stalled=mismatch, working=not mismatch),
                free,
                Condition(
                    "Purged", FALSE, reason if reason == LOCKED else "Overdue", message, record.first_seen_at
                ),
            ),
        )
    if record.replaced:
        message = (
            "its content was replaced under its name, and its dates stayed as old as they were; it counts as "
            f"taken when that was seen, at {instant(record.first_seen_at)}"
        )
        ready = Condition("Ready", FALSE, MISMATCH, message, record.first_seen_at)
        return ConditionSet(SnapshotState.PRESENT, (*with_progress(ready, stalled=True), free, not_due))
    return ConditionSet(
        SnapshotState.PRESENT,
        (
            Condition("Ready", TRUE, "Retained", f"until {instant(expires)}", record.first_seen_at),
            free,
            not_due,
        ),
    )


def unowned_backupsnapshot_conditions(reason: str, message: str) -> ConditionSet:
    """Say where a BackupSnapshot stands that somebody has applied and that is none Lethe knows of."""
    return ConditionSet(
        SnapshotState.MISSING,
        (
            *with_progress(Condition("Ready", FALSE, reason, message), stalled=True),
            Condition("Held", FALSE, "NoHold", "nothing keeps it beyond its time"),
            Condition("Purged", FALSE, "NotDue", message),
        ),
    )
