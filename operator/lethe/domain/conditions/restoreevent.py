"""Where a RestoreEvent stands."""

from __future__ import annotations

from typing import Literal

from lethe.domain.conditions.base import FALSE, TRUE, Condition, ConditionSet, with_progress
from lethe.domain.restores import RestoreEpisode


def restoreevent_conditions(
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
