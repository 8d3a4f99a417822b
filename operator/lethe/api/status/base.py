"""What the status of every kind has: plain JSON, times in UTC seconds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lethe.domain.conditions.base import FALSE, Condition, ConditionSet, with_progress
from lethe.domain.periods import instant
from lethe.domain.trouble import Trouble

MAX_ENTRIES = 64
MAX_NAMES = 16
MAX_MESSAGE = 4000


def rendered_conditions(
    condition_set: ConditionSet, previous: Mapping[str, Any], *, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Return the conditions; one whose status has not changed keeps its time."""
    before = {c.get("type"): c for c in previous.get("conditions", ())}
    return [_rendered(c, before.get(c.type), generation, now) for c in condition_set.conditions]


def _rendered(
    condition: Condition, before: Mapping[str, Any] | None, generation: int, now: datetime
) -> dict[str, Any]:
    kept = before is not None and before.get("status") == condition.status.value
    since = before.get("lastTransitionTime") if kept and before else None
    if condition.since is not None:
        since = instant(condition.since)
    return {
        "type": condition.type,
        "status": condition.status.value,
        "reason": condition.reason,
        "message": condition.message[:MAX_MESSAGE],
        "observedGeneration": generation,
        "lastTransitionTime": since or instant(now),
    }


def troubled_status(
    trouble: Trouble, previous: Mapping[str, Any], *, generation: int, now: datetime
) -> dict[str, Any]:
    """Return the status of an object over which Lethe failed; all else stays as it was said before."""
    ready = Condition("Ready", FALSE, trouble.reason.value, trouble.message)
    progress = with_progress(ready, working=True)
    said = rendered_conditions(ConditionSet(None, progress), previous, generation=generation, now=now)
    replaced = ("Ready", "Reconciling", "Stalled")
    kept = [one for one in previous.get("conditions", ()) if one.get("type") not in replaced]
    return {**previous, "observedGeneration": generation, "conditions": [*said, *kept]}
