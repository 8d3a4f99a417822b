"""The status of a RestoreDrill."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lethe.api.status.base import rendered_conditions
from lethe.domain.conditions.base import ConditionSet
from lethe.domain.drills import DrillRecord
from lethe.domain.periods import instant


def restoredrill_status(
    record: DrillRecord | None,
    condition_set: ConditionSet,
    previous: Mapping[str, Any],
    *,
    generation: int,
    now: datetime,
    next_at: datetime | None,
    history: int,
) -> dict[str, Any]:
    """Return the status of a RestoreDrill; of the drills before, as many as `history`."""
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "conditions": rendered_conditions(condition_set, previous, generation=generation, now=now),
    }
    if next_at is not None:
        status["nextAt"] = instant(next_at)
    if record is None:
        return status
    begun, ended = record.started, record.ended
    status["lastStartedAt"] = instant(begun.at)
    status["lastSnapshot"] = {"ref": begun.snapshot[:1024], "takenAt": instant(begun.taken_at)}
    if record.passed_at is not None:
        status["lastPassedAt"] = instant(record.passed_at)
    past = [
        {"startedAt": instant(one.started_at), "result": one.result.value, "snapshot": one.snapshot[:1024]}
        for one in record.past[:history]
    ]
    if past:
        status["history"] = past
    if ended is None:
        return status
    status |= {"lastEndedAt": instant(ended.at), "result": ended.result.value}
    if ended.rewrite is not None:
        status["rewrite"] = ended.rewrite.value
    measures = {
        "databaseBytes": ended.size,
        "restoredIn": _seconds(ended.restore_seconds),
        "erasedAgainIn": _seconds(ended.replay_seconds),
        "verifiedIn": _seconds(ended.verification_seconds),
    }
    findings = {"erasedAgain": ended.erased_again, "leftAlone": ended.left_alone, "missed": ended.missed}
    for name, told in (("measures", measures), ("findings", findings)):
        known = {key: value for key, value in told.items() if value is not None}
        if known:
            status[name] = known
    return status


def _seconds(seconds: float | None) -> str | None:
    """Return how long something took, as Kubernetes writes durations."""
    if seconds is None:
        return None
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
