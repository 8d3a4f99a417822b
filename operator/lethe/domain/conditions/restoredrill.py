"""Where a RestoreDrill stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lethe.domain.conditions.base import FALSE, TRUE, UNKNOWN, Condition, ConditionSet, with_progress
from lethe.domain.drill_facts import DrillEnded, DrillResult
from lethe.domain.periods import instant
from lethe.domain.trouble import Trouble


@dataclass(frozen=True, slots=True)
class DrillObservation:
    """What is known of a drill now. `trouble` is why none can begin, `running` says what goes on (`None`:
    nothing does), `ended` is how the last one went, `next_at` when the next is due (`None`: none is).
    """

    trouble: Trouble | None = None
    running: str | None = None
    suspended: bool = False
    ended: DrillEnded | None = None
    next_at: datetime | None = None


def restoredrill_conditions(observed: DrillObservation) -> ConditionSet:
    """Say where a RestoreDrill stands."""
    ready, ended = _ready(observed), observed.ended
    failed = ended is not None and ended.result.counts_as_failure and ready.reason == ended.result.value
    stalled = failed or (observed.trouble is not None and observed.trouble.reason.stalls)
    working = ready.status is not TRUE and ready.reason != "Suspended" and not stalled
    conditions = with_progress(ready, stalled=stalled, working=working)
    if ended is None:
        passed = Condition("Passed", UNKNOWN, "Pending", "none has ended yet")
    else:
        failed_or_not = FALSE if ended.result.counts_as_failure else UNKNOWN
        status = TRUE if ended.result is DrillResult.PASSED else failed_or_not
        passed = Condition("Passed", status, ended.result.value, ended.message)
    return ConditionSet(None, (*conditions, passed))


def _ready(observed: DrillObservation) -> Condition:
    ended = observed.ended
    if observed.running is not None:
        return Condition("Ready", UNKNOWN, "Running", observed.running)
    if observed.trouble is not None:
        return Condition("Ready", FALSE, observed.trouble.reason.value, observed.trouble.message)
    if ended is not None and ended.result.counts_as_failure:
        return Condition("Ready", FALSE, ended.result.value, ended.message)
    if observed.suspended:
        return Condition("Ready", FALSE, "Suspended", "spec.suspend is true; no drill begins by itself")
    due = f"the next one is due at {instant(observed.next_at)}" if observed.next_at else "none is due"
    return Condition("Ready", TRUE, "Scheduled", due)
