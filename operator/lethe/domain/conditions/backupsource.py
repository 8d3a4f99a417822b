"""Where a BackupSource stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lethe.domain.conditions.backupsnapshot import LOCKED, Difficulty
from lethe.domain.conditions.base import (
    FALSE,
    TRUE,
    UNKNOWN,
    Condition,
    ConditionSet,
    plaintext_allowed,
    with_progress,
)
from lethe.domain.pruning import PruneBlock
from lethe.domain.trouble import Trouble

_NAMES = {
    "NameUnparsable": "don't tell when they were taken ({}); correct the name pattern, or move them "
    "elsewhere. They are never deleted",
    "LeftUnfinished": "have been unfinished for over a day ({}), and nothing is proven of whoever was erased "
    "since they began; remove them (abort an upload), or finish them. They are never deleted",
    "NameAfterContent": "tell a moment after their content was written ({}), so nothing tells when it began; "
    "name backups in UTC, or with the zone and %z in the pattern. These count as begun up to 14 hours before",
}


@dataclass(frozen=True, slots=True)
class BackupSourceObservation:
    """What is known of a source now. `trouble` `None` is well.

    `waits` says why nothing is pruned. `difficulties` are those of single snapshots. `longest` is what
    `LETHE_RETENTION` allows, `ever_seen` whether any listing has shown a snapshot, `unknown_stores` what
    `spec.stores` names and nobody has applied. `elsewhere` counts live snapshots by the places where the
    source looked before. `misdated` are named by a moment after their content was written, `left_behind` have
    been unfinished for over a day, `unfinished_overdue` of them for longer than a snapshot may live.
    `plaintext` is the field that lets it do without TLS.
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
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    misdated: Sequence[str] = ()
    left_behind: Sequence[str] = ()
    unfinished_overdue: Sequence[str] = ()
    plaintext: str | None = None


def backupsource_conditions(observed: BackupSourceObservation) -> ConditionSet:
    """Say where a BackupSource stands."""
    ready = _ready(observed)
    troubled = observed.trouble is not None and observed.trouble.reason.stalls
    stalled = (
        ready.reason in ("RetentionTooLong", "NameUnparsable", "LeftUnfinished", "NameAfterContent")
        or troubled
    )
    effective = _retention_effective(observed)
    working = ready.status is not TRUE and not stalled
    conditions = [*with_progress(ready, stalled=stalled, working=working)]
    conditions += plaintext_allowed(observed.plaintext)
    if effective is not None:
        conditions.append(effective)
    return ConditionSet(None, tuple(conditions))


def _ready(observed: BackupSourceObservation) -> Condition:
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
        return Condition("Ready", UNKNOWN, "Pending", "not listed yet")
    if (names := _names_trouble(observed)) is not None:
        return Condition("Ready", FALSE, *names)
    message = "every snapshot that lies there is known"
    if not observed.ever_seen:
        message = (
            "no snapshot has been seen here yet, which proves nothing; are place, prefix and name right?"
        )
    if observed.unknown_stores:
        message += f"; no DataStore is called {', '.join(observed.unknown_stores)}"
    return Condition("Ready", TRUE, "Scanned", message)


def _names_trouble(observed: BackupSourceObservation) -> tuple[str, str] | None:
    """Return reason and message of names that lie there and that a person should look at."""
    for reason, names in (
        ("NameUnparsable", observed.unparsable),
        ("LeftUnfinished", observed.left_behind),
        ("NameAfterContent", observed.misdated),
    ):
        if names:
            return reason, f"{len(names)} names {_NAMES[reason].format(', '.join(names[:4]))}"
    return None


def _retention_effective(  # noqa: PLR0911 - one return for each reason, the gravest first
    observed: BackupSourceObservation,
) -> Condition | None:
    kind = "RetentionEffective"
    if observed.trouble is not None:
        return Condition(kind, FALSE, "BackendUnavailable", observed.trouble.message)
    if not observed.scanned and observed.waits is None:
        return None
    if observed.waits is not None:
        return Condition(kind, FALSE, observed.waits.value, observed.waits_message)
    for reason, shown in ((LOCKED, LOCKED), ("DeletedUnproven", "VersionsRemain"), (None, None)):
        found = [difficulty for difficulty in observed.difficulties if reason in (None, difficulty.reason)]
        if found:
            first = found[0]
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            return Condition(kind, FALSE, shown or first.reason, f"{first.message}{more}")
    if observed.elsewhere:
        named = ", ".join(f"{count} in {place[:200]}" for place, count in sorted(observed.elsewhere.items()))
        return Condition(
            kind,
            FALSE,
            "PlaceChanged",
            f"snapshots that are not proven gone lie where this source looked before: {named}. Nobody looks "
            "there now; apply a BackupSource for that place and the same names until they are gone",
        )
    if observed.unfinished_overdue:
        message = (
            f"{len(observed.unfinished_overdue)} unfinished backups are past their time "
            f"({', '.join(observed.unfinished_overdue[:4])}) and never deleted by Lethe; remove them"
        )
        return Condition(kind, FALSE, "LeftUnfinished", message)
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
