"""The status of a DeletionRequest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lethe.api.status.base import MAX_ENTRIES, rendered_conditions
from lethe.domain.conditions.base import ConditionSet
from lethe.domain.periods import instant
from lethe.domain.requests import UNCONFIRMED, RequestRecord, StoreState
from lethe.domain.trust import Blocker, BlockReason


def deletionrequest_status(
    record: RequestRecord | None,
    condition_set: ConditionSet,
    blockers: Mapping[str, Blocker],
    attempts: Mapping[str, int],
    previous: Mapping[str, Any],
    *,
    generation: int,
    now: datetime,
    last_copy_gone_at: datetime | None = None,
    rehearsed_at: datetime | None = None,
) -> dict[str, Any]:
    """Return the status of a DeletionRequest. `blockers` and `attempts` are by store."""
    status: dict[str, Any] = {
        "state": condition_set.state,
        "observedGeneration": generation,
        "conditions": rendered_conditions(condition_set, previous, generation=generation, now=now),
    }
    if record is None:
        return status
    status["acceptedAt"] = instant(record.accepted.accepted_at)
    status["dueAt"] = instant(record.accepted.due_at)
    if record.completed_at is not None and condition_set.state in ("Erased", "Purged"):
        status["erasedAt"] = instant(record.completed_at)
    names = sorted({*record.stores, *blockers})[:MAX_ENTRIES]
    status["stores"] = [
        _store_entry(record, name, blockers.get(name), attempts.get(name, 0)) for name in names
    ]
    told = {"lastCopyGoneAt": last_copy_gone_at, "rehearsedAt": rehearsed_at}
    backups = {name: instant(at) for name, at in told.items() if at is not None}
    before = (previous.get("backups") or {}).get("rehearsedAt")
    if record.purged_at is not None and before is not None:  # later drills show nothing of it any more
        backups["rehearsedAt"] = before
    if backups:
        status["backups"] = backups
    status["ledger"] = {"sequence": record.sequence, "digest": record.digest}
    return status


_SHOWN_BLOCKS: Mapping[BlockReason, str] = {
    BlockReason.STORE_UNREACHABLE: "Unreachable",
    BlockReason.VALUE_REFUSED: "Refused",
    BlockReason.HELD: "Held",
    BlockReason.FIND_UNTRUSTED: "Finding",
    BlockReason.SHARED_RECORD: "Finding",
    BlockReason.KEY_ABOVE_RESTORE: "Finding",
}


def _store_entry(record: RequestRecord, name: str, blocker: Blocker | None, attempts: int) -> dict[str, Any]:
    progress = record.progress(name)
    shown = "Erasing" if progress.state is StoreState.INTENDED else progress.state.value
    entry: dict[str, Any] = {"name": name.rpartition("/")[2], "state": shown}
    if progress.state.settled:
        if progress.counts:
            entry["erased"] = {table: rows for table, rows in sorted(progress.counts.items()) if rows}
        if progress.at is not None and progress.state is StoreState.VERIFIED:
            entry["erasedAt"] = instant(progress.at)
        if progress.proof == UNCONFIRMED:
            entry["message"] = "an erasure had begun here, and nobody has seen whether it was carried out"
        elif progress.proof is not None:
            entry["message"] = f"proof: {progress.proof}"
        return entry
    if blocker is not None and blocker.reason is not BlockReason.PENDING:
        entry["state"] = _SHOWN_BLOCKS.get(blocker.reason, shown)
        entry["reason"] = blocker.reason.value
        entry["message"] = blocker.message[:500]
        entry["attempts"] = attempts
    return entry
