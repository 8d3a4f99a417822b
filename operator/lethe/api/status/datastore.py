"""The status of a DataStore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lethe.api.status.base import MAX_ENTRIES, rendered_conditions
from lethe.domain.conditions.base import ConditionSet
from lethe.domain.periods import instant


def datastore_status(
    condition_set: ConditionSet,
    previous: Mapping[str, Any],
    *,
    generation: int,
    now: datetime,
    seen_at: datetime | None,
    swept_at: datetime | None,
    applied: int,
    missing: int,
    journal_number: int,
    unmapped: Sequence[str],
) -> dict[str, Any]:
    """Return the status of a DataStore."""
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "conditions": rendered_conditions(condition_set, previous, generation=generation, now=now),
        "erasures": {"applied": applied, "missing": missing},
        "journal": {"number": journal_number},
    }
    if seen_at is not None:
        status["lastSeenAt"] = instant(seen_at)
    if swept_at is not None:
        status["lastSweptAt"] = instant(swept_at)
    if unmapped:
        status["unmapped"] = list(unmapped[:MAX_ENTRIES])
    return status
