"""Which snapshots die now, which are held, and what keeps the others: pure decisions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from lethe.domain.periods import Period
from lethe.domain.snapshots import SnapshotRecord


class RetentionHold(StrEnum):
    """Why a snapshot is kept although its time is over."""

    LEGAL_HOLD = "LegalHold"
    UNSAID = "Unsaid"
    """A legal hold of which nobody may be told: it shows nowhere."""
    LAST_SNAPSHOT = "LastSnapshot"


class PruneBlock(StrEnum):
    """Why nothing is pruned in a source."""

    SUSPENDED = "Suspended"
    RETENTION_TOO_LONG = "RetentionTooLong"
    CLOCKS_DISAGREE = "ClocksDisagree"
    AWAITING_CONFIRMATION = "AwaitingConfirmation"


@dataclass(frozen=True, slots=True)
class PruneRules:
    """What a BackupSource says of pruning.

    `confirmed` is `spec.confirmPrunes`, unless it was used up; `used_confirmations` are the values that were.
    """

    retention: Period
    hold_last: bool = True
    most_per_run: int = 10
    confirmed: int | None = None
    used_confirmations: frozenset[int] = frozenset()
    suspended: bool = False
    too_long: bool = False


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What is to be done about a source's snapshots now.

    `to_delete` are to be deleted and proven gone, `due` counts those of them for whose deletion nobody has
    stood in yet: neither the limit nor a person let them go in an earlier run. `held` are
    past their time and kept for a reason. `waits` says why nothing goes although something is due.
    `next` is the snapshot that goes next, with the moment.
    """

    to_delete: tuple[SnapshotRecord, ...] = ()
    due: int = 0
    held: Mapping[str, RetentionHold] = field(default_factory=dict)
    waits: PruneBlock | None = None
    message: str = ""
    next: tuple[SnapshotRecord, datetime] | None = None


def prune_plan(
    snapshots: Iterable[SnapshotRecord],
    rules: PruneRules,
    *,
    now: datetime,
    held_stores: Mapping[str, RetentionHold] | None = None,
    clocks_disagree: str | None = None,
) -> PrunePlan:
    """Decide what is pruned. `held_stores` are under a legal hold of some kind: no snapshot of theirs dies.

    A snapshot is due when every evidence of its date is past retention. One that has vanished is looked
    for once it is due. The newest that is there never goes under `hold_last`.
    """
    held_stores = held_stores or {}
    live = [snapshot for snapshot in snapshots if snapshot.live]
    expiry = {snapshot.ref: snapshot.expires_at(rules.retention) for snapshot in live}
    live.sort(key=lambda snapshot: (expiry[snapshot.ref], snapshot.ref))
    present = [snapshot for snapshot in live if snapshot.present and snapshot.deleted_at is None]
    newest = max(
        present, key=lambda snapshot: (snapshot.latest, snapshot.taken_at, snapshot.ref), default=None
    )
    held: dict[str, RetentionHold] = {}
    to_delete: list[SnapshotRecord] = []
    upcoming: tuple[SnapshotRecord, datetime] | None = None
    for snapshot in live:
        kept = {held_stores[store] for store in snapshot.stores if store in held_stores}
        if expiry[snapshot.ref] > now:
            if RetentionHold.LEGAL_HOLD not in kept:  # one that is kept in secret is announced like any other
                upcoming = upcoming or (snapshot, expiry[snapshot.ref])
        elif kept:
            held[snapshot.ref] = (
                RetentionHold.LEGAL_HOLD if RetentionHold.LEGAL_HOLD in kept else RetentionHold.UNSAID
            )
        elif rules.hold_last and newest is not None and snapshot.ref == newest.ref:
            held[snapshot.ref] = RetentionHold.LAST_SNAPSHOT
        else:
            to_delete.append(snapshot)
    due = sum(1 for snapshot in to_delete if snapshot.present and snapshot.intended_at is None)
    first = (to_delete[0], expiry[to_delete[0].ref]) if to_delete else upcoming
    waits = _what_waits(rules, due, clocks_disagree)
    if waits is not None and (to_delete or waits[0] is not PruneBlock.AWAITING_CONFIRMATION):
        return PrunePlan((), due, held, *waits, first)
    return PrunePlan(tuple(to_delete), due, held, None, "", first)


def _what_waits(rules: PruneRules, due: int, clocks_disagree: str | None) -> tuple[PruneBlock, str] | None:
    if rules.too_long:
        return PruneBlock.RETENTION_TOO_LONG, "spec.retention is longer than LETHE_RETENTION allows"
    if rules.suspended:
        return PruneBlock.SUSPENDED, f"spec.suspend is set; {due} would go"
    if clocks_disagree is not None:
        return PruneBlock.CLOCKS_DISAGREE, f"nothing is pruned: {clocks_disagree}"
    if due > max(rules.most_per_run, rules.confirmed or 0):
        # A value that was used up once is used up for ever: the next one covers as many.
        wanted = next(count for count in itertools.count(due) if count not in rules.used_confirmations)
        message = (
            f"{due} snapshots are due at once, and spec.maxPrunesPerRun is {rules.most_per_run}; if that is "
            f"right, set spec.confirmPrunes to {wanted}"
        )
        return PruneBlock.AWAITING_CONFIRMATION, message
    return None
