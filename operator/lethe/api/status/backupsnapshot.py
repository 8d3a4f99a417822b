"""The status of a BackupSnapshot."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from lethe.api.status.base import rendered_conditions
from lethe.domain.conditions.base import ConditionSet
from lethe.domain.periods import Period, instant
from lethe.domain.snapshots import SnapshotRecord


def backupsnapshot_status(
    record: SnapshotRecord, condition_set: ConditionSet, retention: Period, *, generation: int
) -> dict[str, Any]:
    """Return the status of a BackupSnapshot: a function of what is known, so that equal means unchanged.

    What is not so is given as null, for a merge patch.
    """
    return {
        "state": condition_set.state,
        "observedGeneration": generation,
        "conditions": rendered_conditions(condition_set, {}, generation=generation, now=record.first_seen_at),
        "expiresAt": instant(record.expires_at(retention)),
        "deletedAt": instant(record.deleted_at) if record.deleted_at else None,
        "purgedAt": instant(record.purged_at) if record.purged_at else None,
        "rewrittenAt": instant(record.rewrite.at) if record.rewrite else None,
        "cleanedUntil": instant(record.rewrite.cleaned_until) if record.rewrite else None,
    }


def unowned_backupsnapshot_status(
    condition_set: ConditionSet, *, generation: int, since: datetime
) -> dict[str, Any]:
    """Return the status of a BackupSnapshot that Lethe knows nothing of; for a merge patch."""
    return {
        "state": condition_set.state,
        "observedGeneration": generation,
        "conditions": rendered_conditions(condition_set, {}, generation=generation, now=since),
        **dict.fromkeys(("expiresAt", "deletedAt", "purgedAt", "rewrittenAt", "cleanedUntil")),
    }
