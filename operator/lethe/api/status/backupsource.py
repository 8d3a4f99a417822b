"""The status of a BackupSource."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lethe.api.status.base import MAX_NAMES, rendered_conditions
from lethe.domain.conditions.base import ConditionSet
from lethe.domain.periods import instant


def backupsource_status(
    condition_set: ConditionSet,
    previous: Mapping[str, Any],
    *,
    generation: int,
    now: datetime,
    counts: Mapping[str, int] | None,
    oldest: datetime | None,
    scanned_at: datetime | None,
    next_: tuple[str, datetime] | None,
    unparsable: Sequence[str],
    partial: Sequence[str],
) -> dict[str, Any]:
    """Return the status of a BackupSource. `next_` is the ref that goes next, and when."""
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "conditions": rendered_conditions(condition_set, previous, generation=generation, now=now),
    }
    if counts is not None:
        status["snapshots"] = dict(counts)
    if oldest is not None:
        status["oldestTakenAt"] = instant(oldest)
    if scanned_at is not None:
        status["lastScanAt"] = instant(scanned_at)
    if next_ is not None:
        status["next"] = {"ref": next_[0], "at": instant(next_[1])}
    for name, names in (("unparsable", unparsable), ("partial", partial)):
        if names:
            status[name] = [text[:1024] for text in sorted(names)[:MAX_NAMES]]
    return status
