"""From what is known of sources and snapshots to conditions: pure functions, one for each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lethe.domain.conditions import Condition, ConditionSet, ConditionStatus, with_progress
from lethe.domain.periods import Period, instant
from lethe.domain.pruning import PruneBlock, RetentionHold
from lethe.domain.snapshots import SnapshotRecord, SnapshotState
from lethe.domain.trouble import Trouble

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN

LOCKED = "ObjectLocked"
MISMATCH = "IdentityMismatch"


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Why a snapshot that is due has not gone: a reason in one word, and a message for a person."""

    reason: str
    message: str


def conditions_of_snapshot(  # noqa: PLR0911 - one return for each way to stand
    record: SnapshotRecord,
    retention: Period,
    *,
    now: datetime,
    held: RetentionHold | None = None,
    difficulty: Difficulty | None = None,
) -> ConditionSet:
    """Say where a BackupSnapshot stands. `now` only tells whether it is overdue."""
    expires = record.expires_at(retention)
    free = Condition("Held", FALSE, "NoHold", "nothing keeps it beyond its time", record.first_seen_at)
    if record.purged_at is not None:
        message = "looked for after its deletion: no byte of it is left"
        return ConditionSet(
            SnapshotState.PURGED,
            (
                Condition("Ready", TRUE, "Purged", message, record.purged_at),
                free,
                Condition("Purged", TRUE, "Verified", message, record.purged_at),
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


def conditions_of_unowned(reason: str, message: str) -> ConditionSet:
    """Say where a BackupSnapshot stands that somebody has applied and that is none Lethe knows of."""
    return ConditionSet(
        SnapshotState.MISSING,
        (
            *with_progress(Condition("Ready", FALSE, reason, message), stalled=True),
            Condition("Held", FALSE, "NoHold", "nothing keeps it beyond its time"),
            Condition("Purged", FALSE, "NotDue", message),
        ),
    )


@dataclass(frozen=True, slots=True)
class SourceObservation:
    """What is known of a source now. `trouble` is `(reason, message)`; `None` is well.

    `waits` says why nothing is pruned. `difficulties` are those of single snapshots. `longest` is what
    `LETHE_RETENTION` allows, `ever_seen` whether any listing has shown a snapshot, `unknown_stores` what
    `spec.stores` names and nobody has applied.
    """

    scanned: bool
    trouble: Trouble | None = None
    too_long: bool = False
    unparsable: Sequence[str] = ()
    waits: PruneBlock | None = None
    waits_message: str = ""
    difficulties: Sequence[Difficulty] = ()
    held_last: bool = False
    held_legally: int = 0
    next_message: str = ""
    longest: str = ""
    ever_seen: bool = True
    unknown_stores: Sequence[str] = ()


def conditions_of_source(observed: SourceObservation) -> ConditionSet:
    """Say where a BackupSource stands."""
    ready = _ready_of_source(observed)
    troubled = observed.trouble is not None and observed.trouble.reason.stalls
    stalled = ready.reason in ("RetentionTooLong", "NameUnparsable") or troubled
    effective = _retention_effective(observed)
    working = ready.status is not TRUE and not stalled
    conditions = [*with_progress(ready, stalled=stalled, working=working)]
    if effective is not None:
        conditions.append(effective)
    return ConditionSet(None, tuple(conditions))


def _ready_of_source(observed: SourceObservation) -> Condition:
    if observed.too_long:
        return Condition(
            "Ready",
            FALSE,
            "RetentionTooLong",
            f"spec.retention is longer than the {observed.longest} that LETHE_RETENTION allows; shorten it. "
            "Nothing is pruned until then",
        )
    if observed.trouble is not None:
        return Condition("Ready", FALSE, observed.trouble.reason.value, observed.trouble.message)
    if not observed.scanned:
        return Condition("Ready", ConditionStatus.UNKNOWN, "Pending", "not listed yet")
    if observed.unparsable:
        named = ", ".join(observed.unparsable[:4])
        return Condition(
            "Ready",
            FALSE,
            "NameUnparsable",
            f"{len(observed.unparsable)} names don't tell when they were taken ({named}); correct the name "
            "pattern, or move them elsewhere. They are never deleted",
        )
    message = "every snapshot that lies there is known"
    if not observed.ever_seen:
        message = (
            "no snapshot has been seen here yet, which proves nothing; are place, prefix and name right?"
        )
    if observed.unknown_stores:
        message += f"; no DataStore is called {', '.join(observed.unknown_stores)}"
    return Condition("Ready", TRUE, "Scanned", message)


def _retention_effective(  # noqa: PLR0911 - one return for each reason, the gravest first
    observed: SourceObservation,
) -> Condition | None:
    kind = "RetentionEffective"
    if observed.trouble is not None:
        return Condition(kind, FALSE, "BackendUnavailable", observed.trouble.message)
    if not observed.scanned and observed.waits is None:
        return None
    if observed.waits is not None:
        return Condition(kind, FALSE, observed.waits.value, observed.waits_message)
    for reason, shown in ((LOCKED, LOCKED), ("DeletedUnproven", "VersionsRemain"), (None, None)):
        found = [one for one in observed.difficulties if reason in (None, one.reason)]
        if found:
            first = found[0]
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            return Condition(kind, FALSE, shown or first.reason, f"{first.message}{more}")
    if observed.held_last:
        return Condition(
            kind,
            FALSE,
            "LastSnapshotHeld",
            "the only snapshot left is past its time and kept; take a newer one, or set spec.lastSnapshot to "
            "Prune",
        )
    if observed.held_legally:
        message = f"a legal hold keeps {observed.held_legally} snapshots that are past their time"
        return Condition(kind, FALSE, "LegalHold", message)
    if observed.unparsable:
        message = f"{len(observed.unparsable)} names don't tell when they were taken, so they never expire"
        return Condition(kind, FALSE, "NameUnparsable", message)
    return Condition(kind, TRUE, "WithinRetention", observed.next_message or "nothing is past its time")
