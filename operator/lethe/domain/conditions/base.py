"""From what is recorded and seen to conditions: pure functions, one for each kind."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from lethe.domain.restores import RestoreEpisode


class ConditionStatus(StrEnum):
    """A condition is true, false, or not known yet."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"

    @classmethod
    def of(cls, truth: bool) -> ConditionStatus:
        """Return the status that stands for a truth."""
        return cls.TRUE if truth else cls.FALSE


TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition. `since` is when it came about, where the ledger knows that (`None`: when it is
    first shown).
    """

    type: str
    status: ConditionStatus
    reason: str
    message: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class ConditionSet:
    """Where an object stands: `state` in one word (`None` for kinds without), and its conditions."""

    state: str | None
    conditions: tuple[Condition, ...]

    @property
    def ready(self) -> Condition:
        """Return the condition that everybody waits for."""
        return next(condition for condition in self.conditions if condition.type == "Ready")


def with_progress(ready: Condition, *, stalled: bool = False, working: bool = False) -> tuple[Condition, ...]:
    """Add `Stalled` or `Reconciling` with Ready's reason; they exist only while they are true (kstatus)."""
    if stalled:
        return (ready, Condition("Stalled", TRUE, ready.reason, ready.message))
    if working:
        return (ready, Condition("Reconciling", TRUE, ready.reason, ready.message))
    return (ready,)


# RestoreEvent


def conditions_of_restore(
    episode: RestoreEpisode | None,
    *,
    reason: str,
    replay: tuple[
        Literal[
            "Waiting",
            "Replaying",
            "IdentityUnclear",
            "HeldRowsReturned",
            "AwaitingRelease",
            "MappingDoesNotFit",
        ],
        str,
    ]
    | None,
) -> ConditionSet:
    """Say where a RestoreEvent stands; `episode` is `None` while no restore has been seen yet."""
    permitted = (
        Condition("Permitted", FALSE, "Undeclared", "nobody has given a reason; set spec.reason")
        if reason == "Undeclared"
        else Condition("Permitted", TRUE, reason, "the reason was given")
    )
    if episode is None:
        message = "declared; the store has not been seen to go back in time"
        ready = Condition("Ready", FALSE, "Declared", message)
        waiting = Condition("Replayed", FALSE, "Waiting", message)
        safe = Condition("SafeToServe", FALSE, "Declared", message)
        return ConditionSet(
            "Declared", (*with_progress(ready, stalled=False, working=True), permitted, waiting, safe)
        )
    if episode.superseded_by is not None:
        message = f"the store went back once more; RestoreEvent {episode.superseded_by} goes on from there"
        return ConditionSet(
            "Superseded",
            (
                Condition("Ready", TRUE, "Superseded", message),
                permitted,
                Condition("Replayed", FALSE, "Superseded", message),
                Condition("SafeToServe", FALSE, "Superseded", message),
            ),
        )
    if not episode.open:
        since = episode.safe_at
        summary = f"{episode.re_erased} erased again, {episode.left_alone} left alone"
        if episode.released_because is not None:
            summary = f"released by a person; {summary}"
        return ConditionSet(
            "SafeToServe",
            (
                Condition("Ready", TRUE, "SafeToServe", summary, since),
                permitted,
                Condition("Replayed", TRUE, "AllReErased", summary, since),
                Condition("SafeToServe", TRUE, "Verified", summary, since),
            ),
        )
    kind, message = replay or ("Replaying", "the store went back in time; its erasures are applied again")
    shown = "Replaying" if kind == "Waiting" else kind
    ready = Condition("Ready", FALSE, shown, message)
    stalled = kind == "MappingDoesNotFit"
    asks = kind in ("IdentityUnclear", "HeldRowsReturned", "AwaitingRelease")
    return ConditionSet(
        "Stalled" if stalled else shown,
        (
            *with_progress(ready, stalled=stalled, working=not stalled and not asks),
            permitted,
            Condition("Replayed", FALSE, "Waiting" if kind == "Waiting" else "Replaying", message),
            Condition("SafeToServe", FALSE, shown, message),
        ),
    )
