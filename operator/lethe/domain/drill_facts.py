"""The facts that the ledger records of drills: restores that are rehearsed in a scratch database.

Fields may be added with a default, never renamed: see `facts.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class DrillResult(StrEnum):
    """What came of a drill."""

    PASSED = "Passed"
    REFUSED = "Refused"
    """Nothing was restored: the scratch server is one of production, or no such command or Job may be run."""
    SCRATCH_UNREACHABLE = "ScratchUnreachable"
    RESTORE_FAILED = "RestoreFailed"
    NOTHING_RESTORED = "NothingRestored"
    """The restore says that it went well, and what it brought back is not the store."""
    MAPPING_DOES_NOT_FIT = "MappingDoesNotFit"
    UNCLEARED = "Uncleared"
    """Somebody who was erased stands in the restored copy after the replay."""
    SCRATCH_FULL = "ScratchFull"
    TIMED_OUT = "TimedOut"
    GAVE_WAY = "GaveWay"
    """The store itself was restored meanwhile, which has precedence."""
    INTERRUPTED = "Interrupted"
    """The operator's process ended meanwhile."""
    REWRITE_FAILED = "RewriteFailed"
    """All was erased again and read back, and the snapshot could not be replaced by a dump of that."""

    @property
    def counts_as_failure(self) -> bool:
        """Tell whether whoever keeps the backups has to look at it."""
        return self not in (DrillResult.PASSED, DrillResult.GAVE_WAY, DrillResult.INTERRUPTED)


class RewriteResult(StrEnum):
    """What became of the snapshot in a drill that rewrites it."""

    REWRITTEN = "Rewritten"
    NOBODY_ERASED = "NobodyErased"
    """No snapshot holds anybody who was erased."""
    HELD = "LegalHold"
    KEPT = "Kept"
    """It was left as it is this time."""
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class DrillStarted:
    """A drill begins: `snapshot` of `source` is restored as `database`, a scratch one.

    `drill`, `source` and `store` are `namespace/name`. `token` is the `spec.runNow` that asked for it.
    """

    drill: str
    at: datetime
    store: str
    source: str
    snapshot: str
    taken_at: datetime
    database: str
    token: str | None = None


@dataclass(frozen=True, slots=True)
class DrillEnded:
    """A drill has ended; `left`: its scratch database may be there still. `message` is for a person.

    `size` is in bytes, durations in seconds; `None`: it did not come so far. Every erasure of the store until
    `replayed_from` was in it. `missed` counts who stood uncleared in the end. `rewrite` is `None` where the
    snapshot was not to be rewritten, or it did not come so far.
    """

    drill: str
    at: datetime
    result: DrillResult
    message: str = ""
    size: int | None = None
    restore_seconds: float | None = None
    replay_seconds: float | None = None
    verification_seconds: float | None = None
    erased_again: int | None = None
    left_alone: int | None = None
    missed: int | None = None
    replayed_from: datetime | None = None
    left: bool = False
    rewrite: RewriteResult | None = None


DrillFact = DrillStarted | DrillEnded
