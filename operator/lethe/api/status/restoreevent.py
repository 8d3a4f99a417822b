"""The status of a RestoreEvent."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lethe.api.status.base import MAX_ENTRIES, rendered_conditions
from lethe.domain.conditions.base import ConditionSet
from lethe.domain.periods import instant
from lethe.domain.restores import RestoreEpisode


def restoreevent_status(
    episode: RestoreEpisode | None,
    condition_set: ConditionSet,
    previous: Mapping[str, Any],
    *,
    generation: int,
    now: datetime,
    origin: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the status of a RestoreEvent. `origin` is what the store was restored from."""
    status: dict[str, Any] = {
        "state": condition_set.state,
        "observedGeneration": generation,
        "conditions": rendered_conditions(condition_set, previous, generation=generation, now=now),
    }
    if origin is not None:
        status["restoredFrom"] = origin
    if episode is None:
        return status
    status["detectedBy"] = episode.detected_by.value
    replay: dict[str, Any] = {
        "missing": episode.missing,
        "reErased": episode.re_erased,
        "leftAlone": episode.left_alone,
        "unclear": episode.unclear or 0,
    }
    if episode.same_address:
        replay["sameAddress"] = episode.same_address
    if episode.never_found:
        replay["neverFound"] = episode.never_found
    if episode.rows:
        most = sorted(episode.rows.items(), key=lambda one: (-one[1], one[0]))[:MAX_ENTRIES]
        replay["tables"] = [{"table": table, "rows": rows} for table, rows in most]
    if episode.missing_since is not None:
        replay["missingSince"] = instant(episode.missing_since)
    status["replay"] = replay
    if episode.unclear_keys and episode.open:
        status["unclear"] = [
            {"table": table, "key": key} for table, key in dict.fromkeys(episode.unclear_keys[:MAX_ENTRIES])
        ]
    if episode.safe_at is not None:
        status["safeToServeAt"] = instant(episode.safe_at)
    return status
